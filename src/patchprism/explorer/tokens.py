"""Reduces patch tokens for the page, by a PCA and eight bits per number, and nearly keeps cosine similarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchprism.features.patch_features import check_tokens
from patchprism.support.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens

TOLERANCE = 0.03
# Required share of pairs of different patches within the tolerance.
SHARE = 0.999
# Maximum error of any measured pair.
WORST = 0.1
# The number of dimensions is a multiple of this: rows of whole words.
STEP = 8
# Axes are kept as multiples of 1 / AXIS_STEPS.
AXIS_STEPS = 32767
# Number of patches that are compared with all others to measure the error.
MEASURED_QUERIES = 384


@dataclass(frozen=True)
class ReducedTokens:
    """Unit tokens of N patches along a few axes, as small integers.

    The cosine similarity of patches a and b is about ``sum(scales**2 * codes[a] * codes[b])``.

    Attributes
    ----------
    codes : ndarray, shape (N, dims), int8
    scales : ndarray, shape (dims,), float32
        Value of one step of the codes of a dimension.
    axes : ndarray, shape (dims, D), int16
        Directions of the dimensions among the full tokens, in steps of 1 / ``AXIS_STEPS``. They convert a head from
        reduced to full tokens and back.
    error : dict
        Error of the cosine similarity over a sample of pairs of different patches: ``within``, the share of pairs
        within the tolerance; ``median``, ``p99``, ``p999`` and ``max``; the number of ``pairs``.
    """

    codes: NDArray[np.int8]
    scales: NDArray[np.float32]
    axes: NDArray[np.int16]
    error: dict[str, float]

    def cosine(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Cosine similarities of some patches to all patches, (len(rows), N), as the page computes them."""
        codes: NDArray[np.float64] = self.codes.astype(np.float64)
        cosine: NDArray[np.float64] = (np.square(self.scales.astype(np.float64)) * codes[rows]) @ codes.T
        return cosine


def reduce_tokens(
    tokens: Sequence[Tokens], *, tell: Callable[[int, int], None] | None = None
) -> ReducedTokens:
    """Reduce patch tokens so that their cosine similarities stay within a tolerance.

    Parameters
    ----------
    tokens : sequence of ndarray, each (h, w, D)
    tell : callable, optional
        Called as ``tell(done, total)`` after each step.

    Returns
    -------
    ReducedTokens
        The smallest number of dimensions with errors within the tolerance for a share of ``SHARE`` of the measured
        pairs, and within ``WORST`` for all of them; or else all D.
    """
    for number, each in enumerate(tokens, start=1):
        check_tokens(each, f"photo-{number}")
    # In C order, so that sums along rows are rounded in the same way for every memory layout of the photos.
    rows = np.ascontiguousarray(np.concatenate([np.reshape(each, (-1, each.shape[-1])) for each in tokens]))
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = (rows / np.where(largest > 0, largest, 1)).astype(np.float32)  # no square overflows
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1)
    # Not centred: products of coordinates are then cosines without a correction for the mean.
    with one_blas_thread():
        _, vectors = np.linalg.eigh((rows.T @ rows).astype(np.float64))
    directions = np.ascontiguousarray(vectors[:, ::-1])
    values = rows @ directions.astype(np.float32)
    steps = np.abs(values).max(axis=0) / 127
    scales = np.where(steps > 0, steps, 1).astype(np.float32)
    codes = np.rint(values / scales).astype(np.int8)

    width = codes.shape[1]
    candidates = [*range(STEP, width, STEP), width]
    sample = _Sample(rows)
    low, high = 0, len(candidates) - 1
    done, total = 1, 2 + high.bit_length()
    while low < high:
        if tell:
            tell(done, total)
        done += 1
        middle = (low + high) // 2
        if sample.good(codes[:, : candidates[middle]], scales[: candidates[middle]]):
            high = middle
        else:
            low = middle + 1
    kept = candidates[high]
    codes, scales = np.ascontiguousarray(codes[:, :kept]), scales[:kept]
    axes = np.rint(directions.T[:kept] * AXIS_STEPS).astype(np.int16)
    if tell:
        tell(total, total)
    return ReducedTokens(codes, scales, axes, sample.error(codes, scales))


class _Sample:
    """Exact cosine similarities of some patches to all patches, to measure the error of reduced tokens."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        count = len(rows)
        queries = min(count, MEASURED_QUERIES)
        self.queries = np.sort(np.random.default_rng(0).choice(count, queries, replace=False))
        self.cosine = rows[self.queries] @ rows.T

    def good(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> bool:
        """Whether the errors are within the limits. Unlike :meth:`error`, it needs no slow sorting."""
        error = self._errors(codes, scales)
        within = round(float((error <= TOLERANCE).mean()), 5) if error.size else 1.0
        return within >= SHARE and round(float(error.max(initial=0.0)), 5) < WORST

    def _errors(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> NDArray[np.float32]:
        values = codes * scales
        error: NDArray[np.float32] = np.abs(values[self.queries] @ values.T - self.cosine)
        # The similarity of a patch to itself is 1; the page does not compute it.
        different = np.ones(error.shape, dtype=bool)
        different[np.arange(len(error)), self.queries] = False
        return error[different]

    def error(self, codes: NDArray[np.int8], scales: NDArray[np.float32]) -> dict[str, float]:
        error = self._errors(codes, scales)
        if not error.size:
            return {"within": 1.0, "median": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0, "pairs": 0}
        median, p99, p999 = np.quantile(error, [0.5, 0.99, 0.999])
        return {
            "within": round(float((error <= TOLERANCE).mean()), 5),
            "median": round(float(median), 5),
            "p99": round(float(p99), 5),
            "p999": round(float(p999), 5),
            "max": round(float(error.max()), 5),
            "pairs": int(error.size),
        }
