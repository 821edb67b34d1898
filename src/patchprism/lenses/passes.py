"""The pass over patch tokens that lenses are fitted with. It collects ranges and a random sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.prism.passes import Extent

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens


class Sample:
    """Measures patches; keeps the range of the measured values, and a random share of them.

    The sample of a photo depends only on the seed and the index of the photo, so it is the same for any number of
    workers and shards.

    Parameters
    ----------
    measure : callable
        Takes tokens, (h, w, D), and returns one row per patch, (n, k). It must allow pickling.
    share : float
        Share of the rows to keep; 1 or more keeps all.
    """

    def __init__(
        self, measure: Callable[[Tokens], NDArray[np.floating[Any]]], share: float = 0.0, seed: int = 0
    ) -> None:
        self.measure, self.share, self.seed = measure, share, seed
        self.kept: dict[int, NDArray[np.floating[Any]]] = {}
        self.extent: Extent | None = None

    def update(self, tokens: Tokens, index: int) -> None:
        """See :class:`~patchprism.prism.passes.Pass`."""
        rows = self.measure(tokens)
        self._extent(rows.shape[1]).add(rows.astype(np.float64, copy=False))
        if self.share >= 1:
            self.kept[index] = rows.copy()  # a view would keep the whole shard in memory
        elif self.share > 0:
            self.kept[index] = rows[np.random.default_rng((self.seed, index)).random(len(rows)) < self.share]

    def merge(self, other: Sample) -> None:
        """See :class:`~patchprism.prism.passes.Pass`."""
        self.kept |= other.kept
        if other.extent is not None:
            self._extent(len(other.extent.low)).merge(other.extent)

    def rows(self) -> NDArray[np.floating[Any]]:
        """The sample, in the order of the photos; it is removed from this object."""
        kept, self.kept = self.kept, {}
        return np.concatenate([kept[index] for index in sorted(kept)])

    def _extent(self, k: int) -> Extent:
        if self.extent is None:
            self.extent = Extent(k)
        return self.extent
