"""Reduced tokens: what travels of them, what the page makes of that, and how far off it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from patchprism.explorer.spectrum import classes_of, restore

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE = 0.02
OFFSET_STEP = 2.0**-15
# Up to so many patches every pair is looked at (134 million of them), and those that are off are corrected.
CHECKED_PATCHES = 16_384
# float32 sums in another order, as the page does them, end up to 3e-6 elsewhere.
_SLACK = 1e-5
_BLOCK = 1 << 23  # pairs at a time
_MEASURED_QUERIES = 384


@dataclass(frozen=True)
class ReducedTokens:
    """Tokens of N patches as few small whole numbers.

    With v for the known coordinates and those restored from the codes, one below the other, the cosine of patches
    a and b is ``offset[a] + offset[b] + v[:, a] · v[:, b]``.

    Attributes
    ----------
    codes : ndarray, shape (dims * N,), int32
        Of each photo, (dims, h, w): the discrete cosine transform of the token's coordinate over the photo's
        patches, in multiples of the coordinate's step.
    classes : ndarray, shape (dims, len(BANDS) + 1), uint8
        What kind of number the codes of a dimension in a band of frequencies are; 0: all of them are 0.
    steps : ndarray, shape (dims,), float32
    shrink : ndarray, shape (classes, 3), float64
        By how much a code of magnitude 1, 2 and 3 lies nearer to 0, on average, than it says; by class.
    offset : ndarray, shape (N,), float64
        Multiples of ``OFFSET_STEP``, between -1 and 1.
    known : ndarray, shape (r, N), float32
        Coordinates that the page has already.
    grids : list of (h, w)
    corrected : ndarray, shape (m,), int64
        Pairs of patches a < b whose cosine must be corrected, as ``a * N + b``, ascending.
    corrections : ndarray, shape (m,), int64
        What is added to theirs, in multiples of the tolerance.
    error : dict
        Of the cosine, over pairs of different patches: ``within``, the share of them that keep the
        tolerance; ``median``, ``p99``, ``p999`` and ``max``; how many ``pairs`` were looked at for ``within`` and
        ``max``, ``of`` how many there are.
    tolerance : float
    """

    codes: NDArray[np.int32]
    classes: NDArray[np.uint8]
    steps: NDArray[np.float32]
    shrink: NDArray[np.float64]
    offset: NDArray[np.float64]
    known: NDArray[np.float32]
    grids: list[tuple[int, int]]
    corrected: NDArray[np.int64]
    corrections: NDArray[np.int64]
    error: dict[str, float]
    tolerance: float = TOLERANCE

    def values(self) -> NDArray[np.float32]:
        """Coordinates of all patches, (dims, N), as the page restores them."""
        return restore(self.codes, self.classes, self.steps, self.shrink, self.grids)

    def coded(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """The codes that travel, and their classes: those of class 0 stay at home."""
        classes = classes_of(self.classes, self.grids)
        return self.codes[classes > 0], classes[classes > 0]

    def cosine(self, rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """Cosine similarities of some patches to all, (len(rows), N), as the page computes them."""
        values = np.concatenate([self.known, self.values()])
        cosine: NDArray[np.float64] = (
            values[:, rows].T @ values + self.offset[rows][:, np.newaxis] + self.offset
        )
        a, b = np.divmod(self.corrected, len(self.offset))
        place = np.full(len(self.offset), -1)
        place[rows] = np.arange(len(rows))
        for own, other in ((a, b), (b, a)):
            asked = place[own] >= 0
            cosine[place[own[asked]], other[asked]] += self.tolerance * self.corrections[asked]
        return cosine

    def coded_corrections(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Pairs, each as what lies between it and the one before, then corrections; and the classes 0 and 1."""
        gaps = np.diff(self.corrected, prepend=0)
        return np.concatenate([gaps, self.corrections]), np.repeat(np.arange(2, dtype=np.uint8), len(gaps))


def checked(rows: NDArray[np.float32], reduced: ReducedTokens) -> ReducedTokens:
    """Tokens with corrections for the pairs that are off, and the error that is left.

    Parameters
    ----------
    rows : ndarray, shape (N, D), float32
        Unit tokens.
    reduced : ReducedTokens

    Returns
    -------
    ReducedTokens
        Of more than ``CHECKED_PATCHES`` patches nothing is corrected, and the error is a sample's.
    """
    n = len(rows)
    pairs = n * (n - 1) // 2
    if n > CHECKED_PATCHES:
        return replace(reduced, error=measure(rows, reduced) | {"of": pairs})
    tolerance = reduced.tolerance
    values = np.concatenate([reduced.known, reduced.values()]).T
    # One product gives the differences: full cosines less restored ones.
    left, right = np.concatenate([rows, values], axis=1), np.concatenate([rows, -values], axis=1)
    offset = reduced.offset.astype(np.float32)
    worst = 0.0
    places, multiples = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    step = max(1, _BLOCK // max(n, 1))
    for start in range(0, n, step):
        block = slice(start, min(start + step, n))
        error = left[block] @ right[start:].T
        error -= offset[block, np.newaxis]
        error -= offset[start:]
        error[np.tril_indices(len(error), 0, n - start)] = 0  # each pair once, none of a patch with itself
        off = np.flatnonzero(np.abs(error) > tolerance - _SLACK)
        a, b = np.divmod(off, n - start)
        by = np.rint(error.ravel()[off] / tolerance)
        error.ravel()[off] -= tolerance * by
        worst = max(worst, float(error.max()), -float(error.min()))
        places.append((a + start) * n + b + start)
        multiples.append(by.astype(np.int64))
    made = replace(reduced, corrected=np.concatenate(places), corrections=np.concatenate(multiples))
    return replace(
        made,
        error=measure(rows, made)
        | {"within": 1.0, "max": float(np.round(worst, 5)), "pairs": pairs, "of": pairs},
    )


def measure(
    rows: NDArray[np.floating], reduced: ReducedTokens, *, queries: int = _MEASURED_QUERIES
) -> dict[str, float]:
    """Error of the cosine similarity over pairs of different patches; ``rows`` are unit tokens (N, D)."""
    chosen = spread(len(rows), queries)
    error = np.abs(reduced.cosine(chosen) - rows[chosen] @ rows.T)
    error[np.arange(len(chosen)), chosen] = np.nan  # a patch is itself: the page says 1 without computing
    error = error[~np.isnan(error)]
    if not error.size:
        return {"within": 1.0, "median": 0.0, "p99": 0.0, "p999": 0.0, "max": 0.0, "pairs": 0}
    median, p99, p999 = np.quantile(error, [0.5, 0.99, 0.999])
    return {
        "within": round(float((error <= reduced.tolerance).mean()), 5),
        "median": round(float(median), 5),
        "p99": round(float(p99), 5),
        "p999": round(float(p999), 5),
        "max": round(float(error.max()), 5),
        "pairs": int(error.size),
    }


def spread(count: int, wanted: int, *, shift: int = 0) -> NDArray[np.intp]:
    """At most so many of ``count`` indices, chosen by chance but always the same."""
    if wanted >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(shift).choice(count, wanted, replace=False))
