"""The lengths of patch tokens: where a network keeps something other than what the patch shows."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.lenses.base import Scene, rounded
from patchprism.lenses.sheet import Bar
from patchprism.pictures.outputs import LensResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# A patch stands out when its length is this many scaled median absolute deviations above the median: 5 of a
# normal distribution's standard deviations.
OUTLIER_DEVIATIONS = 5.0
_MAD_TO_SIGMA = 1.4826


def token_norms(tokens: NDArray[np.floating]) -> NDArray[np.float32]:
    """Euclidean lengths of tokens, (h, w, D) -> (h, w) float32.

    Raises
    ------
    FeaturesError
        If a token or its length is not finite.
    """
    squares = np.square(as_tokens(tokens), dtype=np.float64)
    with np.errstate(over="ignore"):
        norms: NDArray[np.float32] = np.sqrt(squares.sum(axis=-1)).astype(np.float32)
    if not np.isfinite(norms).all():
        raise FeaturesError("features must be finite, got a token whose length is not")
    return norms


def outlier_threshold(norms: Sequence[NDArray[np.float32]]) -> float:
    """The length above which a patch stands out from those of all photos."""
    pooled = np.concatenate([norm.ravel() for norm in norms]).astype(np.float64)
    median = np.median(pooled)
    deviation = _MAD_TO_SIGMA * np.median(np.abs(pooled - median))
    # Lengths that agree to rounding have no outliers, however many deviations a rounding error is.
    return float(median + max(OUTLIER_DEVIATIONS * deviation, 1e-3 * median))


def look(scene: Scene) -> LensResult:
    """Token norms of all photos on one scale, and which stand out; see docs/lenses/norm.md."""
    norms = [token_norms(tokens) for tokens in scene.view.features]
    low, high = min(float(n.min()) for n in norms), max(float(n.max()) for n in norms)
    flat = high - low <= 1e-3 * high
    limit = outlier_threshold(norms)
    counts = [int(np.count_nonzero(norm > limit)) for norm in norms]
    total = sum(norm.size for norm in norms)
    note = (
        f"All lengths are {high:.4g}: this backbone normalises its tokens, so there is nothing to see."
        if flat
        else f"{sum(counts):,} of {total:,} patches are longer than {limit:.4g} "
        f"(median and {OUTLIER_DEVIATIONS:g} robust standard deviations)."
    )
    ends = (high, high) if flat else (low, high)

    captions = [
        f"{n.min():.3g} to {n.max():.3g}; {count} stand out" for n, count in zip(norms, counts, strict=True)
    ]
    figure = partial(
        scene.heat_sheet,
        norms,
        *ends,
        title="norm: length of each patch token",
        notes=[note],
        captions=captions,
        bar=Bar(f"{low:.4g}", f"{high:.4g}"),
    )
    return LensResult(
        name="norm",
        report={
            "range": [rounded(low), rounded(high)],
            "flat": flat,
            "outlier_threshold": rounded(limit),
            "outliers": sum(counts),
            "photos": [
                {
                    "min": rounded(n.min()),
                    "median": rounded(np.median(n)),
                    "max": rounded(n.max()),
                    "outliers": count,
                }
                for n, count in zip(norms, counts, strict=True)
            ],
        },
        figures={"norm": figure},
        pictures=[{"norm": partial(scene.draw_heat, i, norm, *ends)} for i, norm in enumerate(norms)],
        arrays=[{"norm": norm} for norm in norms],
    )
