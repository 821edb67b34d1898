"""Write shards into a store: each chunk when its rows are complete, the metadata at the end, ``zarr.json`` last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import EngineError
from patchprism.features.store import layout
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.source import rows_of
from patchprism.jobs.tasks import ChunkTask

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.features.store.layout import ArraySpec
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.shards import Shards, Table
    from patchprism.support.folders import Folder

# Chunks are written when this many are complete. There are few, so that shards are removed soon, but more than one,
# so that the workers of a cluster share them.
CHUNKS_AT_ONCE = 16
# The folder of the chunks of the tokens.
_CHUNKS = "tokens/c"


class StoreWriter:
    """Puts the shards of a job, in their order, into one array of tokens.

    The contents depend only on the shards. So a chunk that exists after an interrupted run is valid if no shard
    before its end has changed. The tokens of shards whose rows are all in such chunks are removed.

    Parameters
    ----------
    out : Folder
        The store.
    engine : Engine
        Its workers write the chunks.

    Attributes
    ----------
    width : int
        Width of the tokens, from the first shard with photos.
    """

    def __init__(self, shards: Shards, out: Folder, engine: Engine) -> None:
        self.shards, self.out, self.engine, self.width = shards, out, engine, 0
        self._waiting: dict[int, int] = {}  # patches of shards that were done before an earlier shard
        self._bounds = [0]  # first patch of each shard, as far as all shards before it are done
        self._written = 0  # number of chunks
        self._dropped = 0  # number of shards whose tokens are removed
        self._usable: set[int] = set()  # shards of an earlier run that need not be done again

    def resume(self, key: Callable[[int], str]) -> None:
        """Use the work of an earlier run with the same settings, even with other photos.

        From the first shard that must be done again, rows may move, so the chunks from there on are removed. Before
        that, shards whose tokens are only in these chunks get them back.

        Parameters
        ----------
        key : callable
            Takes a shard, and returns the key that it must have.
        """
        there = self.shards.committed()
        ends: list[int] = []  # rows before the end of each shard, as far as they are known
        dropped: list[int] = []
        first = None
        for shard in range(self.shards.n_shards):
            table = self.shards.load(shard) if shard in there else None
            if table is None:
                first = shard if first is None else first
                continue
            self.width = self.width or table.width
            start, known = (ends[-1] if ends else 0), len(ends) == shard
            if known:
                ends.append(start + table.n_patches)
            usable = table.key == key(shard)
            if usable and not self.shards.has_tokens(shard, table):
                usable = known and all(map(self._is_written, self._chunks(start, ends[-1])))
                if usable:
                    dropped.append(shard)
            if usable:
                self._usable.add(shard)
            elif first is None:
                first = shard
        if not self.width:
            self.out.remove("tokens")
            return
        rows = self._spec.chunks[0]
        at = ends[-1] if first is None and ends else ends[first - 1] if first else 0
        kept = -(-at // rows) if first is None else at // rows
        for shard in dropped:
            if ends[shard] > kept * rows:
                self.shards.write_tokens(shard, self._rows_of(ends[shard - 1] if shard else 0, ends[shard]))
        for name in self.out.keys(_CHUNKS, folders=True):
            if not name.isdecimal() or int(name) >= kept:
                self.out.remove(f"{_CHUNKS}/{name}")

    def committed(self, shard: int, key: str) -> Table | None:
        """A shard's table, if :meth:`resume` found it usable."""
        return self.shards.load(shard, key) if shard in self._usable else None

    def _chunks(self, start: int, stop: int) -> range:
        """The chunks that contain the given rows."""
        rows = self._spec.chunks[0]
        return range(start // rows, -(-stop // rows))

    def _rows_of(self, start: int, stop: int) -> bytes:
        """The tokens of some rows, read from written chunks."""
        spec = self._spec
        rows, size = spec.chunks[0], spec.row_bytes
        parts = [
            self.out.read(
                spec.key(chunk), max(start - chunk * rows, 0) * size, min(stop - chunk * rows, rows) * size
            )
            for chunk in self._chunks(start, stop)
        ]
        return b"".join(parts)

    def add(self, shard: int, table: Table) -> None:
        """Add a shard that is done; writes chunks when enough are complete."""
        self.width = self.width or table.width
        self._waiting[shard] = table.n_patches
        while (following := len(self._bounds) - 1) in self._waiting:
            self._bounds.append(self._bounds[-1] + self._waiting.pop(following))
        if self.width and self._bounds[-1] // self._spec.chunks[0] - self._written >= CHUNKS_AT_ONCE:
            self._write(self._bounds[-1] // self._spec.chunks[0])

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write everything that is left; last ``zarr.json``, which makes it a store."""
        assert len(self._bounds) == self.shards.n_shards + 1, "all shards are done"
        self._write(-(-self._bounds[-1] // self._spec.chunks[0]))
        n_photos = sum(1 for _ in rows_of(self.shards))
        specs = layout.specs(
            n_photos=n_photos, n_patches=self._bounds[-1], width=self.width, dtype=self.shards.dtype
        )
        self._write_tables(specs)
        for name, spec in specs.items():
            self.out.write(f"{name}/zarr.json", spec.metadata())
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"patchprism": attributes}}
        self.out.write("zarr.json", layout.dump(group))

    @property
    def _spec(self) -> ArraySpec:
        """The tokens' array; its chunks do not depend on how many patches there will be."""
        return layout.specs(n_photos=1, n_patches=0, width=self.width, dtype=self.shards.dtype)["tokens"]

    def _is_written(self, chunk: int) -> bool:
        return self.out.size(self._spec.key(chunk)) == self._spec.chunk_bytes

    def _write(self, stop: int) -> None:
        """Write the chunks before ``stop``, and drop the tokens of the shards that they contain."""
        todo = (
            (chunk, self._runs(chunk)) for chunk in range(self._written, stop) if not self._is_written(chunk)
        )
        for _, result in self.engine.map(ChunkTask(self.shards, self._spec, self.out), todo):
            if isinstance(result, WorkerLost):
                raise EngineError(f"workers died repeatedly while writing a chunk: {result.reason}")
        self._written = stop
        complete = stop * self._spec.chunks[0]
        while self._dropped < len(self._bounds) - 1 and self._bounds[self._dropped + 1] <= complete:
            self.shards.drop_tokens(self._dropped)
            self._dropped += 1

    def _runs(self, chunk: int) -> list[tuple[int, int, int]]:
        """The patches of a chunk as runs: shard, the first of its patches, and the one after the last."""
        rows, bounds = self._spec.chunks[0], self._bounds
        start, stop = chunk * rows, min((chunk + 1) * rows, bounds[-1])
        runs = []
        shard = int(np.searchsorted(bounds, start, side="right")) - 1
        while shard < len(bounds) - 1 and bounds[shard] < stop:
            low, high = max(start, bounds[shard]), min(stop, bounds[shard + 1])
            if low < high:
                runs.append((shard, low - bounds[shard], high - bounds[shard]))
            shard += 1
        return runs

    def _write_tables(self, specs: dict[str, ArraySpec]) -> None:
        """The tables, a chunk at a time."""
        held: dict[str, list[Any]] = {name: [] for name in specs if name != "tokens"}
        written = dict.fromkeys(held, 0)

        def put(name: str, value: Any) -> None:
            held[name].append(value)
            if len(held[name]) == specs[name].chunks[0]:
                flush(name)

        def flush(name: str) -> None:
            spec, rows = specs[name], held[name]
            data = (
                layout.encode_names(rows, spec.chunks[0]) if name == "names" else spec.encode(np.array(rows))
            )
            self.out.write(spec.key(written[name]), data)
            written[name] += 1
            held[name] = []

        end = 0
        put("offsets", end)
        for row in rows_of(self.shards):
            end += row.grid[0] * row.grid[1]
            put("offsets", end)
            put("grids", row.grid)
            put("sizes", row.size)
            put("crops", row.crop)
            put("names", row.name)
        for name in held:
            if held[name]:
                flush(name)
