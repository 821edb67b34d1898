"""Measures of a foreground against a true mask, as in papers on salient object detection.

As is usual, maps are compared in 8 bits and scaled to each photo's own range; the tests compare the values with
pysodmetrics. E is the enhanced-alignment measure of Fan et al. (2018), S the structure measure of Fan et al. (2017).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.masks import box_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]

BETA_SQUARED = 0.3
CORLOC_IOU = 0.5
_LEAST = np.spacing(1)


@dataclass(frozen=True)
class PhotoMeasures:
    """The measures of one photo.

    Attributes
    ----------
    iou : float
        Intersection over union of the mask.
    f_curve, e_curve : ndarray, shape (256,), float64
        F and E of the score, thresholded at 255, 254, ..., 0.
    mae : float
        Mean absolute error of the score.
    s : float
        Structure measure of the score.
    corloc : bool
        Whether the boxes of the largest part of the mask and of the truth have an IoU above 0.5.
    """

    iou: float
    f_curve: Float64
    e_curve: Float64
    mae: float
    s: float
    corloc: bool


def measure(mask: NDArray[np.bool_], score: NDArray[np.uint8], truth: NDArray[np.bool_]) -> PhotoMeasures:
    """Measure one photo's foreground.

    Parameters
    ----------
    mask : ndarray, shape (H, W), bool
    score : ndarray, shape (H, W), uint8
        Larger values mean foreground.
    truth : ndarray, shape (H, W), bool
    """
    low, high = int(score.min()), int(score.max())
    # Rounds exactly like pysodmetrics.
    levels = np.arange(256) / 255
    levels = (levels - low / 255) / (high / 255 - low / 255) if high > low else levels
    table = levels.clip(0, 1)
    bins = (table * 255).astype(np.uint8)
    inside = np.bincount(bins[score[truth]], minlength=256)[::-1].cumsum()
    outside = np.bincount(bins[score[~truth]], minlength=256)[::-1].cumsum()
    scaled = table[score]
    return PhotoMeasures(
        iou=overlap(mask, truth),
        f_curve=_f_curve(inside, outside),
        e_curve=_e_curve(inside, outside, truth.size),
        mae=float(np.abs(scaled - truth).mean()),
        s=_structure(scaled, truth),
        corloc=_same_place(mask, truth),
    )


def overall(photos: Sequence[PhotoMeasures]) -> dict[str, float]:
    """Means over photos; for F and E, the maximum of the mean curve."""
    return {
        "iou": float(np.mean([each.iou for each in photos])),
        "max_f": float(np.mean([each.f_curve for each in photos], axis=0).max()),
        "mae": float(np.mean([each.mae for each in photos])),
        "max_e": float(np.mean([each.e_curve for each in photos], axis=0).max()),
        "s": float(np.mean([each.s for each in photos])),
        "corloc": float(np.mean([each.corloc for each in photos])),
    }


def overlap(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Intersection over union; 1 if both are empty."""
    union = int((mask | truth).sum())
    return int((mask & truth).sum()) / union if union else 1.0


def _f_curve(inside: NDArray[np.int64], outside: NDArray[np.int64]) -> Float64:
    precision = inside / np.maximum(inside + outside, 1)
    recall = inside / max(int(inside[-1]), 1)
    weighted = BETA_SQUARED * precision + recall
    curve: Float64 = (1 + BETA_SQUARED) * precision * recall / np.where(weighted == 0, 1, weighted)
    return curve


def _e_curve(inside: NDArray[np.int64], outside: NDArray[np.int64], size: int) -> Float64:
    true, found = int(inside[-1]), inside + outside
    if true in (0, size):
        same: Float64 = (found if true else size - found) / (size - 1 + _LEAST)
        return same
    total = np.zeros(256)
    counts = ((inside, outside), (true - inside, size - found - (true - inside)))
    for of_found, pair in zip((1, 0), counts, strict=True):
        for of_truth, count in zip((1, 0), pair, strict=True):
            ours, theirs = of_found - found / size, of_truth - true / size
            aligned = 2 * ours * theirs / (ours**2 + theirs**2 + _LEAST)
            total += (aligned + 1) ** 2 / 4 * count
    total /= size - 1 + _LEAST
    return total


def _structure(score: Float64, truth: NDArray[np.bool_]) -> float:
    share = float(truth.mean())
    if share in (0.0, 1.0):
        return float(score.mean()) if share else 1 - float(score.mean())
    of_object = share * _evenness(score[truth]) + (1 - share) * _evenness(1 - score[~truth])
    row, column = (int(each) + 1 for each in np.argwhere(truth).mean(axis=0).round())
    of_regions = 0.0
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            part = score[rows, columns]
            of_regions += part.size / score.size * _similarity(part, truth[rows, columns])
    return max(0.0, 0.5 * of_object + 0.5 * of_regions)


def _evenness(values: Float64) -> float:
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return float(2 * mean / (mean**2 + 1 + spread + _LEAST))


def _similarity(score: Float64, truth: NDArray[Any]) -> float:
    if not score.size:
        return 0.0
    x, y = float(score.mean()), float(truth.mean())
    count = score.size - 1 + _LEAST
    left, right = score - x, truth - y
    above = 4 * x * y * float((left * right).sum()) / count
    below = (x**2 + y**2) * (float((left**2).sum()) + float((right**2).sum())) / count
    if above != 0:
        return float(above / (below + _LEAST))
    return 1.0 if below == 0 else 0.0


def _same_place(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> bool:
    if not mask.any() or not truth.any():
        return bool(mask.any() == truth.any())
    (a, b, c, d), (e, f, g, h) = _largest_box(mask), _largest_box(truth)
    shared = max(0, min(a + c, e + g) - max(a, e)) * max(0, min(b + d, f + h) - max(b, f))
    return shared > CORLOC_IOU * (c * d + g * h - shared)


def _largest_box(mask: NDArray[np.bool_]) -> list[int]:
    from scipy.ndimage import label

    labels, _ = label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return box_of(labels == sizes.argmax())
