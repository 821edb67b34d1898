"""Write a feature store as a Parquet table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import ExtraError
from patchprism.support.files import atomic_write

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from patchprism.features.store.reader import StoredFeatures

# Photos per row group, which a reader loads or skips as a whole.
_PHOTOS_PER_GROUP = 64


def write_parquet(
    features: StoredFeatures,
    path: str | os.PathLike[str],
    *,
    tell: Callable[[str, int, int | None], None] = lambda *_: None,
) -> None:
    """Write a table with one row per patch: ``photo`` (its name), ``row`` and ``column`` in the grid, and ``vector``.

    A vector has D numbers in float32, because few programs can read float16 from Parquet.

    Raises
    ------
    ExtraError
        If pyarrow is not installed.
    OutputError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExtraError.of(error, "tables", "writing Parquet", "pyarrow") from error
    schema = pa.schema(
        [
            ("photo", pa.dictionary(pa.int32(), pa.string())),
            ("row", pa.int32()),
            ("column", pa.int32()),
            ("vector", pa.list_(pa.float32(), features.width)),
        ]
    )
    with atomic_write(path) as part, pq.ParquetWriter(part, schema, compression="zstd") as writer:
        for start in range(0, len(features), _PHOTOS_PER_GROUP):
            stop = min(start + _PHOTOS_PER_GROUP, len(features))
            columns: dict[str, list[Any]] = {"name": [], "row": [], "column": [], "vector": []}
            for at, (row, tokens) in enumerate(features.read(start, stop)):
                h, w = row.grid
                columns["name"].append(np.full(h * w, at, np.int32))
                columns["row"].append(np.repeat(np.arange(h, dtype=np.int32), w))
                columns["column"].append(np.tile(np.arange(w, dtype=np.int32), h))
                columns["vector"].append(tokens.reshape(-1).astype(np.float32))
            joined = {name: np.concatenate(values) for name, values in columns.items()}
            names = [row.name for row in features.rows(start, stop)]
            writer.write_table(
                pa.table(
                    [
                        pa.DictionaryArray.from_arrays(
                            pa.array(joined["name"]), pa.array(names, pa.string())
                        ),
                        pa.array(joined["row"]),
                        pa.array(joined["column"]),
                        pa.FixedSizeListArray.from_arrays(pa.array(joined["vector"]), features.width),
                    ],
                    schema=schema,
                )
            )
            tell("table", stop, len(features))
