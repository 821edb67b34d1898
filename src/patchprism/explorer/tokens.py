"""Patch tokens made small: few bits, and nearly the same cosine similarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.explorer.coding import bits_of
from patchprism.explorer.reduced import (
    CHECKED_PATCHES,
    OFFSET_STEP,
    TOLERANCE,
    ReducedTokens,
    checked,
    spread,
)
from patchprism.explorer.spectrum import BANDS, MAX_CLASSES, bands_of, transform
from patchprism.features import check_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features import Tokens

# Aimed at: this share of the pairs of different patches within the tolerance, if the bytes allow it.
SHARE = 0.9999
NORM_STEP = 2.0**-12
# Steps go as the variance to the power -WEIGHT / 2. An error along a component tells in the cosine as the other
# patch's coordinate there: 1 is best for most pairs, less for the largest errors (measured).
WEIGHT = 0.85
# Rounded down below this fraction: half a bit saved where it costs least. 0.5 would be plain rounding.
ROUND_UP = 0.56
# A correction's bits: where among the pairs the next one is, and how far it is off (measured: 14 to 15).
CORRECTION_BITS = 15
_SEARCH_QUERIES, _SEARCH_TARGETS = 160, 2500
_TRIES = 6


def reduce_tokens(
    tokens: Sequence[Tokens],
    known: Known | None = None,
    *,
    tolerance: float = TOLERANCE,
    allowed: float = np.inf,
) -> ReducedTokens:
    """Reduce patch tokens so that their cosine similarities stay within a tolerance.

    Unit tokens minus their mean, and minus what is known of them, are turned along the principal components of
    the rest; every coordinate is a small picture of each photo, whose discrete cosine transform is rounded to
    multiples of a step. Where a component's variance is large its step is fine, since an error there tells in
    more of the cosine. One factor of all steps is searched for.

    Parameters
    ----------
    tokens : sequence of ndarray, each (h, w, D)
    known : Known, optional
        What the page can work out from numbers that it has for other reasons.
    tolerance : float, default 0.02
        For ``SHARE`` of the pairs of different patches, or for as many as the bytes allow. Of up to
        ``CHECKED_PATCHES`` patches the pairs beyond it are corrected, so that all keep it.
    allowed : float
        About how many bytes the codes and corrections may take.

    Returns
    -------
    ReducedTokens
    """
    for n, each in enumerate(tokens, start=1):
        check_tokens(each, f"photo-{n}")
    grids = [(each.shape[0], each.shape[1]) for each in tokens]
    rows = np.concatenate([np.reshape(each, (-1, each.shape[-1])) for each in tokens]).astype(np.float32)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    rows /= np.where(norms > 0, norms, 1.0).astype(np.float32)
    known = known or Known(np.zeros((0, len(rows)), np.float32), np.zeros((0, rows.shape[1]), np.float32))
    rest = rows - (rows @ known.axes.T) @ known.axes
    mean = rest.mean(axis=0, dtype=np.float64)
    rest -= mean.astype(np.float32)
    # float32 is enough for axes to round along, and takes half the time.
    variances, vectors = np.linalg.eigh(rest.T @ rest / np.float32(max(len(rows), 1)))
    variances, vectors = np.maximum(variances[::-1], 0).astype(np.float64), vectors[:, ::-1]
    offset = np.rint((rest @ mean + mean @ mean / 2) / OFFSET_STEP) * OFFSET_STEP
    waves = transform((rest @ vectors).T, grids)
    search = _Search(rows, waves, variances, offset, known.values, grids, tolerance)
    return checked(rows, search.reduced(search.best_scale(allowed)))


@dataclass(frozen=True)
class Known:
    """Coordinates of the unit tokens that need not travel, since the page can compute them.

    The coordinates along both PCAs' components travel for the colours, exact to 2**-16 of a deviation. Divided
    by the token's norm they are the unit token's.

    Attributes
    ----------
    values : ndarray, shape (r, N), float32
    axes : ndarray, shape (r, D), float32
        Orthonormal.
    """

    values: NDArray[np.float32]
    axes: NDArray[np.float32]


def log_norms(tokens: Sequence[Tokens]) -> NDArray[np.int64]:
    """The tokens' norms (N,), as multiples of ``NORM_STEP`` of their natural logarithm; a norm of 0 counts as 1."""
    norms = np.concatenate([np.linalg.norm(each.astype(np.float64), axis=-1).ravel() for each in tokens])
    return np.rint(np.log(np.where(norms > 0, norms, 1.0)) / NORM_STEP).astype(np.int64)


def known_axes(components: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Orthonormal axes (r, D) of the space that components (k, D) span, and the (r, k) that turns one into the other.

    Directions that differ too little between the components are left out: they would enlarge rounding.
    """
    left, sizes, right = np.linalg.svd(components, full_matrices=False)
    kept = sizes > 0.02
    return right[kept].astype(np.float32), (left[:, kept] / sizes[kept]).T.astype(np.float32)


def known_values(
    components: NDArray[np.float64],
    shift: NDArray[np.float32],
    turn: NDArray[np.float32],
    norms: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Coordinates (r, N) of unit tokens from components (k, N), as the page computes them.

    Parameters
    ----------
    components : ndarray, shape (k, N)
        Coordinates along the components, less those of the PCAs' means.
    shift : ndarray, shape (k,)
        The means' coordinates.
    turn : ndarray, shape (r, k)
    norms : ndarray, shape (N,)
        As of :func:`log_norms`.
    """
    turned = turn.astype(np.float64) @ (components + shift.astype(np.float64)[:, np.newaxis])
    values: NDArray[np.float32] = (turned / np.exp(norms * NORM_STEP)).astype(np.float32)
    return values


class _Search:
    """Looks for the factor of all steps; measures on a part of the pairs."""

    def __init__(
        self,
        rows: NDArray[np.float32],
        waves: NDArray[np.float32],
        variances: NDArray[np.float64],
        offset: NDArray[np.float64],
        known: NDArray[np.float32],
        grids: list[tuple[int, int]],
        tolerance: float,
    ) -> None:
        self.waves, self.offset, self.known, self.grids = waves, offset, known, grids
        self.tolerance = tolerance
        self.queries = spread(len(rows), _SEARCH_QUERIES)
        self.targets = spread(len(rows), _SEARCH_TARGETS, shift=1)
        self.full = rows[self.queries] @ rows[self.targets].T
        self.base = offset[self.queries][:, np.newaxis] + offset[self.targets]
        self.base += known[:, self.queries].T @ known[:, self.targets]
        self.different = self.queries[:, np.newaxis] != self.targets
        self.bands = [bands_of(h, w) for h, w in grids]
        # Steps as the variances' power, 1 where they meet the mean; none finer than a hundredth of that.
        variance = np.maximum(variances, 1e-4 * max(float(variances.max(initial=0)), 1e-12))
        self.relative = (variance / max(float(np.exp(np.log(variance).mean())), 1e-12)) ** (-WEIGHT / 2)

    def best_scale(self, allowed: float) -> float:
        """The coarsest factor that keeps the tolerance, or the finest that keeps the bytes."""
        # Errors go about as the factor, bits fall by one a number for each doubling: a few steps of the secant
        # method, in logarithms, meet either.
        tolerance = self.tolerance
        scale = 0.7 * tolerance
        below, above = 0.0, np.inf  # known to be fine enough; known to be too coarse
        best = scale
        for _ in range(_TRIES):
            reduced = self.reduced(scale)
            self.seen = scale, self._errors(reduced)
            ratio = tolerance / max(_largest_but(self.seen[1]), 1e-9)
            if ratio >= 1:
                below, best = scale, scale
                if ratio < 1.05 or not reduced.codes.any():
                    break
            else:
                above = scale
            scale *= float(np.clip(ratio * 0.98, 0.25, 4.0))
            if not below < scale < above:
                scale = (below + above) / 2 if np.isfinite(above) else 2 * below
        else:
            best = below or scale
        return self._affordable(best, allowed)

    def _affordable(self, scale: float, allowed: float) -> float:
        """The factor itself, or the finest coarser one whose bytes are allowed, to a few hundredths.

        Where none is, since corrections take more than coarser numbers save, the one of the fewest bytes met.
        """
        too_fine, before, slope = scale, np.inf, 0.0
        fewest = np.inf, scale
        for _ in range(2 * _TRIES):
            codes, classes = self.reduced(scale).coded()
            size = bits_of(codes, classes, MAX_CLASSES) / 8 + self._correction_bytes(scale)
            fewest = min(fewest, (size, scale))
            if size <= allowed:
                if size > 0.97 * allowed or too_fine == scale:
                    return scale
                scale = (scale + too_fine) / 2
                continue
            if size >= before:
                break
            # A doubling saves a bit of every code that is not 0, and more where codes become 0: as was seen.
            known = np.isfinite(before)
            slope = (before - size) / np.log2(scale / too_fine) if known else np.count_nonzero(codes) / 6
            too_fine, before = scale, size
            scale *= float(2 ** np.clip((size - 0.985 * allowed) / max(slope, 1.0), 0.005, 0.5))
        return fewest[1]

    def _correction_bytes(self, scale: float) -> float:
        """What corrections will take: errors grow as the steps do, which is where the sample comes in."""
        seen, errors = self.seen
        n = len(self.offset)
        if n > CHECKED_PATCHES or not errors.size:
            return 0.0
        share = float((errors > self.tolerance * seen / scale).mean())
        return share * n * (n - 1) / 2 * CORRECTION_BITS / 8

    def reduced(self, scale: float) -> ReducedTokens:
        """All tokens with steps of this factor."""
        steps = (scale * self.relative).astype(np.float32)
        # What cannot reach half a step in any frequency: a photo's flat picture is the largest.
        largest = np.abs(self.waves).max(axis=1, initial=0)
        kept = np.flatnonzero(largest > ROUND_UP * steps)
        dims = int(kept[-1]) + 1 if len(kept) else 1
        steps = steps[:dims]
        exact = self.waves[:dims] / steps[:, np.newaxis]
        size = np.abs(exact) + np.float32(1 - ROUND_UP)
        rounded = np.floor(size).astype(np.int32)
        sums = np.zeros((dims, len(BANDS) + 1))
        counts = np.zeros(len(BANDS) + 1)
        photos = self._photos(rounded)
        for part, bands in zip(photos, self.bands, strict=True):
            for band in np.unique(bands):
                where = bands == band
                sums[:, band] += part[:, where].sum(axis=1)
                counts[band] += where.sum()
        means = sums / np.maximum(counts, 1)
        classes = np.rint(2 * np.log2(np.maximum(means, 2.0**-9))) + 19
        classes = np.where(means > 0, np.clip(classes, 1, MAX_CLASSES - 1), 0).astype(np.uint8)
        shrink = self._shrink(photos, self._photos(np.abs(exact)), classes)
        codes = np.where(exact < 0, -rounded, rounded)
        flat = np.concatenate([np.zeros(0, np.int32), *(part.ravel() for part in self._photos(codes))])
        none = np.zeros(0, np.int64)
        return ReducedTokens(
            codes=flat,
            classes=classes,
            steps=steps,
            shrink=shrink,
            offset=self.offset,
            known=self.known,
            grids=self.grids,
            corrected=none,
            corrections=none,
            error={},
            tolerance=self.tolerance,
        )

    def _photos(self, waves: NDArray[Any]) -> list[NDArray[Any]]:
        """(dims, N) cut into photos, (dims, h, w) each."""
        ends = np.cumsum([h * w for h, w in self.grids])[:-1]
        return [
            part.reshape(len(waves), h, w)
            for part, (h, w) in zip(np.split(waves, ends, axis=1), self.grids, strict=True)
        ]

    def _shrink(
        self, rounded: list[NDArray[np.int32]], exact: list[NDArray[np.float32]], classes: NDArray[np.uint8]
    ) -> NDArray[np.float64]:
        sums, counts = np.zeros(MAX_CLASSES * 4), np.zeros(MAX_CLASSES * 4)
        for part, size, bands in zip(rounded, exact, self.bands, strict=True):
            some = (part > 0) & (part <= 3)
            at = (classes[:, bands] * np.int64(4) + part)[some]
            sums += np.bincount(at, (part - size)[some], len(sums))
            counts += np.bincount(at, minlength=len(sums))
        mean: NDArray[np.float64] = np.round(sums / np.maximum(counts, 1), 3).reshape(-1, 4)[:, 1:]
        return mean

    def _errors(self, reduced: ReducedTokens) -> NDArray[np.float64]:
        """Of the searched pairs."""
        values = reduced.values()
        cosine = self.base + values[:, self.queries].T @ values[:, self.targets]
        errors: NDArray[np.float64] = np.abs(cosine - self.full)[self.different]
        return errors


def _largest_but(errors: NDArray[np.float64]) -> float:
    """The largest of ``SHARE`` of the errors."""
    if not errors.size:
        return 0.0
    rank = min(int(SHARE * errors.size), errors.size - 1)
    return float(np.partition(errors, rank)[rank])
