"""Patch tokens made small: few dimensions, few bits, and nearly the same cosine similarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchprism.explorer.message import pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features import Tokens

TOLERANCE = 0.02
# The share of pairs of different patches that must be within the tolerance: the first of these that takes no
# more than PHOTO_BYTES a photo, or the last. Ten photos of 28 x 28 patches then stay below 2 MB as a page; a page
# of fewer photos may spend what is left.
SHARES = (0.999, 0.997, 0.99, 0.98, 0.97)
PHOTO_BYTES = 82_000
FULL_PAGE = 10
OFFSET_STEP = 2.0**-15
_STEPS = (0.022, 0.019, 0.016, 0.014, 0.012, 0.010, 0.008, 0.005, 0.003, 0.001)
_SEARCH_QUERIES, _SEARCH_TARGETS, _MEASURED_QUERIES = 80, 2500, 384


@dataclass(frozen=True)
class ReducedTokens:
    """Tokens of N patches in ``dims`` small whole numbers each.

    The cosine of patches a and b is ``offset[a] + offset[b] + step² · codes[:, a] · codes[:, b]``.

    Attributes
    ----------
    codes : ndarray, shape (dims, N), int8 or int16
    offset : ndarray, shape (N,), float64
        Multiples of ``OFFSET_STEP``, between -1 and 1.
    step : float
    error : dict
        Of the cosine, measured over pairs of different patches: ``within``, the share of them that keep the
        tolerance; ``median``, ``p99``, ``p999`` and ``max``; and how many ``pairs`` were looked at.
    """

    codes: NDArray[np.integer]
    offset: NDArray[np.float64]
    step: float
    error: dict[str, float]

    def cosine(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Cosine similarities of some patches to all, (len(rows), N), as the page computes them."""
        codes = self.codes.astype(np.float64)
        inner = codes[:, rows].T @ codes * self.step**2
        return inner + self.offset[rows][:, np.newaxis] + self.offset


def reduce_tokens(tokens: Sequence[Tokens], *, tolerance: float = TOLERANCE) -> ReducedTokens:
    """Reduce patch tokens so that their cosine similarities stay within a tolerance.

    Unit tokens minus their mean are turned along the principal components of all of them; the first few
    coordinates are rounded to multiples of one step, which is the same for all, so that components of little
    variance take few bits (reverse water-filling). Steps are tried from coarse to fine, the number of
    components is searched for by halving, and the smallest outcome is taken.

    Parameters
    ----------
    tokens : sequence of ndarray, each (h, w, D)
    tolerance : float, default 0.02
        For 99.9 % of the pairs of different patches, or for the largest of ``SHARES`` whose bytes are allowed.

    Returns
    -------
    ReducedTokens
    """
    rows = np.concatenate([np.reshape(each, (-1, each.shape[-1])) for each in tokens]).astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1.0)
    mean = rows.mean(axis=0)
    centred = rows - mean
    # float32 is enough for axes to round along, and takes half the time.
    vectors = np.linalg.eigh((centred.T @ centred).astype(np.float32))[1][:, ::-1].astype(np.float64)
    coordinates = centred @ vectors
    offset = np.rint((centred @ mean + mean @ mean / 2) / OFFSET_STEP) * OFFSET_STEP
    search = _Search(rows, coordinates, offset)
    for share in SHARES:
        size, codes, step = _smallest(coordinates, search, tolerance, share)
        if size <= PHOTO_BYTES * max(len(tokens), FULL_PAGE):
            break
    reduced = ReducedTokens(codes, offset, step, {})
    return ReducedTokens(codes, offset, step, measure(rows, reduced, tolerance))


def _smallest(
    coordinates: NDArray[np.float64], search: _Search, tolerance: float, share: float
) -> tuple[int, NDArray[np.integer], float]:
    """Bytes, codes and step of the smallest reduction that keeps the tolerance for a share of the pairs."""
    best: tuple[int, NDArray[np.integer], float] | None = None
    for step in _STEPS:
        dims = search.fewest_dims(step, tolerance, share)
        if dims is None:
            continue
        codes = quantise(coordinates[:, :dims], step)
        size = len(pack(codes.tobytes()))
        if best is not None and size >= best[0]:
            break
        best = size, codes, step
    if best is None:  # a tolerance finer than the finest step: all that there is
        codes = quantise(coordinates, _STEPS[-1])
        best = len(pack(codes.tobytes())), codes, _STEPS[-1]
    return best


def quantise(coordinates: NDArray[np.float64], step: float) -> NDArray[np.integer]:
    """Coordinates (N, dims) as multiples of a step, (dims, N) in the smallest type that holds them."""
    codes = np.rint(coordinates.T / step)
    return np.ascontiguousarray(codes.astype(np.int8 if np.abs(codes).max(initial=0) <= 127 else np.int16))


def measure(
    rows: NDArray[np.float64],
    reduced: ReducedTokens,
    tolerance: float = TOLERANCE,
    *,
    queries: int = _MEASURED_QUERIES,
) -> dict[str, float]:
    """Error of the cosine similarity over pairs of different patches; ``rows`` are unit tokens (N, D)."""
    chosen = _spread(len(rows), queries)
    error = np.abs(reduced.cosine(chosen) - rows[chosen] @ rows.T)
    error[np.arange(len(chosen)), chosen] = np.nan  # a patch is itself: the page says 1 without computing
    error = error[~np.isnan(error)]
    if not error.size:
        return {"within": 1.0, "median": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0, "pairs": 0}
    median, p99, p999 = np.quantile(error, [0.5, 0.99, 0.999])
    return {
        "within": round(float((error <= tolerance).mean()), 5),
        "median": round(float(median), 5),
        "p99": round(float(p99), 5),
        "p999": round(float(p999), 5),
        "max": round(float(error.max()), 5),
        "pairs": int(error.size),
    }


class _Search:
    """Looks for the fewest dimensions on a part of the pairs."""

    def __init__(
        self, rows: NDArray[np.float64], coordinates: NDArray[np.float64], offset: NDArray[np.float64]
    ) -> None:
        self.queries, self.targets = (
            _spread(len(rows), _SEARCH_QUERIES),
            _spread(len(rows), _SEARCH_TARGETS, shift=1),
        )
        self.coordinates = coordinates
        self.full = rows[self.queries] @ rows[self.targets].T
        self.base = offset[self.queries][:, np.newaxis] + offset[self.targets]
        self.different = self.queries[:, np.newaxis] != self.targets

    def fewest_dims(self, step: float, tolerance: float, share: float) -> int | None:
        """The fewest dimensions that keep the tolerance at this step; None if all together do not."""
        tolerance *= 0.97  # a little stricter than asked, since only a part of the pairs is looked at
        low, high = 0, int(self.coordinates.shape[1])
        queries = np.rint(self.coordinates[self.queries] / step) * step
        targets = np.rint(self.coordinates[self.targets] / step) * step
        if self._error(queries, targets, high, share) > tolerance:
            return None
        while low < high:
            middle = (low + high) // 2
            if self._error(queries, targets, middle, share) <= tolerance:
                high = middle
            else:
                low = middle + 1
        return max(high, 1)

    def _error(
        self, queries: NDArray[np.float64], targets: NDArray[np.float64], dims: int, share: float
    ) -> float:
        error = np.abs(self.base + queries[:, :dims] @ targets[:, :dims].T - self.full)[self.different]
        if not error.size:
            return 0.0
        rank = min(int(share * error.size), error.size - 1)
        return float(np.partition(error, rank)[rank])


def _spread(count: int, wanted: int, *, shift: int = 0) -> NDArray[np.intp]:
    """At most so many of ``count`` indices, chosen by chance but always the same."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(shift).choice(count, wanted, replace=False))
