"""The foreground direction: each photo labels its own patches, and one direction is learned from all labels.

A photo's labels come from two cues that need nothing but its patch tokens: which clusters of patches lie inside
the photo rather than along its border, and how unlike the border each patch is. Object and ground are separated
where the normalised cut (Shi and Malik, "Normalized Cuts and Image Segmentation", 2000) of the graph of similar
patches (the graph of TokenCut, Wang et al., 2022) is smallest along the order that the two cues give.

The direction is the mean over photos of the difference between the mean unit tokens of the two classes. Patches
whose unit token reaches far enough along it are foreground, also in photos that were not labelled.
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

# Part of every prism's file: the labels of a later version may differ.
VERSION = 1
# Photos of a job that are labelled at most, evenly spaced: a direction changes little after a few dozen.
MOST_VOTERS = 512
# Above this, patches are labelled two by two: the graph grows with the square of their number.
MOST_PATCHES = 2048

CLUSTERS = 16
MOST_ROUNDS = 30
FAINT = 1e-5  # weight of an edge between unlike patches, as in TokenCut: it keeps the graph connected
CURVE_BINS = 1024

# A photo's lower edge is not counted as border at first, since people and animals often stand on it or are cut by
# it; labels that then cover this much of the remaining border (relative to their share of the photo) are made
# again with the whole border. On 22 photos with masks any value from 0.3 to 0.5 gave the same, and raised the
# mean IoU of the labels from 0.795 to 0.823 (ViT-S/14, block 8) and from 0.608 to 0.650 (EfficientNet-lite2).
MOST_BORDER = 0.4


def unit(tokens: Tokens) -> Float32:
    """Tokens (..., D) scaled to unit length, as float32; a token of zeros stays as it is."""
    wide = np.asarray(tokens, np.float64)
    # The largest magnitude is divided out first, so that no square overflows.
    largest = np.abs(wide).max(axis=-1, keepdims=True)
    wide = wide / np.where(largest > 0, largest, 1.0)
    length = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: Float32 = (wide / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled


def on_border(h: int, w: int) -> Mask:
    """Which patches of a grid lie on the photo's border, (h, w) bool."""
    border = np.ones((h, w), dtype=bool)
    border[1:-1, 1:-1] = False
    return border


def border_ratio(mask: Mask, border: Mask | None = None) -> float:
    """Share of the border's patches that a mask covers, divided by the share of all patches that it covers.

    About 0 for an object inside the photo, about 1 for a mask that ignores the border; 0 for an empty mask.
    """
    border = on_border(*mask.shape) if border is None else border
    share = mask.mean()
    return float(mask[border].mean() / share) if share else 0.0


def agreement(mask: Mask, labels: Mask) -> float:
    """Intersection over union of a mask and a photo's labels, 0 to 1; 1 where both are empty."""
    union = int((mask | labels).sum())
    return float((mask & labels).sum() / union) if union else 1.0


def class_difference(units: Float32, mask: Mask) -> Float64 | None:
    """Mean unit token inside a mask less that outside, (D,) float64; None where the mask is empty or full."""
    if mask.all() or not mask.any():
        return None
    difference: Float64 = units[mask].mean(axis=0, dtype=np.float64) - units[~mask].mean(
        axis=0, dtype=np.float64
    )
    return difference


# ---------------------------------------------------------------- the labels of one photo


def label_patches(tokens: Tokens) -> Mask:
    """Which patches of one photo look like its object, by that photo alone.

    Parameters
    ----------
    tokens : ndarray, shape (h, w, D)

    Returns
    -------
    ndarray, shape (h, w), bool
        All False where the patches do not differ.
    """
    units = unit(tokens)
    h, w, _ = units.shape
    if h * w > MOST_PATCHES:
        coarse = label_patches(_halved(units))
        return coarse.repeat(2, axis=0).repeat(2, axis=1)[:h, :w]
    rows = units.reshape(h * w, -1)
    cosines = rows @ rows.T
    distances = _cluster_distances(rows)
    similar = cosines > _similarity_threshold(cosines)
    ring = on_border(h, w)
    without_lower = ring.copy()
    without_lower[-1, 1:-1] = False
    mask = np.zeros((h, w), dtype=bool)
    for border in (without_lower, ring):
        flat = border.ravel()
        cues = _scaled(_cluster_votes(distances, flat)) + _scaled(_unlike_border(cosines, flat))
        mask = _best_cut(cues, similar).reshape(h, w)
        if border_ratio(mask, border) < MOST_BORDER:
            break
    return mask


def _halved(units: Float32) -> Float32:
    """Means of 2 x 2 patches, (ceil(h / 2), ceil(w / 2), D); an odd last row or column counts twice."""
    h, w, width = units.shape
    even = np.pad(units, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    means: Float32 = even.reshape((h + 1) // 2, 2, (w + 1) // 2, 2, width).mean(axis=(1, 3))
    return means


def _similarity_threshold(cosines: Float32) -> float:
    """Above which two patches are similar: midway between the mean of all cosines and their 90th percentile."""
    every = max(1, len(cosines) // 256)
    return float((cosines.mean(dtype=np.float64) + np.quantile(cosines[::every], 0.9)) / 2)


def _cluster_distances(rows: Float32) -> Float32:
    """Squared distances of rows (n, D) to the centres of k-means, (n, k).

    The first centre is the row farthest from the mean, the others come from k-means++ (Arthur and
    Vassilvitskii, 2007) with a fixed seed. Unlike scikit-learn's, the result does not depend on threads.
    """
    random = np.random.default_rng(0)
    count = min(CLUSTERS, len(rows))

    def squared(centres: Float32) -> Float32:
        # Rows have unit length, so |x - c|^2 = 1 - 2 x.c + |c|^2
        apart = (rows * rows).sum(axis=1)[:, None] - 2 * (rows @ centres.T) + (centres * centres).sum(axis=1)
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
        for cluster in range(len(centres)):
            members = owner == cluster
            if members.any():
                centres[cluster] = rows[members].mean(axis=0)
        distances = squared(centres)
    return distances


def _cluster_votes(distances: Float32, border: Mask) -> Float64:
    """How much the clusters that a patch belongs to lie off the border, (n,) from 0 to 1."""
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
    """1 less the mean cosine of each patch to the third of the border that is most like it, (n,)."""
    places = np.flatnonzero(border)
    to_border = cosines[:, places]
    to_border[places, np.arange(len(places))] = -np.inf  # a patch is not compared with itself
    count = max(1, len(places) // 3)
    nearest = np.partition(to_border, len(places) - count, axis=1)[:, len(places) - count :]
    unlike: Float64 = 1 - nearest.mean(axis=1, dtype=np.float64)
    return unlike


def _best_cut(cues: Float64, similar: Mask) -> Mask:
    """Patches above the threshold on ``cues`` (n,) whose normalised cut of the graph is the smallest, (n,) bool."""
    n = len(cues)
    order = np.argsort(-cues, kind="stable")
    fewest, most = max(2, int(np.ceil(0.01 * n))), int(0.95 * n)
    if most < fewest or cues.min() == cues.max():
        return np.zeros(n, dtype=bool)
    edges = similar[order][:, order]
    # Edges within the first k patches, counted in both directions, for every k
    size = np.arange(1, n + 1, dtype=np.float64)
    within = (2 * np.tril(edges, -1).sum(axis=1) + np.diagonal(edges)).cumsum().astype(np.float64)
    within += FAINT * (size * size - within)
    volume = (edges.sum(axis=1) * (1 - FAINT) + FAINT * n).cumsum()
    cut = volume - within
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = cut / volume + cut / (volume[-1] - volume)
    kept = fewest + int(cost[fewest - 1 : most].argmin())
    threshold = (cues[order[kept - 1]] + cues[order[kept]]) / 2
    kept_patches: Mask = cues > threshold
    return kept_patches


def _scaled(values: Float64) -> Float64:
    low, high = values.min(), values.max()
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


# ---------------------------------------------------------------- from labels to a direction


@dataclass(frozen=True)
class Voters:
    """Which photos of a job are labelled: at most ``MOST_VOTERS`` of ``n_photos``, evenly spaced by their index."""

    n_photos: int

    def __contains__(self, index: int) -> bool:
        return index % -(-self.n_photos // MOST_VOTERS) == 0 if self.n_photos else False


class DirectionVotes:
    """Labels of the voting photos, and the sum of their class differences."""

    def __init__(self, voters: Voters) -> None:
        self.voters = voters
        self.labels: dict[int, bytes] = {}
        self.count = 0
        self.total: Float64 | None = None

    def add(self, index: int, tokens: Tokens) -> None:
        """Add a photo's tokens, (h, w, D); photos that do not vote are left out."""
        if index not in self.voters:
            return
        mask = label_patches(tokens)
        difference = class_difference(unit(tokens), mask)
        self.labels[index] = np.packbits(mask).tobytes()
        if difference is not None:
            self.total = difference if self.total is None else self.total + difference
            self.count += 1

    def merge(self, other: DirectionVotes) -> None:
        """Add what another one has seen."""
        self.labels |= other.labels
        self.count += other.count
        if other.total is not None:
            self.total = other.total if self.total is None else self.total + other.total

    def direction(self) -> Float64 | None:
        """The direction, (D,) float64; None where no photo has both classes."""
        return None if self.total is None or not self.total.any() else self.total / self.count


def labels_of(labels: Mapping[int, bytes], index: int, shape: tuple[int, ...]) -> Mask | None:
    """The labels of a photo as :class:`DirectionVotes` keeps them, (h, w) bool; None for one that did not vote."""
    packed = labels.get(index)
    if packed is None:
        return None
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def score_bins(score: Float32, count: int) -> NDArray[np.int64]:
    """The bin of each score in [0, 1] among ``count`` equal ones, (n,); a score on an edge belongs below it.

    So the scores above the edge ``i / count`` are those in bins ``i`` and up.
    """
    bins = np.ceil(score.ravel().astype(np.float64) * count).astype(np.int64) - 1
    return np.clip(bins, 0, count - 1)


class AgreementCurves:
    """For every threshold on the score, the sum over photos of the IoU of the mask with the photo's labels."""

    def __init__(self) -> None:
        self.total = np.zeros(CURVE_BINS)
        self.count = 0

    def add(self, score: Float32, labels: Mask) -> None:
        """Add a photo's score, (h, w) in [0, 1], and its labels, (h, w); photos of one class are left out."""
        if labels.all() or not labels.any():
            return
        bins = score_bins(score, CURVE_BINS)
        inside, outside = (
            np.bincount(bins[mask], minlength=CURVE_BINS)[::-1].cumsum()[::-1]
            for mask in (labels.ravel(), ~labels.ravel())
        )
        self.total += inside / (labels.sum() + outside)
        self.count += 1

    def merge(self, other: AgreementCurves) -> None:
        """Add what another one has seen."""
        self.total += other.total
        self.count += other.count

    def best(self) -> float:
        """The threshold in [0, 1] of the largest mean IoU."""
        return int(self.total.argmax()) / CURVE_BINS
