"""Sources: photos with their patch tokens, wherever both come from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchprism.errors import PhotoError
from patchprism.photos.sources import DRAWN_WITHOUT, read_again, read_source, read_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store import StoredFeatures
    from patchprism.features.store.reader import PhotoRow
    from patchprism.photos.framing import Framing

# Enough photos for full batches at the usual sizes, but few enough that an interrupted run loses only seconds of work
# (64 photos at 448 through ViT-S/14: 20 s on two cores, half a second on a GPU).
SHARD = 64


@dataclass(frozen=True)
class Failure:
    """A photo that could not be processed, and why."""

    photo: str
    reason: str


class Source(Protocol):
    """Photos with their tokens, in shards of ``SHARD`` photos; can be pickled and sent to a worker."""

    n_shards: int

    def key(self, shard: int) -> str:
        """Digest of all that a shard's tokens depend on."""

    def rows(self, shard: int) -> list[PhotoRow]:
        """The entries of the photos of a shard."""

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """A shard's photos with their tokens, (h, w, D)."""

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """A photo, (H, W, 3) uint8, read again.

        None if it is missing or has changed. The second value is the reason, except for photos of a store.
        """

    def shown(self, row: PhotoRow, framing: Framing) -> tuple[NDArray[np.uint8] | None, str | None]:
        """The part of a photo that the network saw, (H, W, 3) uint8; or None and the reason, as in :meth:`photo`."""


class _Shown:
    """The common way to show a photo: read it and frame it."""

    def shown(self: Any, row: PhotoRow, framing: Framing) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        photo, reason = self.photo(row)
        return (None if photo is None else framing.show(photo, name=row.name)), reason


class MemorySource:
    """Photos whose tokens are held in memory.

    Parameters
    ----------
    tokens : sequence of ndarray
        One entry per photo each, in the same order.
    """

    def __init__(
        self, photos: Photos, rows: Sequence[PhotoRow], tokens: Sequence[NDArray[np.floating[Any]]]
    ) -> None:
        self.photos, self._rows, self._tokens = photos, list(rows), list(tokens)
        self.n_shards = -(-len(self._rows) // SHARD)
        self._index = {row: index for index, row in enumerate(self._rows)}  # equal rows are of one photo

    def key(self, shard: int) -> str:
        """See :class:`Source`; nothing in memory is ever resumed."""
        return f"memory {id(self)} {shard}"

    def rows(self, shard: int) -> list[PhotoRow]:
        """See :class:`Source`."""
        return self._rows[shard * SHARD : (shard + 1) * SHARD]

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """See :class:`Source`."""
        yield from zip(self.rows(shard), self._tokens[shard * SHARD : (shard + 1) * SHARD], strict=True)

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        index = self._index[row]
        photo = self.photos.read(index)
        return (None, self.photos.lost.get(index)) if self.photos.is_gone(index) else (photo, None)

    def shown(self, row: PhotoRow, framing: Framing) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`; crops are kept in memory, up to a limit."""
        index = self._index[row]
        shown = self.photos.shown(index, framing)
        return (None, self.photos.lost.get(index)) if self.photos.is_gone(index) else (shown, None)


class ReadAgain(_Shown):
    """Photos by their names, which are read again when they are drawn."""

    reader: Callable[[str], NDArray[np.uint8]] = staticmethod(read_source)

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        try:
            return read_again(row.name, row.size, row.content, self.reader), None
        except PhotoError as error:
            return None, f"{error.reason}; {DRAWN_WITHOUT}"


class StoreSource(_Shown):
    """The photos of a feature store.

    Parameters
    ----------
    places : collection of str
        Where photos may be read: as in :func:`~patchprism.photos.sources.read_stored`.
    reader : callable
        Reads a photo: name -> (H, W, 3) uint8.
    """

    def __init__(
        self,
        features: StoredFeatures,
        places: Collection[str] = frozenset(),
        reader: Callable[[str], NDArray[np.uint8]] = read_source,
    ) -> None:
        self.features, self.places, self.reader = features, places, reader
        self.n_shards = -(-len(features) // SHARD)

    def key(self, shard: int) -> str:
        """See :class:`Source`."""
        return digest(self.features.path, self.features.key, self.features.origin, self._span(shard))

    def rows(self, shard: int) -> list[PhotoRow]:
        """See :class:`Source`."""
        return self.features.rows(*self._span(shard))

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """See :class:`Source`."""
        return self.features.read(*self._span(shard))

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        return read_stored(row.name, row.size, self.places, self.reader), None

    def _span(self, shard: int) -> tuple[int, int]:
        return shard * SHARD, min((shard + 1) * SHARD, len(self.features))


def rows_of(source: Source, only: Container[str] | None = None) -> Iterator[PhotoRow]:
    """The entries of all photos, or of those with the given names."""
    for shard in range(source.n_shards):
        yield from (row for row in source.rows(shard) if only is None or row.name in only)


def read_all(source: Source, only: Container[str] | None = None) -> Iterator[tuple[PhotoRow, Tokens]]:
    """All photos with their tokens, or those with the given names."""
    for shard in range(source.n_shards):
        yield from source.read(shard) if only is None else read_named(source, shard, only)


def read_named(source: Source, shard: int, names: Container[str]) -> Iterator[tuple[PhotoRow, Tokens]]:
    """Photos of a shard that have some names, with their tokens; a store reads no other tokens."""
    if not isinstance(source, StoreSource):
        yield from (each for each in source.read(shard) if each[0].name in names)
        return
    for at, row in enumerate(source.rows(shard), shard * SHARD):
        if row.name in names:
            yield from source.features.read(at, at + 1)


def digest(*values: Any) -> str:
    """SHA-256 of JSON values and arrays, in hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=_plain).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """An array or a NumPy scalar as JSON values; anything else is an error."""
    if isinstance(value, np.generic):
        return value.item()
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject:
        raise TypeError(f"{type(value).__name__} has no digest")
    return [array.dtype.str, array.shape, hashlib.sha256(array.data).hexdigest()]
