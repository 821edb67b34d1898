"""The layout of a feature store: which Zarr v3 arrays there are, and their metadata, written and checked.

Stores are read and written without the ``zarr`` package. The arrays are uncompressed, so that the tokens of a photo
are one range of bytes, a truncated chunk is recognised by its size, and equal tokens are equal bytes. Also, no codec
runs on files from others. docs/store.md describes the layout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import StoreError
from patchprism.features.records import MAX_WIDTH
from patchprism.support.json_values import from_json, is_whole, to_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.support.folders import Folder

VERSION = 1
DTYPES = ("float16", "float32")

# Size of a chunk of tokens. Object stores work best with few large files, and the bytes of a photo can be read alone.
CHUNK_BYTES = 4 << 20
TABLE_ROWS = 1 << 16  # photos per chunk of the tables

MAX_JSON = 16 << 20
MAX_SIDE = 1 << 24  # largest side of a grid, or of a photo in pixels
MAX_PATCHES = 1 << 24  # patches of a photo; enough for the largest framed photo in patches of 4 x 4 pixels
MAX_ROWS = 1 << 53
MAX_CHUNK_BYTES = 1 << 30
MAX_NAME = 4096
MAX_NAME_ROWS = 1 << 16  # names per chunk; a chunk is read as a whole, at most 268 MB

# dtype ("": that of the tokens), length of the second axis (0: none, -1: the width of the tokens), dimension names
TABLES: dict[str, tuple[str, int, list[str]]] = {
    "tokens": ("", -1, ["patch", "feature"]),
    "offsets": ("int64", 0, ["boundary"]),
    "grids": ("int32", 2, ["photo", "rows_columns"]),
    "sizes": ("int32", 2, ["photo", "height_width"]),
    "crops": ("float64", 4, ["photo", "left_top_right_bottom"]),
    "names": ("string", 0, ["photo"]),
}


def rows_per_chunk(width: int, dtype: str) -> int:
    """Patches per chunk of tokens: a power of two, with at most ``CHUNK_BYTES``."""
    row = width * np.dtype(dtype).itemsize
    return 1 << max(0, int(math.log2(max(1, CHUNK_BYTES // row))))


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    Attributes
    ----------
    name : str
        A key of ``TABLES``.
    shape, chunks : tuple of int
        Shape of the array and of its chunks. The second axis is not divided.
    dtype : str
        Name of a NumPy dtype, or ``"string"``.
    """

    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def n_chunks(self) -> int:
        """Number of chunks along the first axis."""
        return -(-self.shape[0] // self.chunks[0])

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk; the last one is padded to the same size."""
        return self.chunks[0] * self.row_bytes

    def key(self, chunk: int) -> str:
        """The file of a chunk."""
        return f"{self.name}/c/{chunk}" + ("/0" if len(self.shape) == 2 else "")

    def metadata(self) -> bytes:
        """``zarr.json`` of this array."""
        text = self.dtype == "string"
        codec = {"name": "vlen-utf8", "configuration": {}}
        if not text:
            codec = {"name": "bytes", "configuration": {"endian": "little"}}
        return dump(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": list(self.shape),
                "data_type": self.dtype,
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(self.chunks)}},
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
                "fill_value": "" if text else 0 if self.dtype.startswith("int") else 0.0,
                "codecs": [codec],
                "attributes": {},
                "dimension_names": TABLES[self.name][2],
                "storage_transformers": [],
            }
        )

    def encode(self, rows: NDArray[Any]) -> memoryview:
        """The bytes of a chunk from its rows; missing rows of the last chunk are 0."""
        rows = np.ascontiguousarray(rows, dtype=np.dtype(self.dtype).newbyteorder("<"))
        if len(rows) < self.chunks[0]:
            padded = np.zeros((self.chunks[0], *self.shape[1:]), rows.dtype)
            padded[: len(rows)] = rows
            rows = padded
        return rows.reshape(-1).view(np.uint8).data


def specs(*, n_photos: int, n_patches: int, width: int, dtype: str) -> dict[str, ArraySpec]:
    """The arrays of a store with this number of photos and patches."""
    made = {}
    table_rows = min(TABLE_ROWS, n_photos + 1)
    for name, (kind, last, _) in TABLES.items():
        if name == "tokens":
            shape: tuple[int, ...] = (n_patches, width)
            chunks: tuple[int, ...] = (rows_per_chunk(width, dtype), width)
            kind = dtype
        else:
            rows = n_photos + 1 if name == "offsets" else n_photos
            shape = (rows, last) if last else (rows,)
            chunks = (table_rows, *shape[1:])
        made[name] = ArraySpec(name, shape, chunks, kind)
    return made


def encode_names(names: list[str], rows: int) -> bytes:
    """Names in the codec ``vlen-utf8``: the count, then the length and the bytes of each name.

    Chunks with fewer than ``rows`` names are padded with empty names.
    """
    parts = [np.uint32(rows).tobytes()]
    for name in names + [""] * (rows - len(names)):
        raw = name.encode("utf-8", "replace")  # file names are bytes, and not always text
        parts += [np.uint32(len(raw)).tobytes(), raw]
    return b"".join(parts)


def decode_names(data: bytes, rows: int, where: str) -> list[str]:
    """The names in a chunk; every length is checked before it is used.

    Raises
    ------
    StoreError
        If the chunk is damaged.
    """
    if len(data) < 4 or int.from_bytes(data[:4], "little") != rows:
        raise StoreError(f"{where}: damaged feature store, this chunk of names does not hold {rows} of them")
    names, at = [], 4
    for _ in range(rows):
        length = int.from_bytes(data[at : at + 4], "little")
        at += 4
        if length > MAX_NAME or at + length > len(data):
            raise StoreError(f"{where}: damaged feature store, a name is cut short or too long")
        try:
            name = data[at : at + length].decode("utf-8")
        except UnicodeDecodeError as error:
            raise StoreError(f"{where}: damaged feature store, a name is not UTF-8") from error
        if "\0" in name:
            raise StoreError(f"{where}: damaged feature store, a name holds a NUL character")
        names.append(name)
        at += length
    if at != len(data):
        raise StoreError(f"{where}: damaged feature store, this chunk of names has data after the last name")
    return names


def dump(value: Any) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    return (to_json(value, indent=2, sort_keys=True) + "\n").encode()


def load_json(folder: Folder, key: str) -> dict[str, Any]:
    """A JSON object of a store.

    Raises
    ------
    StoreError
        If the file is missing, too large, or not a JSON object.
    """
    where = f"{folder.name}/{key}"
    size = folder.size(key)
    if size is None:
        raise StoreError(f"{where}: missing; this is not a feature store, or it is incomplete")
    if size > MAX_JSON:
        raise StoreError(f"{where}: {size:,} bytes of metadata, more than the maximum of {MAX_JSON:,}")
    try:
        value = from_json(folder.read(key))
    except ValueError as error:
        raise StoreError(f"{where}: damaged, not JSON ({error})") from error
    except OSError as error:
        raise StoreError(f"{where}: cannot be read ({error.strerror or error})") from error
    if not isinstance(value, dict):
        raise StoreError(f"{where}: damaged, not a JSON object")
    return value


def read_spec(folder: Folder, name: str) -> ArraySpec:
    """The metadata of one array, which must be exactly as this version writes it.

    Raises
    ------
    StoreError
        If it is not; the message names the array and what is wrong.
    """
    found = load_json(folder, f"{name}/zarr.json")
    where = f"{folder.name}: array {name}"
    dtype = found.get("data_type")
    kind, last, _ = TABLES[name]
    allowed = (kind,) if kind else DTYPES
    if not isinstance(dtype, str) or dtype not in allowed:
        raise StoreError(f"{where} has data type {_short(dtype)}, allowed: {', '.join(allowed)}")
    grid = found.get("chunk_grid")
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    chunks = configuration.get("chunk_shape") if isinstance(configuration, dict) else None
    shape = found.get("shape")
    for label, value in (("shape", shape), ("chunk shape", chunks)):
        if (
            not isinstance(value, list)
            or len(value) != (2 if last else 1)
            or not all(is_whole(n, 0, MAX_ROWS) for n in value)
        ):
            raise StoreError(f"{where} has {label} {_short(value)}")
    assert isinstance(shape, list)
    assert isinstance(chunks, list)
    if last and (shape[1] != chunks[1] or not 1 <= shape[1] <= MAX_WIDTH or (last > 0 and shape[1] != last)):
        raise StoreError(f"{where} has shape {shape} in chunks of {chunks}")
    spec = ArraySpec(name, tuple(shape), tuple(chunks), str(dtype))
    small = chunks[0] <= MAX_NAME_ROWS if kind == "string" else spec.chunk_bytes <= MAX_CHUNK_BYTES
    if not chunks[0] or not small:
        raise StoreError(f"{where} has chunks of {chunks}: empty, or too large to read")
    # Everything else must be as we write it. The codecs matter most, because some can run code from a file.
    expected = from_json(spec.metadata())
    for key in ("zarr_format", "node_type", "chunk_grid", "chunk_key_encoding", "codecs"):
        if found.get(key) != expected[key]:
            raise StoreError(f"{where} has {key} {_short(found.get(key))}, allowed: {_short(expected[key])}")
    if found.get("storage_transformers", []) != []:
        raise StoreError(f"{where} has storage transformers, allowed: none")
    return spec


def _short(value: Any) -> str:
    text = to_json(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
