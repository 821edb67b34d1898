"""The passes over patch tokens that fit a prism.

Photos are added to a pass one at a time, and two passes of the same kind can be merged. So the same fit runs in one
loop, in threads, or on many machines. A pass keeps labels and agreements of at most ``MOST_VOTERS`` photos and of
photos with masks; otherwise its memory does not depend on the number of photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

import numpy as np

from patchprism.prism.axes import all_patch_values
from patchprism.prism.foreground import (
    CURVE_BINS,
    AgreementCurves,
    DirectionVotes,
    agreement,
    labels_of,
    on_border,
    score_bins,
)
from patchprism.prism.moments import BLOCK_ROWS, Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.prism.axes import Axes, Scorer
    from patchprism.prism.foreground import Voters

OTSU_BINS = 256
PERCENTILE_BINS = 1 << 16  # bins of the full range; a colour step of 1/255 has 257 bins


class Pass(Protocol):
    """A computation over all photos."""

    def update(self, tokens: Tokens, index: int, /) -> None:
        """Add a photo, with its tokens (h, w, D) and its index in the job, which decides whether it is labelled."""

    def merge(self, other: Self, /) -> None:
        """Add the photos of another pass of the same kind."""


PassT = TypeVar("PassT", bound=Pass)


class Walk(Protocol):
    """Adds all photos to a new pass, on any machines and in any order."""

    def __call__(self, make: Callable[[], PassT], /) -> PassT:
        """The pass that ``make`` creates, with all photos added."""
        ...


class Rows:
    """Moments that are updated with the rows of several photos at a time.

    Each update costs D × D work, even for twenty rows. With D = 448, an update took 18 ms for 20 rows and 25 ms for
    784.
    """

    def __init__(self, width: int) -> None:
        self._moments = Moments(width)
        self._held: list[Tokens] = []
        self._count = 0

    def add(self, rows: Tokens) -> None:
        """Add rows, (n, D); raises FeaturesError at once if one is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(rows.sum(dtype=np.float64))
        if suspicious or rows.shape[1] != len(self._moments.mean):
            # This raises an error that names what is wrong, or accepts the rows after all.
            self.moments().update(rows)
        elif len(rows):
            self._held.append(rows)
            self._count += len(rows)
        if self._count >= BLOCK_ROWS:
            self.moments()

    def moments(self) -> Moments:
        """Moments of all rows so far."""
        if self._held:
            held = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
            self._held, self._count = [], 0
            self._moments.update(held)
        return self._moments

    def __getstate__(self) -> dict[str, object]:
        """Add the waiting rows to the moments, so that they are not pickled."""
        self.moments()
        return self.__dict__


class SceneMoments:
    """Moments of all patches and, with ``voters``, the votes for a foreground direction."""

    def __init__(self, voters: Voters | None = None) -> None:
        self.votes = None if voters is None else DirectionVotes(voters)
        self._rows: Rows | None = None
        self.n_photos = 0

    @property
    def moments(self) -> Moments | None:
        """None before the first photo."""
        return None if self._rows is None else self._rows.moments()

    def update(self, tokens: Tokens, index: int) -> None:
        rows = tokens.reshape(-1, tokens.shape[-1])
        if self._rows is None:
            self._rows = Rows(rows.shape[1])
        self._rows.add(rows)
        self.n_photos += 1
        if self.votes is not None:
            self.votes.add(index, tokens)

    def merge(self, other: SceneMoments) -> None:
        moments = other.moments
        if moments is not None:
            if self._rows is None:
                self._rows = Rows(len(moments.mean))
            self._rows.moments().merge(moments)
        self.n_photos += other.n_photos
        if self.votes is not None and other.votes is not None:
            self.votes.merge(other.votes)


class Extent:
    """Smallest and largest value of each of k columns."""

    def __init__(self, k: int) -> None:
        self.low = np.full(k, np.inf)
        self.high = np.full(k, -np.inf)

    def add(self, values: NDArray[np.float64]) -> None:
        """Add rows, (n, k)."""
        if len(values):
            self.low = np.minimum(self.low, values.min(axis=0))
            self.high = np.maximum(self.high, values.max(axis=0))

    def merge(self, other: Extent) -> None:
        self.low = np.minimum(self.low, other.low)
        self.high = np.maximum(self.high, other.high)


class ScoreRange:
    """Extent of the unscaled scores: coordinates along a component, or along the foreground direction."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        self.extent = Extent(1)

    def update(self, tokens: Tokens, index: int) -> None:
        self.extent.add(self.scorer.values(tokens).reshape(-1, 1))

    def merge(self, other: ScoreRange) -> None:
        self.extent.merge(other.extent)


@dataclass(frozen=True)
class SideCounts:
    """Numbers of patches above and not above a threshold, and how many of each are on the border of a photo."""

    above: int
    below: int
    above_border: int
    below_border: int

    def border_share(self, side: str) -> float:
        """Share of the patches of a side that are on the border of a photo; 1 for an empty side."""
        size, border = (self.above, self.above_border) if side == "above" else (self.below, self.below_border)
        return border / size if size else 1.0


class ScoreCounts:
    """Histograms of the scores of all patches and of border patches, and the agreement with labels.

    Possible thresholds from Otsu's method (centres of its bins) and from the agreement are edges of these finer bins,
    so that the patches on each side can be counted afterwards. With a given threshold, patches are counted directly.
    """

    def __init__(self, scorer: Scorer, threshold: float | None, labels: Mapping[int, bytes]) -> None:
        self.scorer = scorer
        self.threshold = threshold
        self.labels = labels
        self.counts = np.zeros((2, CURVE_BINS), np.int64)  # all patches, border patches
        self.above = np.zeros(2, np.int64)
        self.curves = AgreementCurves()

    def update(self, tokens: Tokens, index: int) -> None:
        scores = self.scorer.score_of(tokens, photo=index)
        for row, values in enumerate((scores.ravel(), scores[on_border(*scores.shape)])):
            self.counts[row] += np.bincount(score_bins(values, CURVE_BINS), minlength=CURVE_BINS)
            if self.threshold is not None:
                self.above[row] += np.count_nonzero(values > np.float32(self.threshold))
        labels = labels_of(self.labels, index, scores.shape)
        if labels is not None:
            self.curves.add(scores, labels)

    def merge(self, other: ScoreCounts) -> None:
        self.counts += other.counts
        self.above += other.above
        self.curves.merge(other.curves)

    def histogram(self) -> NDArray[np.int64]:
        """Counts of all scores in Otsu's bins."""
        counts: NDArray[np.int64] = self.counts[0].reshape(OTSU_BINS, -1).sum(axis=1)
        return counts

    def sides(self, threshold: float) -> SideCounts:
        """Counts on each side of the given threshold, or of an edge of the bins."""
        above = self.above
        if self.threshold is None:
            above = self.counts[:, round(threshold * CURVE_BINS) :].sum(axis=1)
        below = self.counts.sum(axis=1) - above
        return SideCounts(int(above[0]), int(below[0]), int(above[1]), int(below[1]))


class ObjectMoments:
    """Moments of the foreground patches, extent of the all-patch picture, and agreement with labels or masks."""

    def __init__(self, scorer: Scorer, components: tuple[int, int, int], labels: Mapping[int, bytes]) -> None:
        self.scorer = scorer
        self.components = components
        self.labels = labels
        self.agreements: dict[int, float] = {}
        self._rows = Rows(len(scorer.scene.mean))
        self.extent = Extent(3)

    @property
    def moments(self) -> Moments:
        """Moments of all foreground patches so far."""
        return self._rows.moments()

    def update(self, tokens: Tokens, index: int) -> None:
        scene = self.scorer.scene.coordinates(tokens)
        foreground = self.scorer.foreground_of(tokens, scene=scene, photo=index)
        labels = labels_of(self.labels, index, foreground.shape)
        if labels is not None:
            self.agreements[index] = agreement(foreground, labels)
        elif index in self.scorer.given:
            self.agreements[index] = agreement(self.scorer.foreground_of(tokens), foreground)
        self._rows.add(tokens[foreground])
        self.extent.add(all_patch_values(scene, foreground, self.components).reshape(-1, 3))

    def merge(self, other: ObjectMoments) -> None:
        self.moments.merge(other.moments)
        self.extent.merge(other.extent)
        self.agreements |= other.agreements


class ObjectRange:
    """Extent of the coordinates along the components of the object PCA, over the foreground."""

    def __init__(self, scorer: Scorer, axes: Axes) -> None:
        self.scorer, self.axes = scorer, axes
        self.extent = Extent(len(axes.components))

    def update(self, tokens: Tokens, index: int | str) -> None:
        self.extent.add(self.axes.coordinates(tokens[self.scorer.foreground_of(tokens, photo=index)]))

    def merge(self, other: ObjectRange) -> None:
        self.extent.merge(other.extent)


class ObjectHistogram:
    """Fine histograms of the coordinates along the components of the object PCA, within an extent."""

    def __init__(self, scorer: Scorer, axes: Axes, extent: Extent) -> None:
        self.scorer, self.axes = scorer, axes
        self.low = extent.low
        self.step = (extent.high - extent.low) / PERCENTILE_BINS
        self.counts = np.zeros((len(extent.low), PERCENTILE_BINS), np.int64)

    def update(self, tokens: Tokens, index: int | str) -> None:
        values = self.axes.coordinates(tokens[self.scorer.foreground_of(tokens, photo=index)])
        steps = np.where(self.step > 0, self.step, 1.0)
        bins = np.clip((values - self.low) / steps, 0, PERCENTILE_BINS - 1).astype(np.int64)
        for counts, column in zip(self.counts, bins.T, strict=True):
            counts += np.bincount(column, minlength=PERCENTILE_BINS)

    def merge(self, other: ObjectHistogram) -> None:
        self.counts += other.counts

    def percentile(self, percent: float) -> NDArray[np.float64]:
        """The percentile of each column, (k,), as defined by ``numpy.percentile``, accurate to one bin."""
        cumulative = self.counts.cumsum(axis=1)
        rank = percent / 100 * (cumulative[0, -1] - 1)
        below, share = int(rank), rank % 1
        low, high = (
            np.array([np.searchsorted(row, min(order, row[-1] - 1), side="right") for row in cumulative])
            for order in (below, below + 1)
        )
        values: NDArray[np.float64] = self.low + ((1 - share) * low + share * high + 0.5) * self.step
        return values


def otsu(counts: NDArray[np.int64]) -> float:
    """Otsu's threshold of values in [0, 1].

    This is the centre of the bin that splits the values into two classes with the largest variance between them, or
    of the first such bin. See N. Otsu, "A threshold selection method from gray-level histograms" (1979).

    Parameters
    ----------
    counts : ndarray, shape (n,), int
        Histogram of the values in n equal bins.

    Returns
    -------
    float
        In [0, 1]; 0.5 if all values are in one bin, so that they cannot be split.

    Examples
    --------
    >>> otsu(np.array([5, 4, 0, 0, 0, 0, 3, 6]))
    0.1875
    """
    centers = (np.arange(len(counts)) + 0.5) / len(counts)
    # Class sizes and sums for a split after each bin except the last.
    low, low_sum = counts.cumsum()[:-1], (counts * centers).cumsum()[:-1]
    high, high_sum = counts.sum() - low, (counts * centers).sum() - low_sum
    splits = (low > 0) & (high > 0)
    if not splits.any():
        return 0.5
    means = low_sum[splits] / low[splits], high_sum[splits] / high[splits]
    between = low[splits].astype(np.float64) * high[splits] * (means[0] - means[1]) ** 2
    return float(centers[:-1][splits][between.argmax()])
