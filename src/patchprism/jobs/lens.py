"""What lenses need of a source beyond its tokens: the photos themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from patchprism.jobs.shards import SHARD, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import PatchFeatures, Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.photos.framing import Framing

    Read = tuple[NDArray[np.uint8] | None, str | None]


class PhotoSource(Source, Protocol):
    """A source whose photos can be read again."""

    def photo(self, row: PhotoRow) -> Read:
        """A photo, (H, W, 3) uint8; None where it is gone, or another one by now, and why, where that is known."""

    def shown(self, row: PhotoRow, framing: Framing) -> Read:
        """What the network saw of a photo, (H, W, 3) uint8; None and the reason as for :meth:`photo`."""


class MemorySource:
    """Photos whose tokens are held in memory.

    Parameters
    ----------
    photos : Photos
    rows : sequence of PhotoRow
    tokens : PatchFeatures
        One entry per photo each, in the same order.
    """

    def __init__(self, photos: Photos, rows: Sequence[PhotoRow], tokens: PatchFeatures) -> None:
        self.photos, self._rows, self._tokens = photos, rows, tokens
        self.n_shards = -(-len(rows) // SHARD)
        self._index = {row: index for index, row in enumerate(rows)}  # rows that are equal are of one photo

    def key(self, shard: int) -> str:
        """See :class:`Source`; nothing in memory is ever resumed."""
        return f"memory {id(self)} {shard}"

    def rows(self, shard: int) -> list[PhotoRow]:
        """See :class:`Source`."""
        return list(self._rows[shard * SHARD : (shard + 1) * SHARD])

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """See :class:`Source`."""
        for place, row in enumerate(self.rows(shard)):
            yield row, self._tokens[shard * SHARD + place]

    def photo(self, row: PhotoRow) -> Read:
        """See :class:`PhotoSource`."""
        index = self._index[row]
        photo = self.photos.read(index)
        return (None, self.photos.lost.get(index)) if self.photos.is_gone(index) else (photo, None)

    def shown(self, row: PhotoRow, framing: Framing) -> Read:
        """See :class:`PhotoSource`; crops are kept from the extraction while memory is cheap."""
        index = self._index[row]
        shown = self.photos.shown(index, framing)
        return (None, self.photos.lost.get(index)) if self.photos.is_gone(index) else (shown, None)
