"""Shards -> a store: chunks are written as their rows are complete, metadata at the end, ``zarr.json`` last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.engines import WorkerLost
from patchprism.errors import EngineError
from patchprism.store import layout
from patchprism.tasks import ChunkTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchprism.engines import Engine
    from patchprism.folders import Folder
    from patchprism.shards import Shards, Table
    from patchprism.store.layout import ArraySpec

# Chunks are written when so many are complete: a few, so that shards are not kept long; on a cluster more than
# one, so that its workers share them.
CHUNKS_AT_ONCE = 16


class StoreWriter:
    """Puts the shards of a job, in their order, into one array of tokens.

    What is written is a function of the shards alone, so a chunk that is there after a broken run is right, and
    shards whose rows all lie in such chunks give their tokens up.

    Parameters
    ----------
    shards : Shards
    out : Folder
        The store.
    engine : Engine
        Its workers write the chunks.

    Attributes
    ----------
    width : int
        Of the tokens, as the first shard with photos tells.
    """

    def __init__(self, shards: Shards, out: Folder, engine: Engine) -> None:
        self.shards, self.out, self.engine, self.width = shards, out, engine, 0
        self._waiting: dict[int, int] = {}  # patches of shards that are done before an earlier one
        self._bounds = [0]  # first patch of each shard, as far as all before it are done
        self._written = 0  # chunks
        self._dropped = 0  # shards whose tokens are given up

    def committed(self, shard: int, key: str) -> Table | None:
        """A shard's table, if its tokens are there, or in chunks already."""
        table = self.shards.load(shard, key)
        if table is None or self.shards.has_tokens(shard, table):
            return table
        if shard != len(self._bounds) - 1:
            return None  # an earlier one is to be done again: where this one's rows lie is not known yet
        self.width = self.width or table.width
        start = self._bounds[shard]
        rows = self._spec.chunks[0]
        chunks = range(start // rows, -(-(start + table.n_patches) // rows))
        return table if all(self._is_written(chunk) for chunk in chunks) else None

    def add(self, shard: int, table: Table) -> None:
        """Take a shard that is done; writes chunks when some are complete."""
        self.width = self.width or table.width
        self._waiting[shard] = table.n_patches
        while (following := len(self._bounds) - 1) in self._waiting:
            self._bounds.append(self._bounds[-1] + self._waiting.pop(following))
        if self.width and self._bounds[-1] // self._spec.chunks[0] - self._written >= CHUNKS_AT_ONCE:
            self._write(self._bounds[-1] // self._spec.chunks[0])

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write what is left, and last of all the file that makes it a store."""
        assert len(self._bounds) == self.shards.n_shards + 1, "all shards are done"
        self._write(-(-self._bounds[-1] // self._spec.chunks[0]))
        n_photos = sum(len(self.shards.table(shard).photos) for shard in range(self.shards.n_shards))
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
        """Write the chunks before ``stop``, and give up the shards that they hold."""
        todo = (
            (chunk, self._runs(chunk)) for chunk in range(self._written, stop) if not self._is_written(chunk)
        )
        for _, result in self.engine.map(ChunkTask(self.shards, self._spec, self.out), todo):
            if isinstance(result, WorkerLost):
                raise EngineError(f"workers died again and again over a chunk: {result.reason}")
        self._written = stop
        complete = stop * self._spec.chunks[0]
        while self._dropped < len(self._bounds) - 1 and self._bounds[self._dropped + 1] <= complete:
            self.shards.drop_tokens(self._dropped)
            self._dropped += 1

    def _runs(self, chunk: int) -> list[tuple[int, int, int]]:
        """The patches of a chunk: shard, and from which to before which of its patches."""
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
        for row in self._rows():
            end += row.grid[0] * row.grid[1]
            put("offsets", end)
            put("grids", row.grid)
            put("sizes", row.size)
            put("crops", row.crop)
            put("names", row.name)
        for name in held:
            if held[name]:
                flush(name)

    def _rows(self) -> Iterator[Any]:
        for shard in range(self.shards.n_shards):
            yield from self.shards.table(shard).photos
