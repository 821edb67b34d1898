"""Turn the colours of several networks or layers on the same photos, so that a part has the same colour in all.

Each cell (a model and a layer) has its own prism, so its colours cannot be compared with those of another cell: the
sign of a component, and the order of components that explain about the same variance, are arbitrary. To make them
comparable, a cell's three components are whitened by their deviations over its foreground, resampled to the first
cell's grid, and turned by the rotation (or reflection) that brings them nearest to the first cell's components on
the patches that are foreground in both: Schönemann, "A generalized solution of the orthogonal Procrustes problem"
(1966). Turning does not change distances between patches. The ranges of the first cell then give the colours, so
that the same colour means the same point in the common space.

Turning makes any two cells agree to some degree. Every turned cell therefore has a residual, and beside it the
residuals of the same fit to unrelated data.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism

    Float64 = NDArray[np.float64]
    Crop = tuple[float, float, float, float]

# With fewer shared patches, a rotation of three components has no meaning.
MIN_SHARED = 8
SHUFFLES = 20


@dataclass(frozen=True)
class Turn:
    """How one set of points is turned to agree with another: ``(points - center) @ rotation + target``.

    Attributes
    ----------
    rotation : ndarray, shape (3, 3), float64
        Orthogonal; its determinant is -1 if a reflection is needed.
    center, target : ndarray, shape (3,), float64
        Means of the two sets.
    residual : float
        In [0, 1]: the sum of squared distances after turning, as a share of the sums of squares of both sets.
        0 means identical up to the turn, 1 means nothing in common.
    residual_shuffled : float
        The residual of the same fit to patches in random order.
    residual_shifted : float or None
        The residual of the same fit with each photo's map shifted cyclically by half its height and width, because
        smooth maps agree by chance more than shuffled ones. None if too few patches are shared after the shift.
    n_shared : int
        Number of patches that the rotation was fitted on.
    """

    rotation: Float64
    center: Float64
    target: Float64
    residual: float
    residual_shuffled: float
    residual_shifted: float | None
    n_shared: int

    def apply(self, points: Float64) -> Float64:
        """Points, (n, 3), turned."""
        turned: Float64 = (points - self.center) @ self.rotation + self.target
        return turned


def fit_rotation(points: Float64, target: Float64) -> tuple[Float64, float]:
    """The orthogonal matrix that brings centred points nearest to a centred target, and the residual.

    Parameters
    ----------
    points, target : ndarray, shape (n, 3)

    Returns
    -------
    rotation : ndarray, shape (3, 3)
        ``(points - mean) @ rotation`` is nearest to ``target - mean``, in least squares.
    residual : float
        In [0, 1], as in `Turn`; 1 if all points of a set are equal.
    """
    first, second = points - points.mean(axis=0), target - target.mean(axis=0)
    left, singular, right = np.linalg.svd(first.T @ second)
    size = float((first**2).sum() + (second**2).sum())
    if not (first**2).sum() or not (second**2).sum():
        return left @ right, 1.0
    return left @ right, float(np.clip((size - 2 * singular.sum()) / size, 0.0, 1.0))


@dataclass(kw_only=True, repr=False)
class CompareCell:
    """One network's, or one layer's, view of the photos.

    Attributes
    ----------
    model : str
        Label of the model, see :func:`~patchprism.lenses.comparison.compare`.
    layer : int or tuple of int
        Several if a feature store contains the concatenated tokens of several layers.
    prism : Prism
        Fitted only on the features of this cell.
    components : list of ndarray, each (h, w, k), float64
        Coordinates of all patches along the object PCA's components.
    turn : Turn or None
        None for the first cell, and if too few patches are shared.
    turned : list of ndarray, each (h, w, 3), float32
        Colours after turning; those of ``parts`` if nothing was turned.
    clipped : float
        Share of the foreground patches whose turned colours exceed the ranges of the first cell and are clipped.
    """

    model: str
    layer: int | tuple[int, ...]
    prism: Prism
    parts: list[PhotoColors] = field(default_factory=list)
    components: list[Float64] = field(default_factory=list)
    crops: list[Crop] = field(default_factory=list)
    turn: Turn | None = None
    turned: list[NDArray[np.float32]] = field(default_factory=list)
    clipped: float = 0.0

    @property
    def label(self) -> str:
        """Name in figures."""
        return f"{self.model}, {self.layer_label}"

    @property
    def layer_label(self) -> str:
        """The layer, or the layers, in words."""
        if isinstance(self.layer, int):
            return f"layer {self.layer}"
        return f"layers {', '.join(map(str, self.layer))}"

    def __repr__(self) -> str:
        return f"CompareCell({self.label}, {counted(len(self.parts), 'photo')})"

    def add(self, photos: Iterable[tuple[str, Tokens, Crop]]) -> None:
        """Colour photos, given by name, tokens and crop; the tokens are not kept."""
        for name, tokens, crop in photos:
            self.parts.append(self.prism.split(tokens, name=name))
            flat = self.prism.object_components(tokens.reshape(-1, tokens.shape[-1]))
            self.components.append(flat.reshape(*tokens.shape[:2], -1))
            self.crops.append(crop)

    def whitened(self, components: Float64) -> Float64:
        """The three components that make colours, (..., k) -> (..., 3), with deviation 1 over the foreground."""
        deviation = np.sqrt(self.prism.object_variance_[self._chosen])
        white: Float64 = components[..., self._chosen] / np.where(deviation > 0, deviation, np.inf)
        return white

    def colors_of_whitened(self, points: Float64) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Colours of whitened points, (n, 3), and which points are outside this cell's ranges, (n,)."""
        components = np.zeros((len(points), len(self.prism.object_variance_)))
        components[:, self._chosen] = points * np.sqrt(self.prism.object_variance_[self._chosen])
        low, high = self.prism.object_range_[:, self._chosen]
        slack = 1e-9 * (high - low)
        chosen = components[:, self._chosen]
        outside = ((chosen < low - slack) | (chosen > high + slack)).any(axis=1)
        if self.prism.scaling == "sigmoid":
            outside[:] = False
        return self.prism.colors_of(components), outside

    @property
    def _chosen(self) -> list[int]:
        return [abs(c) - 1 for c in self.prism.components]


def align(cells: Sequence[CompareCell], *, seed: int = 0) -> None:
    """Turn every cell but the first to agree with the first; sets ``turn``, ``turned`` and ``clipped``.

    Parameters
    ----------
    cells : sequence of CompareCell
        Cells with the same photos in the same order; their grids and crops can differ.
    seed : int
        Random seed of the baseline with shuffled patches.
    """
    first = cells[0]
    first.turned = [part.rgb for part in first.parts]
    for cell in cells[1:]:
        cell.turn = fit_turn(cell, first, seed=seed)
        if cell.turn is None:
            cell.turned = [part.rgb for part in cell.parts]
            continue
        outside = []
        cell.turned = []
        for part, components in zip(cell.parts, cell.components, strict=True):
            rgb = np.zeros((*part.foreground.shape, 3), np.float32)
            points = cell.turn.apply(cell.whitened(components[part.foreground]))
            rgb[part.foreground], beyond = first.colors_of_whitened(points)
            outside.append(beyond)
            cell.turned.append(rgb)
        cell.clipped = float(np.concatenate(outside).mean())


def fit_turn(cell: CompareCell, first: CompareCell, *, seed: int = 0) -> Turn | None:
    """Fit the turn that makes a cell agree with the first; None if too few patches are shared."""
    aligned = [_on_grid_of_first(cell, first, i) for i in range(len(cell.parts))]
    target = [first.whitened(components) for components in first.components]
    masks = [part.foreground for part in first.parts]

    def gather(shift: bool) -> tuple[Float64, Float64]:
        ours, theirs = [], []
        for (points, found), wanted, mask in zip(aligned, target, masks, strict=True):
            if shift:
                by = (mask.shape[0] // 2, mask.shape[1] // 2)
                points, found = np.roll(points, by, (0, 1)), np.roll(found, by, (0, 1))
            both = found & mask
            ours.append(points[both])
            theirs.append(wanted[both])
        return np.concatenate(ours), np.concatenate(theirs)

    points, wanted = gather(shift=False)
    if len(points) < MIN_SHARED:
        return None
    rotation, residual = fit_rotation(points, wanted)
    rng = np.random.default_rng(seed)
    shuffled = [fit_rotation(rng.permutation(points), wanted)[1] for _ in range(SHUFFLES)]
    moved = gather(shift=True)
    return Turn(
        rotation,
        points.mean(axis=0),
        wanted.mean(axis=0),
        residual,
        float(np.mean(shuffled)),
        fit_rotation(*moved)[1] if len(moved[0]) >= MIN_SHARED else None,
        len(points),
    )


def _on_grid_of_first(cell: CompareCell, first: CompareCell, photo: int) -> tuple[Float64, NDArray[np.bool_]]:
    """A cell's whitened components and foreground at the centres of the first cell's patches."""
    values, mask = cell.whitened(cell.components[photo]), cell.parts[photo].foreground
    (left, top, right, bottom), crop = cell.crops[photo], first.crops[photo]
    h, w = first.parts[photo].foreground.shape
    y = crop[1] + (np.arange(h) + 0.5) * (crop[3] - crop[1]) / h
    x = crop[0] + (np.arange(w) + 0.5) * (crop[2] - crop[0]) / w
    row = (y - top) / (bottom - top) * mask.shape[0] - 0.5
    column = (x - left) / (right - left) * mask.shape[1] - 0.5
    inside = np.outer((y > top) & (y < bottom), (x > left) & (x < right))
    nearest = mask[
        np.clip(np.rint(row), 0, mask.shape[0] - 1).astype(np.intp)[:, None],
        np.clip(np.rint(column), 0, mask.shape[1] - 1).astype(np.intp),
    ]
    return _interpolate(_interpolate(values, row, 0), column, 1), nearest & inside


def _interpolate(values: Float64, places: Float64, axis: int) -> Float64:
    """Linear interpolation at fractional indices along an axis; indices beyond the ends get the value of the end."""
    # If the grids agree, these are integers except for rounding; the values must then be exactly the same.
    places = np.where(np.abs(places - np.rint(places)) < 1e-9, np.rint(places), places)
    places = np.clip(places, 0, values.shape[axis] - 1)
    before = np.floor(places).astype(np.intp)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = (places - before).reshape(-1, *([1] * (values.ndim - 1 - axis)))
    result: Float64 = values.take(before, axis=axis) * (1 - share) + values.take(after, axis=axis) * share
    return result
