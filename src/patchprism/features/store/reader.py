"""StoredFeatures: features on disk, which are read photo by photo and can be used like PatchFeatures."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from patchprism.errors import OptionError, StoreError
from patchprism.features.patch_features import PatchFeatures, Tokens, check_tokens
from patchprism.features.records import check_model, check_origin
from patchprism.features.store import layout
from patchprism.photos.framing import Framing
from patchprism.photos.plans import MAX_PIXELS
from patchprism.support import checks
from patchprism.support.folders import WORK, Folder, is_remote, open_folder
from patchprism.support.json_values import is_text, is_whole
from patchprism.support.memory import free_memory
from patchprism.support.reading import Note
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# If a store has at most this many chunk files, they are all checked when it is opened, so that a truncated file is
# found at once and not after an hour. In larger stores, each file is checked when it is read.
CHECKED_CHUNKS = 20_000
# Larger requests, in bytes, are refused if there is not enough free memory.
LARGE = 1 << 30


@dataclass(frozen=True)
class PhotoRow:
    """The entries of a photo in a store, without its tokens.

    Attributes
    ----------
    grid : tuple of int
        Rows and columns of patches.
    size : tuple of int
        The photo's (H, W) in pixels.
    crop : tuple of float
        Left, top, right and bottom of the part that the network saw, in the photo's pixels.
    plain : bool
        Whether the photo has a single colour, or is noise.
    content : str or None
        Digest of the pixels that were read, if it is known. A store does not contain it.
    """

    name: str
    grid: tuple[int, int]
    size: tuple[int, int]
    crop: tuple[float, float, float, float]
    plain: bool = False
    content: str | None = None


class StoredFeatures(PatchFeatures):
    """Features in a feature store, which can be used like :class:`~patchprism.PatchFeatures`.

    Each photo is read when it is requested, and is not kept in memory. Slices are views of the same store. A pickled
    copy reads the same folder.

    Parameters
    ----------
    path : path
        A folder, or an address that fsspec opens.

    Attributes
    ----------
    origin : dict
        Model, weights, framing and dtype, as in a prism.
    model : dict
        The backbone's record.
    dtype : str
        Dtype of the stored tokens, ``"float16"`` or ``"float32"``.
    notes : list of Note
        Notes about the photos that were read.

    Raises
    ------
    StoreError
        If there is no store, or it is damaged, truncated, unfinished, not valid, or from a newer version.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._folder = open_folder(path)
        attributes = _attributes(self._folder)
        self.origin = attributes["origin"]
        self.model = attributes["model"]
        self.key: str = attributes.get("key", "")
        self.failures = attributes.get("failures", [])
        plain = attributes.get("plain", [])  # missing in stores of earlier versions
        self._plain = frozenset(map(str, plain)) if isinstance(plain, list) else frozenset()
        notes = attributes.get("notes", [])
        self.notes = [
            Note(str(each.get("photo", "")), str(each.get("note", "")))
            for each in (notes if isinstance(notes, list) else [])
            if isinstance(each, dict)
        ]
        self._specs = {name: layout.read_spec(self._folder, name) for name in layout.TABLES}
        self.dtype = self._specs["tokens"].dtype
        self._names_chunk: tuple[int, list[str]] | None = None
        self._span = range(self._specs["names"].shape[0])
        self._check()

    # ------------------------------------------------------------ as PatchFeatures

    @property
    def width(self) -> int:
        """Length D of a patch token."""
        return self._specs["tokens"].shape[1]

    @property
    def grids(self) -> list[tuple[int, int]]:
        """Rows and columns of patches, (h, w), of each photo."""
        return [row.grid for rows in self._blocks() for row in rows]

    @property
    def names(self) -> list[str]:  # type: ignore[override]
        """The names of all photos."""
        return [row.name for rows in self._blocks() for row in rows]

    @property
    def n_patches(self) -> int:
        """Number of patches of all photos."""
        if len(self) == self._specs["names"].shape[0]:
            return self._specs["tokens"].shape[0]
        return sum(h * w for h, w in self.grids)

    def __len__(self) -> int:
        return len(self._span)

    @overload
    def __getitem__(self, index: int) -> Tokens: ...

    @overload
    def __getitem__(self, index: slice) -> StoredFeatures: ...

    def __getitem__(self, index: int | slice) -> Tokens | StoredFeatures:
        if isinstance(index, slice):
            part = object.__new__(type(self))
            part.__dict__.update(self.__dict__)
            part._span = self._span[index]
            return part
        at = self._span[index]
        ((_, tokens),) = self.read(at, at + 1)
        return tokens

    def __iter__(self) -> Iterator[Tokens]:
        for at in self._span:
            ((_, tokens),) = self.read(at, at + 1)
            yield tokens

    def __repr__(self) -> str:
        return (
            f"StoredFeatures({self.path!r}, {counted(len(self), 'photo')}, width {self.width}, {self.dtype})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopened, (self.path, self._span)

    # ------------------------------------------------------------ reading

    @property
    def _patch_size(self) -> int:
        return int(self.model["patch_size"])

    @property
    def _cell(self) -> float:
        """Side of a token's cell in pixels of model input."""
        return self.framing.cell / int(self.origin.get("refine", 1))

    @property
    def framing(self) -> Framing:
        """How the photos were framed."""
        try:
            return Framing.from_dict(self.origin["framing"])
        except (OptionError, KeyError, TypeError) as error:
            raise StoreError(
                f"{self.path}: damaged feature store, its framing is not valid ({error})"
            ) from error

    def rows(self, start: int, stop: int) -> list[PhotoRow]:
        """The entries of the photos from ``start`` to ``stop`` (exclusive), counted in the whole store."""
        return [row for row, _, _ in self._table(start, stop)]

    def read(self, start: int, stop: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """The entries of the same photos, each with its tokens, (h, w, D) in the stored dtype, one at a time.

        Raises
        ------
        FeaturesError
            If a photo's tokens are not finite, or larger than 1e12.
        StoreError
            If a chunk is damaged, or there is not enough free memory for the tokens of a photo.
        """
        for row, first, last in self._table(start, stop):
            # Tokens are in memory twice: as stored, and in the precision of the computation.
            need = 2 * 4 * (last - first) * self.width
            if need > LARGE and need > free_memory():
                raise StoreError(
                    f"{self.path}: the tokens of {row.name} take {need / 1e9:,.1f} GB, more memory than "
                    "this machine has free"
                )
            tokens = self._rows("tokens", first, last)
            check_tokens(tokens, f"{row.name} in {self.path}")
            yield row, tokens.reshape(*row.grid, self.width)

    def _blocks(self) -> Iterator[list[PhotoRow]]:
        if self._span.step != 1:
            yield from (self.rows(at, at + 1) for at in self._span)
            return
        for start in range(self._span.start, self._span.stop, layout.TABLE_ROWS):
            yield self.rows(start, min(start + layout.TABLE_ROWS, self._span.stop))

    def _table(self, start: int, stop: int) -> list[tuple[PhotoRow, int, int]]:
        offsets = self._rows("offsets", start, stop + 1)
        grids = self._rows("grids", start, stop).astype(np.int64)
        sizes = self._rows("sizes", start, stop).astype(np.int64)
        crops = self._rows("crops", start, stop)
        names = self._names(start, stop)
        sound = (
            ((grids > 0) & (grids <= layout.MAX_SIDE)).all()
            and (grids.prod(axis=1) <= layout.MAX_PATCHES).all()
            and (np.diff(offsets) == grids.prod(axis=1)).all()
            and offsets[0] >= 0
            and offsets[-1] <= self._specs["tokens"].shape[0]
            # Neither a framed photo nor a photo has more pixels than the largest that can be read.
            and (grids.prod(axis=1) * self._cell**2 <= MAX_PIXELS).all()
            and ((sizes > 0) & (sizes <= layout.MAX_SIDE)).all()
            and (sizes.prod(axis=1) <= MAX_PIXELS).all()
            and np.isfinite(crops).all()
            and (crops[:, :2] < crops[:, 2:]).all()
            # The part that the network saw is inside the photo, except for rounding.
            and (crops[:, :2] > -1).all()
            and (crops[:, 2:] < sizes[:, ::-1] + 1).all()
        )
        if not sound:
            raise StoreError(
                f"{self.path}: damaged feature store, grids, offsets, sizes and crops of photos {start + 1} to "
                f"{stop} do not fit together"
            )
        return [
            (
                PhotoRow(
                    name,
                    (int(g[0]), int(g[1])),
                    (int(s[0]), int(s[1])),
                    (float(c[0]), float(c[1]), float(c[2]), float(c[3])),
                    name in self._plain,
                ),
                int(first),
                int(last),
            )
            for name, g, s, c, first, last in zip(
                names, grids, sizes, crops, offsets[:-1], offsets[1:], strict=True
            )
        ]

    def _rows(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows of an array; only the bytes of these rows are read."""
        spec = self._specs[name]
        parts = []
        while start < stop:
            chunk, inside = divmod(start, spec.chunks[0])
            end = min(stop, (chunk + 1) * spec.chunks[0])
            key, length = spec.key(chunk), (end - start) * spec.row_bytes
            try:
                data = self._folder.read(key, inside * spec.row_bytes, inside * spec.row_bytes + length)
            except OSError as error:
                raise StoreError(f"{self.path}/{key}: cannot be read ({error.strerror or error})") from error
            if len(data) != length:
                raise StoreError(f"{self.path}/{key}: damaged feature store, this chunk is cut short")
            parts.append(np.frombuffer(data, np.dtype(spec.dtype).newbyteorder("<")))
            start = end
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined.reshape(-1, *spec.shape[1:]).astype(np.dtype(spec.dtype), copy=False)

    def _names(self, start: int, stop: int) -> list[str]:
        spec, found = self._specs["names"], []
        while start < stop:
            chunk, inside = divmod(start, spec.chunks[0])
            end = min(stop, (chunk + 1) * spec.chunks[0])
            if self._names_chunk is None or self._names_chunk[0] != chunk:
                key = spec.key(chunk)
                try:
                    data = self._folder.read(key, 0, _most_bytes(spec))
                except OSError as error:
                    raise StoreError(
                        f"{self.path}/{key}: cannot be read ({error.strerror or error})"
                    ) from error
                names = layout.decode_names(data, spec.chunks[0], f"{self.path}/{key}")
                self._names_chunk = chunk, names
            these = self._names_chunk[1][inside : inside + end - start]
            for at, name in enumerate(these, start + 1):
                if name.rpartition("/")[2] in ("", ".", ".."):  # pictures are named after the last component
                    raise StoreError(
                        f"{self.path}: damaged feature store, the name of photo {at} is {checks.short_repr(name)}, "
                        "which cannot be the name of a file; write the store again with `patchprism features`"
                    )
            found += these
            start = end
        return found

    def _check(self) -> None:
        """Refuse arrays that do not fit together, and chunks that are missing or have the wrong size."""
        n, patches = self._specs["names"].shape[0], self._specs["tokens"].shape[0]
        if not n or not patches:
            raise StoreError(f"{self.path}: a feature store without photos")
        for name, spec in self._specs.items():
            wanted = {"tokens": patches, "offsets": n + 1}.get(name, n)
            if spec.shape[0] != wanted:
                raise StoreError(
                    f"{self.path}: damaged feature store, array {name} has {spec.shape[0]:,} rows, not {wanted:,}"
                )
        if self.model["name"] != self.origin.get("model") or self.framing.patch_size != self._patch_size:
            raise StoreError(f"{self.path}: damaged feature store, its model record does not fit its origin")
        for name, spec in self._specs.items():
            last = spec.n_chunks - 1
            few = spec.n_chunks <= CHECKED_CHUNKS
            for chunk in range(spec.n_chunks) if few else (0, last):
                size = self._folder.size(spec.key(chunk))
                # The lengths of names vary, but each name needs at least the four bytes of its length.
                text = name == "names"
                least = 4 + 4 * spec.chunks[0] if text else spec.chunk_bytes
                most = _most_bytes(spec) if text else least
                if size is None or not least <= size <= most:
                    state = "missing" if size is None else f"of {size:,} bytes, not {least:,}"
                    raise StoreError(
                        f"{self.path}/{spec.key(chunk)}: damaged feature store, this chunk is {state}"
                    )
        if int(self._rows("offsets", 0, 1)[0]) or int(self._rows("offsets", n, n + 1)[0]) != patches:
            raise StoreError(
                f"{self.path}: damaged feature store, its offsets do not end at {patches:,} patches"
            )
        self._table(0, min(n, 1))


def _attributes(folder: Folder) -> dict[str, Any]:
    if folder.size("zarr.json") is None:
        if folder.size(f"{WORK}/job.json") is not None:
            raise StoreError(
                f"{folder.name}: an unfinished feature store; to finish it, repeat the command that started it"
            )
        raise StoreError(f"{folder.name}: not a feature store (it has no zarr.json)")
    group = layout.load_json(folder, "zarr.json")
    attributes = group.get("attributes")
    ours = attributes.get("patchprism") if isinstance(attributes, dict) else None
    if group.get("zarr_format") != 3 or group.get("node_type") != "group" or not isinstance(ours, dict):
        raise StoreError(f"{folder.name}: a Zarr folder, but not a feature store of PatchPrism")
    version = ours.get("version")
    if not is_whole(version) or version != layout.VERSION:
        raise StoreError(
            f"{folder.name}: feature store of version {version!r}, this PatchPrism reads version "
            f"{layout.VERSION}: upgrade it"
        )
    for key in ("origin", "model"):
        if not isinstance(ours.get(key), dict):
            raise StoreError(f"{folder.name}: damaged feature store, it does not say its {key}")
    try:
        check_origin(ours["origin"])
        check_model(ours["model"])
    except ValueError as error:
        raise StoreError(f"{folder.name}: damaged feature store, {error}") from error
    failures = ours.get("failures", [])
    if not isinstance(failures, list) or not all(
        isinstance(each, dict)
        and set(each) == {"photo", "reason"}
        and is_text(each["photo"])
        and is_text(each["reason"])
        for each in failures
    ):
        raise StoreError(f"{folder.name}: damaged feature store, it does not say which photos failed")
    if not is_text(ours.get("key", "")):
        raise StoreError(f"{folder.name}: damaged feature store, its key is not valid")
    return ours


def _most_bytes(spec: layout.ArraySpec) -> int:
    """Maximum number of bytes of a chunk of names."""
    return 4 + (4 + layout.MAX_NAME) * spec.chunks[0]


def _reopened(path: str, span: range) -> StoredFeatures:
    features = StoredFeatures(path)
    features._span = span
    return features


def is_store(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a feature store, and not of a photo or a folder of photos."""
    if os.fspath(path).rstrip("/").endswith(".zarr"):
        return True
    # Addresses are recognised only by their name, because looking for a zarr.json costs a request.
    return not is_remote(path) and open_folder(path).size("zarr.json") is not None
