"""The foreground direction: each photo labels its own patches, and one direction is learned from all labels.

The labels of a photo come from two cues that need only its patch tokens: whether a patch belongs to clusters that lie
inside the photo rather than along its border, and how much the patch differs from the border. Patches are sorted by
the sum of these cues. The sorted patches are split into object and background where the normalised cut (Shi and
Malik, "Normalized Cuts and Image Segmentation", 2000) of the graph of similar patches (the graph of TokenCut, Wang et
al., 2022) is smallest.

The direction is the mean over photos of the difference between the mean unit tokens of the two classes. A patch is
foreground if the coordinate of its unit token along the direction is large enough, also in photos that were not
labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens

    Mask = NDArray[np.bool_]
    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

# Version of the labels, which prism files record. Another version may give other labels.
VERSION = 2
# Maximum number of photos of a job that are labelled, evenly spaced. The direction changes little after a few dozen.
MOST_VOTERS = 512
# In a photo with more patches, blocks of 2 x 2 patches are labelled, because the graph grows with the square of their
# number.
MOST_PATCHES = 2048

CLUSTERS = 16
MOST_ROUNDS = 30
FAINT = 1e-5  # weight of an edge between dissimilar patches, which keeps the graph connected, as in TokenCut
CURVE_BINS = 1024

# At first, the lower edge of a photo does not count as border, because people and animals often stand on it or are cut
# by it. If the labels then cover the remaining border with at least this ratio (see `border_ratio`), the photo is
# labelled again with the whole border. On 22 photos with masks, any value from 0.3 to 0.5 gave the same result, and
# raised the mean IoU of the labels from 0.795 to 0.823 (ViT-S/14, block 8) and from 0.608 to 0.650
# (EfficientNet-lite2).
MOST_BORDER = 0.4
# Labels that cover at least this share of both sides and of the lower edge, but less than LITTLE of the upper edge,
# are land under a sky. The patches of the land are then labelled again without the sky. With ViT-S/14, block 8, this
# raised the mean IoU of the labels from 0.823 to 0.833 on the same photos, and from 0.70 to 0.72 on 110 photos of
# cut-outs in front of two kinds of ground; objects wider than the photo lost 0.04. Doing this whenever labels cover
# the border raised the former more, but halved the IoU of objects that are cut by one border.
LAND = 0.5
LITTLE = 0.05
# Thresholds whose agreement with the labels is at least this share of the best agreement count as equally good, and
# the middle one is used. When all of EfficientNet-lite2 ran in bfloat16 instead of float32, 3.7 % of the patches
# changed with the best threshold, and 1.2 % with the middle one.
AS_GOOD = 0.99


def unit(tokens: Tokens) -> Float32:
    """Tokens (..., D) scaled to unit length, as float32; a token of zeros stays as it is."""
    wide = np.asarray(tokens, np.float64)
    # Divide by the largest magnitude first, so that no square overflows.
    largest = np.abs(wide).max(axis=-1, keepdims=True)
    wide = wide / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: Float32 = (wide / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled


def on_border(h: int, w: int) -> Mask:
    """Which patches of a grid are on the border, (h, w) bool."""
    border = np.ones((h, w), dtype=bool)
    border[1:-1, 1:-1] = False
    return border


def border_ratio(mask: Mask, border: Mask | None = None) -> float:
    """Share of the border patches that a mask covers, divided by the share of all patches that it covers.

    This is about 0 for an object inside the photo, and about 1 for a mask that is unrelated to the border. It is 0
    for an empty mask.
    """
    border = on_border(*mask.shape) if border is None else border
    share = mask.mean()
    return float(mask[border].mean() / share) if share else 0.0


def agreement(mask: Mask, labels: Mask) -> float:
    """Intersection over union of a mask and the labels of a photo, from 0 to 1; 1 if both are empty."""
    union = int((mask | labels).sum())
    return float((mask & labels).sum() / union) if union else 1.0


def class_difference(units: Float32, mask: Mask) -> Float64 | None:
    """Mean unit token inside a mask minus that outside, (D,) float64; None if the mask is empty or full."""
    if mask.all() or not mask.any():
        return None
    difference: Float64 = units[mask].mean(axis=0, dtype=np.float64) - units[~mask].mean(
        axis=0, dtype=np.float64
    )
    return difference


# ---------------------------------------------------------------- the labels of one photo


def label_patches(tokens: Tokens) -> Mask:
    """Which patches of one photo look like its object, determined from this photo alone.

    Parameters
    ----------
    tokens : ndarray, shape (h, w, D)

    Returns
    -------
    ndarray, shape (h, w), bool
        All False if the patches do not differ.
    """
    return label_units(unit(tokens))


def label_units(units: Float32) -> Mask:
    """:func:`label_patches` for tokens of unit length."""
    h, w, _ = units.shape
    if h * w > MOST_PATCHES:
        coarse = label_units(unit(_halved(units)))
        return coarse.repeat(2, axis=0).repeat(2, axis=1)[:h, :w]
    rows = units.reshape(h * w, -1)
    cosines = rows @ rows.T
    distances = _cluster_distances(rows)
    ring = on_border(h, w)
    sides_and_top = ring.copy()
    sides_and_top[-1, 1:-1] = False
    mask = np.zeros((h, w), dtype=bool)
    for border in (sides_and_top, ring):
        mask = _unlike(cosines, distances, border.ravel()).reshape(h, w)
        if border_ratio(mask, border) < MOST_BORDER:
            return mask
    return _object_on_land(mask, cosines, distances, sides_and_top) if is_land(mask) else mask


def is_land(mask: Mask) -> bool:
    """Whether labels cover the sides and the lower edge of a photo, but not its upper edge."""
    upper, *others = (edge.mean() for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
    return bool(upper < LITTLE and min(others) >= LAND)


def _object_on_land(land: Mask, cosines: Float32, distances: Float32, border: Mask) -> Mask:
    """Labels from the patches of ``land`` alone, (h, w) bool; ``land`` itself if these do not differ.

    A sky differs so much from the land below it that the first cut separates them along the horizon.
    """
    places = np.flatnonzero(land)
    on = border.ravel()[places]
    if on.all() or not on.any():
        return land
    mask = np.zeros(land.size, dtype=bool)
    mask[places] = _unlike(cosines[np.ix_(places, places)], distances[places], on)
    return mask.reshape(land.shape) if mask.any() else land


def _unlike(cosines: Float32, distances: Float32, border: Mask) -> Mask:
    """Patches that differ from those on a border: cosines (n, n), distances to clusters (n, k), border (n,)."""
    cues = _scaled(_cluster_votes(distances, border)) + _scaled(_unlike_border(cosines, border))
    return _best_cut(cues, cosines > _similarity_threshold(cosines))


def _halved(units: Float32) -> Float32:
    """Means of 2 x 2 patches, (ceil(h / 2), ceil(w / 2), D); if h or w is odd, the last row or column is repeated."""
    h, w, width = units.shape
    even = np.pad(units, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    means: Float32 = even.reshape((h + 1) // 2, 2, (w + 1) // 2, 2, width).mean(axis=(1, 3))
    return means


def _similarity_threshold(cosines: Float32) -> float:
    """The cosine above which patches are similar: halfway between the mean and the 90th percentile of all cosines."""
    sample = cosines[:: max(1, len(cosines) // 256)]
    return float((cosines.mean(dtype=np.float64) + np.quantile(sample, 0.9)) / 2)


def _cluster_distances(rows: Float32) -> Float32:
    """Squared distances of rows (n, D) to the centres of k-means, (n, k).

    The first centre is the row farthest from the mean; the others are found by k-means++ (Arthur and Vassilvitskii,
    2007) with a fixed seed. The number of threads changes the last bits of the distances. With 1, 2 and 4 threads,
    the labels of 22 photos were the same.
    """
    random = np.random.default_rng(0)
    count = min(CLUSTERS, len(rows))

    squares = (rows * rows).sum(axis=1)[:, None]

    def squared(centres: Float32) -> Float32:
        apart = squares - 2 * (rows @ centres.T) + (centres * centres).sum(axis=1)
        distances: Float32 = np.maximum(apart, 0)
        return distances

    chosen = [int(((rows - rows.mean(axis=0)) ** 2).sum(axis=1).argmax())]
    nearest = squared(rows[chosen])[:, 0].astype(np.float64)
    while len(chosen) < count and nearest.sum() > 0:
        chosen.append(int(random.choice(len(rows), p=nearest / nearest.sum())))
        nearest = np.minimum(nearest, squared(rows[chosen[-1:]])[:, 0])
    centres = rows[chosen].copy()
    owner = np.full(len(rows), -1)
    distances = squared(centres)
    for _ in range(MOST_ROUNDS):
        closest = distances.argmin(axis=1)
        if (closest == owner).all():
            break
        owner = closest
        members = (owner[:, None] == np.arange(len(centres))).astype(np.float32)
        sizes = members.sum(axis=0)[:, None]
        centres = np.where(sizes > 0, members.T @ rows / np.maximum(sizes, 1), centres)
        distances = squared(centres)
    return distances


def _cluster_votes(distances: Float32, border: Mask) -> Float64:
    """How much the clusters that a patch belongs to lie inside the photo, (n,), from 0 (on the border) to 1."""
    spread = float(distances.min(axis=1).mean())
    temperature = max((1 - spread) / 2, 1e-6)
    nearest = distances.min(axis=1, keepdims=True)
    belongs = np.exp(-(distances - nearest).astype(np.float64) / temperature)
    belongs /= belongs.sum(axis=1, keepdims=True)
    on = belongs[border].mean(axis=0)
    off = belongs[~border].mean(axis=0) if not border.all() else np.zeros_like(on)
    votes: Float64 = belongs @ (off / (on + off))
    return votes


def _unlike_border(cosines: Float32, border: Mask) -> Float64:
    """1 minus the mean cosine between each patch and the most similar third of the border patches, (n,)."""
    places = np.flatnonzero(border)
    to_border = cosines[:, places]
    to_border[places, np.arange(len(places))] = -np.inf  # a patch is not compared with itself
    count = max(1, len(places) // 3)
    nearest = np.partition(to_border, len(places) - count, axis=1)[:, len(places) - count :]
    unlike: Float64 = 1 - nearest.mean(axis=1, dtype=np.float64)
    return unlike


def _best_cut(cues: Float64, similar: Mask) -> Mask:
    """Patches above the threshold on ``cues`` (n,) that gives the smallest normalised cut of the graph, (n,) bool."""
    n = len(cues)
    order = np.argsort(-cues, kind="stable")
    fewest, most = max(2, int(np.ceil(0.01 * n))), int(0.95 * n)
    if most < fewest or cues.min() == cues.max():
        return np.zeros(n, dtype=bool)
    rank = np.empty(n, np.uint16)  # small integers compare faster, and n is at most MOST_PATCHES
    rank[order] = np.arange(n)
    # Number of edges from each patch to patches before it. Then, for every k, the weight of all edges within the first
    # k patches, in both directions.
    before = _counts(similar & (rank < rank[:, None]))[order]
    size = np.arange(1, n + 1, dtype=np.float64)
    within = (2 * before + np.diagonal(similar)[order]).cumsum().astype(np.float64)
    within += FAINT * (size * size - within)
    volume = (_counts(similar)[order] * (1 - FAINT) + FAINT * n).cumsum()
    cut = volume - within
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = cut / volume + cut / (volume[-1] - volume)
    kept = fewest + int(cost[fewest - 1 : most].argmin())
    threshold = (cues[order[kept - 1]] + cues[order[kept]]) / 2
    kept_patches: Mask = cues > threshold
    return kept_patches


def _counts(marks: Mask) -> NDArray[np.int64]:
    """Number of True values in each row, (n, m) -> (n,); several times faster than ``sum(axis=1)``."""
    return np.array([np.count_nonzero(row) for row in marks])


def _scaled(values: Float64) -> Float64:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


# ---------------------------------------------------------------- from labels to a direction


@dataclass(frozen=True)
class Voters:
    """Which photos of a job are labelled: at most ``MOST_VOTERS`` of ``n_photos``, evenly spaced by index."""

    n_photos: int

    def __contains__(self, index: int) -> bool:
        return index % -(-self.n_photos // MOST_VOTERS) == 0 if self.n_photos else False


class DirectionVotes:
    """Labels of the labelled photos, and the sum of their class differences."""

    def __init__(self, voters: Voters) -> None:
        self.voters = voters
        self.labels: dict[int, bytes] = {}
        self.count = 0
        self.total: Float64 | None = None

    def add(self, index: int, tokens: Tokens) -> None:
        """Label a photo, from its tokens (h, w, D), and add its class difference, if it is one of ``voters``."""
        if index not in self.voters:
            return
        units = unit(tokens)
        mask = label_units(units)
        difference = class_difference(units, mask)
        self.labels[index] = np.packbits(mask).tobytes()
        if difference is not None:
            self.total = difference if self.total is None else self.total + difference
            self.count += 1

    def merge(self, other: DirectionVotes) -> None:
        """Add the photos of another instance."""
        self.labels |= other.labels
        self.count += other.count
        if other.total is not None:
            self.total = other.total if self.total is None else self.total + other.total

    def direction(self) -> Float64 | None:
        """The direction, (D,) float64; None if no photo has both classes."""
        return None if self.total is None or not self.total.any() else self.total / self.count


def labels_of(labels: Mapping[int, bytes], index: int, shape: tuple[int, ...]) -> Mask | None:
    """The labels of a photo from ``DirectionVotes.labels``, (h, w) bool; None for a photo that was not labelled."""
    packed = labels.get(index)
    if packed is None:
        return None
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def score_bins(score: Float32, count: int) -> NDArray[np.int64]:
    """The bin of each score, (n,), in ``count`` equal bins of [0, 1]; a score on an edge belongs to the lower bin.

    So the scores above the edge ``i / count`` are those in bin ``i`` and higher bins.
    """
    bins = np.ceil(score.ravel().astype(np.float64) * count).astype(np.int64) - 1
    return np.clip(bins, 0, count - 1)


class AgreementCurves:
    """For every threshold on the score, the sum over photos of the IoU between the mask and the labels of the photo.

    Attributes
    ----------
    counts : ndarray, shape (2, CURVE_BINS), int64
        Histograms of the scores of the patches that are labelled as background and as object.
    """

    def __init__(self) -> None:
        self.total = np.zeros(CURVE_BINS)
        self.counts = np.zeros((2, CURVE_BINS), np.int64)
        self.count = 0

    def add(self, score: Float32, labels: Mask) -> None:
        """Add a photo's score, (h, w) in [0, 1], and its labels, (h, w); photos with only one class are ignored."""
        if labels.all() or not labels.any():
            return
        bins = score_bins(score, CURVE_BINS)
        counts = np.stack(
            [np.bincount(bins[labels.ravel() == kind], minlength=CURVE_BINS) for kind in (False, True)]
        )
        self.counts += counts
        outside, inside = counts[:, ::-1].cumsum(axis=1)[:, ::-1]
        self.total += inside / (labels.sum() + outside)
        self.count += 1

    def merge(self, other: AgreementCurves) -> None:
        """Add the photos of another instance."""
        self.total += other.total
        self.counts += other.counts
        self.count += other.count

    def best(self) -> float:
        """The best threshold in [0, 1].

        This is the middle of the range around the threshold with the largest mean IoU in which the mean IoU stays
        within 1 % of the largest.
        """
        best = int(self.total.argmax())
        worse = np.flatnonzero(self.total < AS_GOOD * self.total[best])
        after = int(np.searchsorted(worse, best))
        first = int(worse[after - 1]) + 1 if after else 0
        last = int(worse[after]) - 1 if after < len(worse) else CURVE_BINS - 1
        return (first + last) // 2 / CURVE_BINS
