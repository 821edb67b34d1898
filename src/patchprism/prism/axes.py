"""The axes that a fit has found. The passes over photos and the fitted prism compute coordinates along them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PrismError
from patchprism.prism.colors import scale_range
from patchprism.prism.labels import with_shares
from patchprism.prism.moments import project
from patchprism.prism.options import KEPT_COMPONENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.prism.head import Head
    from patchprism.prism.moments import Moments

    Float64 = NDArray[np.float64]

# A coordinate along a component is rounded to a multiple of this number times a power of two, the largest one that
# does not exceed the standard deviation of the component. The error is below a thousandth of a colour step. Rounding
# removes differences from the order in which a machine adds numbers, and allows the explorer's page to store the exact
# coordinates in about two bytes instead of eight.
GRID = 2.0**-16


@dataclass(frozen=True, eq=False)
class Axes:
    """The components of one PCA.

    Attributes
    ----------
    mean : ndarray, shape (D,), float64
    components : ndarray, shape (k, D), float64
        At least three; if D is smaller, the others are zeros.
    variance : ndarray, shape (k,), float64
        Zero if a component is only rounding noise.
    ratio : ndarray, shape (k,), float64
        Share of the variance that each component explains.
    """

    mean: Float64
    components: Float64
    variance: Float64
    ratio: Float64

    @classmethod
    def of(cls, moments: Moments, *, signs: str) -> Axes:
        """The first components of the rows that were added to ``moments``."""
        width = len(moments.mean)
        principal = moments.principal(min(KEPT_COMPONENTS, width), stable=signs == "stable")
        missing = max(KEPT_COMPONENTS - width, 0)
        variance = np.pad(principal.variance, (0, missing))
        variance[principal.rank :] = 0.0
        return cls(
            mean=moments.mean,
            components=np.pad(principal.components, ((0, missing), (0, 0))),
            variance=variance,
            ratio=variance / (principal.total_variance or 1.0),
        )

    def coordinates(self, tokens: Tokens) -> Float64:
        """Coordinates along the components, (..., D) -> (..., k)."""
        values = project(tokens.reshape(-1, tokens.shape[-1]), self.mean, self.components)
        # Tokens are checked before, so a value that is not finite comes from a prism that was read from a file.
        if not np.isfinite(values).all():
            raise PrismError("this prism cannot be used: its means or components are too large")
        return on_grid(values, self.variance).reshape(*tokens.shape[:-1], len(self.components))


@dataclass(frozen=True, eq=False)
class Scorer:
    """The axis of the score, and the scores that are foreground.

    Attributes
    ----------
    component : int
        The scene component that is the score if there is no direction, counted from 1.
    direction : ndarray, shape (D,), float64, or None
        The foreground direction.
    extent : tuple of float
        The values that become the scores 0 and 1.
    threshold : float
        In [0, 1]; NaN if all patches are foreground.
    side : {"above", "below", "none"}
    head : Head, optional
        A head that was fitted to masks; its score is used instead of a component or direction.
    given : mapping of int or str to bytes
        Masks of photos, by the index or name of the photo, from :func:`~patchprism.prism.labels.packed_shares`. The
        share of a patch that the mask covers is its score.
    """

    scene: Axes
    component: int
    direction: Float64 | None
    extent: tuple[float, float] = (0.0, 1.0)
    threshold: float = float("nan")
    side: str = "none"
    head: Head | None = None
    given: Mapping[Any, bytes] = field(default_factory=dict)

    def values(self, tokens: Tokens, *, scene: Float64 | None = None) -> Float64:
        """The unscaled score, (h, w). ``scene`` are the coordinates along the scene components, if they are known."""
        if self.head is not None:
            return self.head.score_of(tokens).astype(np.float64)
        if self.direction is None:
            scene = self.scene.coordinates(tokens) if scene is None else scene
            return scene[..., self.component - 1]
        rows = tokens.reshape(-1, tokens.shape[-1]).astype(np.float64)
        values = self.along_direction(rows @ self.direction, np.einsum("nd,nd->n", rows, rows))
        return values.reshape(tokens.shape[:-1])

    def along_direction(self, products: Float64, squares: Float64) -> Float64:
        """Coordinates of unit tokens along the direction, (n,).

        ``products`` are the products of the tokens with the direction, and ``squares`` their squared lengths.
        """
        assert self.direction is not None
        length = np.sqrt(squares)
        step = np.exp2(np.floor(np.log2(np.linalg.norm(self.direction)))) * GRID
        values: Float64 = np.rint(products / np.where(length > 0, length, 1.0) / step) * step
        return values

    def scaled(self, values: Float64) -> NDArray[np.float32]:
        """Scores from :meth:`values`, float32 in [0, 1]."""
        low, high = self.extent
        taught = self.head is not None or self.direction is not None
        flat = not taught and not self.scene.variance[self.component - 1]
        return scale_range(values, low, low if flat else high)

    def score_of(
        self, tokens: Tokens, *, scene: Float64 | None = None, photo: int | str | None = None
    ) -> NDArray[np.float32]:
        """Scores of one photo, (h, w) float32 in [0, 1].

        ``scene`` is as for :meth:`values`; ``photo`` is the key of the photo in ``given``.
        """
        score = self.scaled(self.values(tokens, scene=scene))
        mask = None if photo is None else self.given.get(photo)
        return score if mask is None else with_shares(score, mask)

    def foreground_of(
        self, tokens: Tokens, *, scene: Float64 | None = None, photo: int | str | None = None
    ) -> NDArray[np.bool_]:
        """Foreground of one photo, (h, w) bool; ``scene`` and ``photo`` as for :meth:`score_of`."""
        return split_at(self.score_of(tokens, scene=scene, photo=photo), self.threshold, self.side)


def split_at(score: NDArray[np.float32], threshold: float, side: str) -> NDArray[np.bool_]:
    """Which scores lie strictly above or below a threshold; all of them for the side ``"none"``."""
    if side == "none":
        return np.ones(score.shape, dtype=bool)
    edge = np.float32(threshold)
    return score > edge if side == "above" else score < edge


def grid_steps(variance: Float64) -> Float64:
    """Step of the coordinates along components with these variances, (k,); 0 for components without variance."""
    with np.errstate(divide="ignore"):
        return np.where(variance > 0, np.exp2(np.floor(np.log2(np.sqrt(variance)))) * GRID, 0.0)


def on_grid(values: Float64, variance: Float64) -> Float64:
    """Coordinates (..., k) rounded to multiples of :func:`grid_steps`. All colours and scores use these."""
    steps = grid_steps(variance)
    rounded: Float64 = np.rint(values / np.where(steps > 0, steps, 1.0)) * steps
    return rounded


def chosen(values: Float64, components: tuple[int, int, int], *, signed: bool = True) -> Float64:
    """The three components that become colours, (..., k) -> (..., 3), inverted if their number is negative."""
    three = values[..., [abs(c) - 1 for c in components]]
    return three * np.sign(components) if signed else three


def all_patch_values(
    scene: Float64, foreground: NDArray[np.bool_], components: tuple[int, int, int]
) -> Float64:
    """The all-patch picture before scaling, (h, w, 3).

    Foreground patches have their scene components, and background patches the smallest value in this photo.
    """
    values = chosen(scene, components)
    return np.where(foreground[..., np.newaxis], values, values.min())
