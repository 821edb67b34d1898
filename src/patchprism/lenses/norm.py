"""The lengths of patch tokens. Some networks store global information in a few tokens of unusual length."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.lenses.base import Lens, rounded
from patchprism.lenses.passes import Sample
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.pictures.sheet import Bar, heat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.pictures.sheet import Sheet
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk

# With more lengths than this, medians are taken from a random sample of about this size, exact to 0.2 % of the ranks.
SAMPLE = 1 << 18
# A patch is an outlier if its length exceeds the median by more than this many scaled median absolute deviations,
# which are the standard deviations of a normal distribution.
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
        raise FeaturesError("features must be finite, got a token whose length is not finite")
    return norms


def outlier_threshold(norms: NDArray[np.float32]) -> float:
    """The length above which a patch is an outlier, from the lengths of all patches, in any shape."""
    pooled = norms.ravel().astype(np.float64)
    median = np.median(pooled)
    deviation = _MAD_TO_SIGMA * np.median(np.abs(pooled - median))
    # The lower bound keeps rounding errors from being outliers if all lengths are equal.
    return float(median + max(OUTLIER_DEVIATIONS * deviation, 1e-3 * median))


class Norm(Lens):
    """Token norms of all photos on one scale, and their outliers; see docs/lenses/norm.md."""

    name = "norm"

    def fit(self, walk: Walk) -> Self:
        """See :class:`Lens`: learns the shortest and the longest length, and the threshold for outliers."""
        self.n_patches_ = self.scene.n_patches
        seen = walk(partial(Sample, _column, SAMPLE / self.n_patches_, self.scene.options.seed))
        assert seen.extent is not None, "there is a photo"
        self.low_, self.high_ = float(seen.extent.low[0]), float(seen.extent.high[0])
        self.limit_ = outlier_threshold(seen.rows())
        return self

    @property
    def _flat(self) -> bool:
        return self.high_ - self.low_ <= 1e-3 * self.high_

    @property
    def _ends(self) -> tuple[float, float]:
        return (self.high_, self.high_) if self._flat else (self.low_, self.high_)

    def learned(self) -> Any:
        """See :class:`Lens`."""
        return [self.low_, self.high_, self.limit_]

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """See :class:`Lens`."""
        norm = token_norms(tokens)
        return PhotoLook(
            {"norm": partial(self.scene.draw_heat, row, norm, *self._ends)},
            {"norm": norm},
            {
                "min": rounded(norm.min()),
                "median": rounded(np.median(norm)),
                "max": rounded(norm.max()),
                "outliers": int(np.count_nonzero(norm > self.limit_)),
            },
        )

    @property
    def meaning(self) -> str:
        """See :class:`Lens`."""
        return f"length of each patch's token, from {self.low_:.4g} to {self.high_:.4g}"

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """See :class:`Lens`."""
        return heat(token_norms(tokens), *self._ends)

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        outliers = sum(entry["outliers"] for entry in entries)
        report = {
            "range": [rounded(self.low_), rounded(self.high_)],
            "flat": self._flat,
            "outlier_threshold": rounded(self.limit_),
            "outliers": outliers,
            "photos": list(entries),
        }
        return LensResult(
            name=self.name, report=report, figures={"norm": Drawing(partial(self._figure, outliers))}
        )

    def _figure(self, outliers: int) -> Sheet:
        note = (
            f"All lengths are {self.high_:.4g}: this backbone normalises its tokens, so there is nothing to see."
            if self._flat
            else f"Length of each patch token. {outliers:,} of {self.n_patches_:,} patches are longer than "
            f"{self.limit_:.4g} (median plus {OUTLIER_DEVIATIONS:g} robust standard deviations)."
        )
        norms = [(row, token_norms(tokens)) for _, row, tokens in self.first()]
        name = "length of the patch's token (Euclidean norm)"
        return self.sheet(
            [(row, heat(norm, *self._ends)) for row, norm in norms],
            [
                f"{n.min():.3g} to {n.max():.3g}; {np.count_nonzero(n > self.limit_)} stand out"
                for _, n in norms
            ],
            notes=[note],
            bars=(
                Bar(f"{name}: all equal" if self._flat else name, f"{self.low_:.4g}", f"{self.high_:.4g}"),
            ),
        )


def _column(tokens: Tokens) -> NDArray[np.float32]:
    return token_norms(tokens).reshape(-1, 1)
