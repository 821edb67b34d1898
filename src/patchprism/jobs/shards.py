"""Shards: runs of photos that a worker processes together, and their committed tokens.

A job divides its list of photos into shards of ``SHARD`` photos. No batch spans two shards, so the tokens of a shard
depend only on its own photos: not on the worker, on earlier shards, or on where a run was interrupted. A shard is
complete when its table is written, which happens after its tokens are written. A killed process leaves only complete
shards and temporary files.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError, OutputError
from patchprism.features.patch_features import check_tokens
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.source import Failure, ReadAgain
from patchprism.photos.sources import read_source
from patchprism.support.reading import Note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.jobs.run import Reader
    from patchprism.support.folders import Folder


@dataclass(frozen=True)
class Table:
    """The entries of the photos of a shard, in their order.

    Attributes
    ----------
    key : str
        Digest of everything that its tokens depend on.
    width : int
        Width of the tokens; 0 if no photo could be read.
    notes : list of Note
        Notes about the photos.
    device : str
        Type of the device that the network ran on.
    weights : dict
        Fields of the network's ``WeightsOrigin``, as it was loaded.
    """

    key: str
    photos: list[PhotoRow] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    width: int = 0
    notes: list[Note] = field(default_factory=list)
    device: str = ""
    weights: dict[str, Any] = field(default_factory=dict)

    @property
    def n_patches(self) -> int:
        """Patches of all photos together."""
        return sum(row.grid[0] * row.grid[1] for row in self.photos)


class Shards(ReadAgain):
    """The shards in a job's work folder.

    Parameters
    ----------
    folder : Folder
        The folder that contains ``shards/``.
    dtype : {"float16", "float32"}
        Dtype of the tokens on disk.
    reader : callable
        Reads a photo: name -> (H, W, 3) uint8.
    """

    def __init__(self, folder: Folder, n_shards: int, dtype: str, reader: Reader = read_source) -> None:
        self.folder, self.n_shards, self.dtype, self.reader = folder, n_shards, dtype, reader

    def write(self, shard: int, table: Table, tokens: Sequence[NDArray[np.float32]]) -> None:
        """Commit a shard.

        Raises
        ------
        FeaturesError
            If a token does not fit into the dtype, or is not finite.
        OutputError
            If it cannot be written.
        """
        # Written photo by photo, so that the tokens of a shard are in memory only once.
        with self.folder.staged(self._tokens(shard)) as part, open(part, "wb") as file:
            for row, each in zip(table.photos, tokens, strict=True):
                with np.errstate(over="ignore"):
                    kept = np.ascontiguousarray(each, dtype=np.dtype(self.dtype).newbyteorder("<"))
                if not np.isfinite(kept).all():
                    hint = " in float16; keep the tokens in float32" if np.isfinite(each).all() else ""
                    raise FeaturesError(f"{row.name}: the network gave NaN or infinity{hint}")
                check_tokens(kept, row.name)
                file.write(kept.data)
        self.folder.write(self._table(shard), json.dumps(asdict(table)).encode())

    def table(self, shard: int) -> Table:
        """The table of a committed shard."""
        found = self.load(shard)
        if found is None:
            raise OutputError(f"{self.folder.name}/{self._table(shard)}", "it has vanished while the job ran")
        return found

    def load(self, shard: int, key: str | None = None) -> Table | None:
        """The table of a shard; None if it is not committed or has another key."""
        try:
            found = json.loads(self.folder.read(self._table(shard)))
            photos = [
                PhotoRow(
                    row["name"],
                    tuple(row["grid"]),
                    tuple(row["size"]),
                    tuple(row["crop"]),
                    bool(row.get("plain")),
                    row["content"],
                )
                for row in found["photos"]
            ]
            failures = [Failure(**each) for each in found["failures"]]
            notes = [Note(**each) for each in found.get("notes", [])]
            table = Table(
                found["key"], photos, failures, int(found["width"]), notes, found["device"], found["weights"]
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return table if key in (None, table.key) else None

    def has_tokens(self, shard: int, table: Table) -> bool:
        """Whether all tokens of a committed shard are still there."""
        expected = table.n_patches * table.width * np.dtype(self.dtype).itemsize
        return not expected or self.folder.size(self._tokens(shard)) == expected

    def write_tokens(self, shard: int, tokens: bytes) -> None:
        """Restore the tokens of a committed shard that were dropped."""
        self.folder.write(self._tokens(shard), tokens)

    def committed(self) -> set[int]:
        """The shards that have a table, of this job or an earlier one; the folder is listed only once."""
        names = self.folder.keys("shards")
        return {int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()}

    def drop_tokens(self, shard: int) -> None:
        """Remove the tokens of a shard, which are now kept elsewhere; its table stays."""
        self.folder.remove(self._tokens(shard))

    def key(self, shard: int) -> str:
        """See :class:`Source`."""
        return self.table(shard).key

    def rows(self, shard: int) -> list[PhotoRow]:
        """See :class:`Source`."""
        return self.table(shard).photos

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """See :class:`Source`."""
        table, start = self.table(shard), 0
        for row in table.photos:
            stop = start + row.grid[0] * row.grid[1]
            yield row, self.patches(shard, table, start, stop).reshape(*row.grid, table.width)
            start = stop

    def patches(self, shard: int, table: Table, start: int, stop: int) -> Tokens:
        """Tokens of some of a shard's patches, (n, D), counted through all of its photos."""
        dtype = np.dtype(self.dtype)
        row = table.width * dtype.itemsize
        data = self.folder.read(self._tokens(shard), start * row, stop * row)
        if len(data) != (stop - start) * row:
            raise OutputError(
                f"{self.folder.name}/{self._tokens(shard)}", "it was cut short while the job ran"
            )
        return np.frombuffer(data, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(-1, table.width)

    def _table(self, shard: int) -> str:
        return f"shards/{shard:08d}.json"

    def _tokens(self, shard: int) -> str:
        return f"shards/{shard:08d}.tokens"
