"""Count, mean and scatter of patch tokens. They need one pass, can be merged, and are enough for an exact PCA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.support.surroundings import own_settings
from patchprism.support.threads import one_blas_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]
    Part = tuple[int, Float64, Float64]  # count, mean, scatter

# Number of rows that are multiplied at a time. 4096 rows of 384 float32 are 6 MB, which stays in the last-level cache,
# and a float32 sum of 4096 squares is accurate to about six digits before it is added in float64.
BLOCK_ROWS = 4096

# A component whose variance is below this share of the first one's is rounding noise of float32 tokens (the epsilon of
# float32 is 1.2e-7). Stretched to the full range of colours, it would show as coloured noise.
NOISE_SHARE = 1e-6

# Loadings of opposite signs whose magnitudes differ by less than this share are a tie. In a tie, the sum of the cubes
# of the loadings (divided by the sum of their magnitudes) times CUBES is added to the difference. If the result is
# smaller than FIRST, the sign of the first large loading counts, too. Of 116 pairs of components of crops of four
# photos, in float32 and in bfloat16 or float16 (efficientnet_lite2), 4 flip with scikit-learn's rule and 2 with this
# one. A narrower tie (0.05) was worse than none: 9 to 10 flip, because components flip at each boundary between rules.
NEAR_TIE = 0.2
CUBES, FIRST = 8.0, 0.03

# Range of sums of squares that are accurate in float32: larger ones overflow, and in smaller ones, terms underflow.
_SMALLEST_SQUARE, _LARGEST_SQUARE = 1e-24, 1e36


@dataclass(frozen=True)
class Principal:
    """Principal components of the rows that were added to a :class:`Moments`.

    Attributes
    ----------
    components : ndarray, shape (k, D), float64
        Orthonormal rows, the largest variance first, with the signs of :func:`fix_signs`.
    variance : ndarray, shape (k,), float64
        Variance along each component, with ``count - 1`` in the denominator.
    total_variance : float
        Sum of the variances along all D directions.
    rank : int
        How many of the k variances are above rounding noise.
    """

    components: Float64
    variance: Float64
    total_variance: float
    rank: int


class Moments:
    """Count, mean and scatter matrix of rows, in float64.

    Squares of deviations from a running mean are summed instead of raw squares, and two sets of moments are merged
    with the pairwise formula of Chan, Golub and LeVeque (1979). So every split of the rows gives the same result up
    to rounding. The state has D × D numbers for any number of rows.

    Parameters
    ----------
    width : int
        Length D of a row.

    Attributes
    ----------
    mean : ndarray, shape (D,), float64
    scatter : ndarray, shape (D, D), float64
        Sum of outer products of deviations from ``mean``.
    """

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean: Float64 = np.zeros(width)
        self.scatter: Float64 = np.zeros((width, width))
        self._spectrum: tuple[Float64, Float64] | None = None

    @classmethod
    def of(cls, batches: Iterable[Any]) -> Moments:
        """Moments of several batches of rows, each ``(n, D)``."""
        moments: Moments | None = None
        for rows in batches:
            moments = moments or cls(rows.shape[1])
            moments.update(rows)
        if moments is None:
            raise FeaturesError("there are no features to take moments of")
        return moments

    def update(self, rows: Any) -> Moments:
        """Add rows.

        Parameters
        ----------
        rows : ndarray or torch.Tensor, shape (n, D), any real dtype, any device
            float64 rows are multiplied in float64, and all others in float32, block by block; the blocks are added
            in float64. Rows whose squares exceed the range of float32 are multiplied in float64, too.

        Returns
        -------
        Moments
            This object.

        Raises
        ------
        FeaturesError
            If a value is NaN or infinite, if squares overflow even float64, or if the width differs. In this case,
            nothing is added.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self.mean):
            raise FeaturesError(f"rows must be (n, {len(self.mean)}), got {tuple(rows.shape)}")
        # Collected separately, so that an error does not change this object.
        added = Moments(len(self.mean))
        origin = self.mean if self.count else None
        if isinstance(rows, np.ndarray) or rows.device.type == "cpu":
            for part in _array_parts(rows if isinstance(rows, np.ndarray) else _as_numpy(rows), origin):
                added._combine(*part)
        else:
            for start in range(0, len(rows), BLOCK_ROWS):
                block = rows[start : start + BLOCK_ROWS]
                made = _tensor_part(block)
                if made is not None:
                    added._combine(*made)
                    continue
                for exact in _array_parts(block.detach().cpu().double().numpy(), origin):
                    added._combine(*exact)
        return self.merge(added)

    def merge(self, other: Moments) -> Moments:
        """Add the rows of other moments; ``other`` does not change."""
        if len(other.mean) != len(self.mean):
            raise FeaturesError(f"cannot merge moments of width {len(other.mean)} into {len(self.mean)}")
        self._combine(other.count, other.mean, other.scatter)
        return self

    def _combine(self, count: int, mean: Float64, scatter: Float64) -> None:
        if not count:
            return
        total = self.count + count
        if self.count:
            with np.errstate(over="ignore", invalid="ignore"):
                delta = mean - self.mean
                scatter = scatter + np.outer(delta * (self.count * count / total), delta)
                scatter += self.scatter
            mean = self.mean + delta * (count / total)
        # No entry is larger than the largest on the diagonal. The comparison also fails for NaN.
        if not scatter.diagonal().max(initial=0.0) < np.inf:
            raise FeaturesError("features are too large: their squares overflow float64")
        self.mean, self.scatter = mean.copy(), scatter.copy()
        self.count = total
        self._spectrum = None

    def principal(self, n_components: int, *, stable: bool = True) -> Principal:
        """The first components, from ``eigh`` of the covariance, without a randomised solver.

        Parameters
        ----------
        n_components : int
            At most D.
        stable : bool
            As for :func:`fix_signs`.

        Raises
        ------
        FeaturesError
            If no rows were added.
        """
        if not self.count:
            raise FeaturesError("there are no features to take components of")
        if self._spectrum is None:
            # OpenBLAS's eigh of 592 x 592 takes 0.16 s with two threads on idle cores and 0.07 s with one. On busy
            # cores, its threads wait for each other for seconds.
            with one_blas_thread():
                variance, vectors = np.linalg.eigh(self.scatter / max(self.count - 1, 1))
            self._spectrum = np.clip(variance[::-1], 0.0, None), np.ascontiguousarray(vectors.T[::-1])
        variance, vectors = self._spectrum
        components = fix_signs(vectors[:n_components], stable=stable)
        # The second limit is for rows that are all equal: their deviations are rounding errors of the mean.
        floor = max(NOISE_SHARE * variance[0], (1e-12 * np.abs(self.mean).max()) ** 2)
        rank = int(np.count_nonzero(variance[:n_components] > floor))
        return Principal(components, variance[:n_components].copy(), float(variance.sum()), rank)


def fix_signs(components: Float64, *, stable: bool = True) -> Float64:
    """Fix the signs of components: the loading with the largest magnitude is positive, except in near ties.

    If the magnitudes of the largest positive and the largest negative loading differ by at least ``NEAR_TIE`` of the
    larger one, this is the rule of scikit-learn's ``svd_flip`` with ``u_based_decision=False``. Otherwise they are a
    tie, which the precision of the network or noise in a photo would decide. In a tie, the sum of the cubes of all
    loadings also counts, because it depends on many loadings. In an exact tie, the first large loading is positive.

    Parameters
    ----------
    components : ndarray, shape (k, D)
    stable : bool
        If False, near ties follow scikit-learn's rule, too.

    Returns
    -------
    ndarray, shape (k, D)
        The rows, of which some are negated.

    Examples
    --------
    >>> fix_signs(np.array([[0.2, -0.8], [-0.2, 0.8]]))
    array([[-0.2,  0.8],
           [-0.2,  0.8]])
    >>> fix_signs(np.array([[0.60, -0.61, 0.5]]))  # nearly a tie, and most loadings are positive
    array([[ 0.6 , -0.61,  0.5 ]])
    """
    largest = np.abs(components).max(axis=1, initial=0.0)
    unit = components / np.where(largest > 0, largest, 1.0)[:, np.newaxis]
    decision = unit.max(axis=1, initial=0.0) + unit.min(axis=1, initial=0.0)
    if stable:
        cubes = unit**3
        share = cubes.sum(axis=1) / np.maximum(np.abs(cubes).sum(axis=1), 1.0)
        decision += np.clip(CUBES * share, -NEAR_TIE, NEAR_TIE)
        decision += _first_large(unit) * np.maximum(0, FIRST - np.abs(decision))
    signed: Float64 = components * np.where(decision < 0, -1.0, 1.0)[:, np.newaxis]
    return signed


def _first_large(unit: Float64) -> Float64:
    """Sign of the first large loading of each component, (k,), in [-1, 1].

    A loading counts as large if its magnitude is at least 0.8 of the largest, and does not count up to 0.5. Between
    these limits it counts partly, so that the result changes continuously with the loadings.
    """
    share = np.clip((np.abs(unit) - 0.5) / 0.3, 0.0, 1.0)
    left = np.cumprod(1 - share, axis=1)
    before = np.concatenate([np.ones((len(unit), 1)), left[:, :-1]], axis=1)
    first: Float64 = (np.sign(unit) * share * before).sum(axis=1)
    return first


def project(rows: Any, mean: Float64, components: Float64) -> Float64:
    """Coordinates of rows along components, computed in float64, block by block.

    Parameters
    ----------
    rows : ndarray, shape (n, D)
    mean : ndarray, shape (D,)
    components : ndarray, shape (k, D)

    Returns
    -------
    ndarray, shape (n, k), float64
    """
    out = np.empty((len(rows), len(components)))
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        # The mean is subtracted first, because a mean far larger than the deviations would cost digits.
        np.matmul(
            np.subtract(block, mean, dtype=np.float64), components.T, out=out[start : start + len(block)]
        )
    return out


def _as_numpy(rows: Any) -> NDArray[Any]:
    import torch

    rows = rows.detach()
    return (rows if rows.dtype in (torch.float32, torch.float64) else rows.float()).numpy()  # type: ignore[no-any-return]


def _array_parts(rows: NDArray[Any], origin: Float64 | None) -> Iterator[Part]:
    """Parts of rows on the CPU. There is one part, unless the mean of the rows changes much from block to block."""
    dtype = np.float64 if rows.dtype == np.float64 else np.float32
    width = rows.shape[1]
    buffer = np.empty((min(BLOCK_ROWS, len(rows)), width), dtype)
    part: _Sums | None = None
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        if part is None:
            # Differences from a value near the mean are accurate in float32: from the mean of earlier rows, or from
            # the mean of the block.
            part = _Sums(_mean(block, dtype) if origin is None else origin.astype(dtype))
        total, products = part.deviations(block, buffer)
        if dtype == np.float32 and not _in_range(products):
            exact = _Sums(_mean(block, np.float64))
            total, products = exact.deviations(block, np.empty(block.shape))
            if not np.isfinite(total).all():
                _refuse_non_finite(block)
            exact.add(len(block), total, products)
            yield exact.result()
            continue
        if not np.isfinite(total).all():
            _refuse_non_finite(block)
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # an overflow is refused when the parts are combined
            far = len(block) * (total / len(block)) ** 2 > 0.9 * np.diag(products)
        if far.any():
            # If the mean of the block is this far from the origin, subtracting it afterwards would cancel most digits.
            # So a new part begins.
            if part.count:
                yield part.result()
            part = _Sums(_mean(block, dtype))
            total, products = part.deviations(block, buffer)
        part.add(len(block), total, products)
    if part is not None and part.count:
        yield part.result()


class _Sums:
    """Sums of deviations from a fixed origin, and of their products."""

    def __init__(self, origin: NDArray[Any]) -> None:
        self.origin = origin
        self.count = 0
        self.total: Float64 = np.zeros(len(origin))
        self.products: Float64 = np.zeros((len(origin), len(origin)))

    def deviations(self, block: NDArray[Any], buffer: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        # The caller refuses infinities and NaN, and repeats the computation in float64 after an overflow.
        with np.errstate(invalid="ignore", over="ignore"):
            deviations = np.subtract(block, self.origin, out=buffer[: len(block)])
            # NumPy recognises the product of a matrix with its own transpose, and does half the work (syrk).
            return np.ones(len(block), deviations.dtype) @ deviations, deviations.T @ deviations

    def add(self, count: int, total: NDArray[Any], products: NDArray[Any]) -> None:
        self.count += count
        self.total += total
        self.products += products

    def result(self) -> Part:
        offset = self.total / self.count
        with np.errstate(over="ignore", invalid="ignore"):
            scatter = self.products - self.count * np.outer(offset, offset)
        return self.count, self.origin.astype(np.float64) + offset, scatter


def _in_range(products: NDArray[Any]) -> bool:
    """Whether the products of a block, (D, D), are accurate in float32; False if all are 0, maybe by underflow."""
    return bool(_SMALLEST_SQUARE < products.diagonal().max(initial=0) < _LARGEST_SQUARE)


def _mean(block: NDArray[Any], dtype: type) -> NDArray[Any]:
    with np.errstate(invalid="ignore", over="ignore"):
        return block.mean(axis=0, dtype=np.float64).astype(dtype)  # type: ignore[no-any-return]


def _tensor_part(block: Any) -> Part | None:
    """Count, mean and scatter of one block on an accelerator; only D × D numbers are transferred.

    None if its squares exceed the range of float32.
    """
    import torch

    with own_settings():
        rows = block.detach()
        rows = rows if rows.dtype in (torch.float32, torch.float64) else rows.float()
        # Apple's GPU has no float64, so the mean is computed in two steps of float32: an approximation, and the mean
        # of the deviations from it.
        origin = rows.mean(dim=0)
        deviations = rows - origin
        offset = deviations.mean(dim=0)
        deviations = deviations - offset
        scatter = (deviations.T @ deviations).cpu().double().numpy()
        mean = (origin.cpu().double() + offset.cpu().double()).numpy()
    if not np.isfinite(mean).all():
        _refuse_non_finite(rows.cpu().numpy())
    return (len(rows), mean, scatter) if rows.dtype == torch.float64 or _in_range(scatter) else None


def _refuse_non_finite(block: NDArray[Any]) -> None:
    bad = ~np.isfinite(block)
    if not bad.any():
        raise FeaturesError("features are too large: their sums overflow float64")
    row, column = np.argwhere(bad)[0]
    kind = "NaN" if np.isnan(block[row, column]) else "infinity"
    raise FeaturesError(f"features must be finite: row {row}, column {column} of a batch is {kind}")
