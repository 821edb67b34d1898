"""Colours that compare: several networks or layers on the same photos, turned so that a part keeps its colour.

Each cell (a model and a layer) has its own prism, so its colours are its own: a component's sign, and the order
of components that explain about the same, are arbitrary. To compare, a cell's three components are whitened by
their deviations over its foreground, taken on the patches that are foreground in both cells, resampled to the
first cell's grid, and turned by the rotation (or reflection) that brings them nearest to the first cell's:
Schönemann, "A generalized solution of the orthogonal Procrustes problem" (1966). Nothing is stretched: after
turning, distances between patches are what they were. The result is coloured by the first cell's ranges, so that
one colour means one place in the common space.

Turning makes any two cells agree somewhat. How much is left, and how much would be left without any likeness,
is reported beside every turned cell.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError, OptionError, PhotoError
from patchprism.features.extraction import Photos, TokenOptions, extract, photo_names
from patchprism.features.patch_features import PatchFeatures
from patchprism.jobs.source import Failure
from patchprism.jobs.view import all_notes
from patchprism.pictures.outputs import as_png
from patchprism.support import checks
from patchprism.support.reading import Note, reading
from patchprism.support.surroundings import own_settings
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.photos.framing import Framing
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism

    Float64 = NDArray[np.float64]
    Crop = tuple[float, float, float, float]

# With fewer shared patches three components cannot be turned in a way that means anything.
MIN_SHARED = 8
SHUFFLES = 20


@dataclass(frozen=True)
class Turn:
    """How one set of points is turned to agree with another: ``(points - center) @ rotation + target``.

    Attributes
    ----------
    rotation : ndarray, shape (3, 3), float64
        Orthogonal; its determinant is -1 where a reflection is needed.
    center, target : ndarray, shape (3,), float64
        Means of the two sets.
    residual : float
        In [0, 1]: the sum of squared distances that is left, as a share of the two sets' own sums of squares.
        0: the same up to the turn; 1: nothing in common.
    residual_shuffled : float
        The same after the same fit to patches in random order: what agreement by force alone gets.
    residual_shifted : float or None
        The same with each photo's map shifted by half its height and width, round the edges: smooth maps agree
        by chance more than shuffled ones do. None where too few patches are shared then.
    n_shared : int
        Patches that took part.
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
    """The orthogonal matrix that turns centred points nearest to a centred target, and the residual.

    Parameters
    ----------
    points, target : ndarray, shape (n, 3)

    Returns
    -------
    rotation : ndarray, shape (3, 3)
        ``(points - mean) @ rotation`` is nearest to ``target - mean``, in least squares.
    residual : float
        In [0, 1], as in `Turn`; 1 where a set has no spread at all.
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
    layer : int
    prism : Prism
        Fitted on this cell's features alone.
    parts : list of PhotoColors
    components : list of ndarray, each (h, w, k), float64
        Coordinates of all patches along the object PCA's components.
    crops : list of tuple of float
    turn : Turn or None
        None for the first cell, and where too few patches are shared.
    turned : list of ndarray, each (h, w, 3), float32
        Colours after turning; those of ``parts`` where nothing was turned.
    clipped : float
        Share of the foreground's patches whose turned colours leave the first cell's ranges, and are cut off.
    """

    model: str
    layer: int
    prism: Prism
    parts: list[PhotoColors]
    components: list[Float64]
    crops: list[Crop]
    turn: Turn | None = None
    turned: list[NDArray[np.float32]] = field(default_factory=list)
    clipped: float = 0.0

    @property
    def label(self) -> str:
        """What to call it in figures."""
        return f"{self.model}, layer {self.layer}"

    def __repr__(self) -> str:
        return f"CompareCell({self.label}, {counted(len(self.parts), 'photo')})"

    def whitened(self, components: Float64) -> Float64:
        """The three components that make colours, (..., k) -> (..., 3), with deviation 1 over the foreground."""
        deviation = np.sqrt(self.prism.object_variance_[self._chosen])
        white: Float64 = components[..., self._chosen] / np.where(deviation > 0, deviation, np.inf)
        return white

    def colors_of_whitened(self, points: Float64) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Colours of whitened points by this cell's ranges, (n, 3), and which points leave them, (n,)."""
        components = np.zeros((len(points), len(self.prism.object_variance_)))
        components[:, self._chosen] = points * np.sqrt(self.prism.object_variance_[self._chosen])
        low, high = self.prism.object_range_[:, self._chosen]
        slack = 1e-9 * (high - low)
        taken = components[:, self._chosen]
        outside = ((taken < low - slack) | (taken > high + slack)).any(axis=1)
        if self.prism.scaling == "sigmoid":
            outside[:] = False
        return self.prism.colors_of(components), outside

    @property
    def _chosen(self) -> list[int]:
        return [abs(c) - 1 for c in self.prism.components]


def make_cell(
    model: str, layer: int, features: PatchFeatures, crops: Sequence[Crop], prism: Prism
) -> CompareCell:
    """A cell from features: the prism is fitted on them."""
    prism.fit(features)
    pairs = list(zip(features.names, features, strict=True))
    return CompareCell(
        model=model,
        layer=layer,
        prism=prism,
        parts=[prism.split(tokens, name=name) for name, tokens in pairs],
        components=[
            prism.object_components(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:2], -1)
            for _, tokens in pairs
        ],
        crops=list(crops),
    )


def align(cells: Sequence[CompareCell], *, seed: int = 0) -> None:
    """Turn every cell but the first to agree with the first; sets ``turn``, ``turned`` and ``clipped``.

    Parameters
    ----------
    cells : sequence of CompareCell
        Of the same photos in the same order; their grids and crops may differ.
    seed : int
        For the shuffled baseline.
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
    """How a cell is turned to agree with the first; None where too few patches are shared."""
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
    """Values at fractional indices along an axis; beyond the ends the end's value."""
    # Grids that agree give whole numbers but for rounding, and must give the very same values.
    places = np.where(np.abs(places - np.rint(places)) < 1e-9, np.rint(places), places)
    places = np.clip(places, 0, values.shape[axis] - 1)
    before = np.floor(places).astype(np.intp)
    after = np.minimum(before + 1, values.shape[axis] - 1)
    share = (places - before).reshape(-1, *([1] * (values.ndim - 1 - axis)))
    result: Float64 = values.take(before, axis=axis) * (1 - share) + values.take(after, axis=axis) * share
    return result


# -- from photos ---------------------------------------------------------------------------------------------


@dataclass(kw_only=True, repr=False)
class Comparison:
    """Cells of the same photos, turned to agree with the first; a notebook shows them.

    Attributes
    ----------
    photos : Photos
    framing : Framing
        The first model's.
    sizes : list of tuple of int
    cells : list of CompareCell
        Models in the order given, and of each its layers.
    models : list of dict
        Name and origin of the weights of each model.
    tokens : dict
        Facet and norms.
    failures : list of Failure
    seconds : dict
    notes : list of str
        What folders left out, and the like; of single photos in ``photos.notes``.
    """

    photos: Photos
    framing: Framing
    sizes: list[tuple[int, int]]
    cells: list[CompareCell]
    models: list[dict[str, Any]]
    tokens: dict[str, Any]
    failures: list[Failure]
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)

    @property
    def layers_a_model(self) -> int:
        """How many layers of each model there are."""
        return len(self.cells) // len(self.models)

    def __repr__(self) -> str:
        cells = ", ".join(cell.label for cell in self.cells)
        return f"Comparison({counted(len(self.photos), 'photo')}: {cells})"

    def _repr_png_(self) -> bytes:
        """What a notebook shows: a row per photo, a column per cell."""
        # By its name: that module draws comparisons, so it imports this one.
        figures = importlib.import_module("patchprism.lenses.comparison_figures")
        return as_png(figures.overview(self, turned=True))

    def all_notes(self) -> list[Note]:
        """What is to be said of the job and of its photos."""
        return all_notes(self.notes, self.photos)

    def report(self) -> dict[str, Any]:
        """JSON values: what ``compare.json`` holds."""
        from patchprism.support.version import __version__

        return {
            "version": 1,
            "patchprism": __version__,
            "models": self.models,
            "tokens": self.tokens,
            "reference": self.cells[0].label,
            "cells": [self._cell_report(i) for i in range(len(self.cells))],
            "photos": [
                {"photo": name, "size": list(size)}
                | ({"notes": list(self.photos.notes[i])} if i in self.photos.notes else {})
                for i, (name, size) in enumerate(zip(self.photos.names, self.sizes, strict=True))
            ],
            "notes": self.notes,
            "seconds": {stage: round(seconds, 4) for stage, seconds in self.seconds.items()},
            "failures": [{"photo": failure.photo, "reason": failure.reason} for failure in self.failures],
        }

    def _cell_report(self, index: int) -> dict[str, Any]:
        cell = self.cells[index]
        turn = cell.turn
        said: dict[str, Any] = {"model": cell.model, "layer": cell.layer, "turned": turn is not None}
        if turn is not None:
            shifted = turn.residual_shifted
            said |= {
                "residual": round(turn.residual, 6),
                "residual_shuffled_patches": round(turn.residual_shuffled, 6),
                "residual_shifted_maps": None if shifted is None else round(shifted, 6),
                "shared_patches": turn.n_shared,
                "clipped": round(cell.clipped, 6),
                "rotation": turn.rotation.round(9).tolist(),
            }
        elif index:
            said["reason"] = f"fewer than {MIN_SHARED} patches are foreground in both cells"
        return said | {"prism": cell.prism.summary()}


class _Stacked:
    """Several layers of a backbone side by side in one token, so that one forward pass gives them all."""

    def __init__(self, backbone: Backbone, layers: Sequence[int], options: TokenOptions) -> None:
        self.backbone, self.layers, self.options = backbone, list(layers), options
        self.record, self.widths = backbone.record, list[int]()
        self.device, self.dtype = backbone.device, backbone.dtype

    def patch_tokens(self, pixels: torch.Tensor, **_: Any) -> torch.Tensor:
        """(B, 3, H, W) -> (B, h, w, sum of widths)."""
        import torch
        from torch.nn.functional import normalize

        chosen = self.options
        with own_settings():
            parts = self.backbone.layer_tokens(
                pixels, self.layers, facet=chosen.facet, norm=chosen.final_norm
            )
            if chosen.token_norm == "l2":
                parts = [normalize(part, dim=-1) for part in parts]
            self.widths = [part.shape[-1] for part in parts]
            return torch.cat(parts, dim=-1)


def compare(
    photos: Sequence[Any],
    *,
    models: Sequence[str | Backbone],
    layers: Sequence[int] = (-1,),
    facet: str = "token",
    final_norm: bool = True,
    token_norm: str = "none",
    preset: str | None = None,
    size: int | None = None,
    range: tuple[float, float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threshold: float | str | None = None,
    foreground: str | None = None,
    foreground_component: int | None = None,
    scaling: str | None = None,
    space: str | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    errors: str = "raise",
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Comparison:
    """Colour photos by several models and layers, turned to agree with the first.

    Parameters
    ----------
    photos : sequence
        As for :func:`~patchprism.visualize`.
    models : sequence of str or Backbone
        Names, or backbones that are loaded already. One is held in memory at a time.
    layers : sequence of int
        Layers of each model, counted from 0, or from the end with negative numbers.
    facet, final_norm, token_norm
        See :class:`~patchprism.features.extraction.TokenOptions`.
    preset, size, range, mean, std, threshold, foreground, scaling, space, device, dtype, batch_size, errors
    progress
        As for :func:`~patchprism.visualize`; each cell has its own prism with these options.
    seed : int
        For the shuffled baseline.

    Returns
    -------
    Comparison

    Raises
    ------
    PatchPrismError
        One of its children; a photo is done by all models or by none.
    """
    from patchprism.backbones import find_record
    from patchprism.jobs.inputs import list_photos, several
    from patchprism.jobs.network import load_network
    from patchprism.jobs.settings import ERRORS, Settings, Stopwatch

    models, layers = _models(models), _layers(layers)
    if len(models) * len(layers) < 2:
        raise OptionError("compare needs at least two cells: several models, or several layers")
    errors, seed = checks.choice("errors", errors, allowed=ERRORS), checks.seed("seed", seed)
    checks.callback("progress", progress)
    settings = Settings(
        preset=preset,
        size=size,
        range=range,
        mean=mean,
        std=std,
        threshold=threshold,
        foreground=foreground,
        foreground_component=foreground_component,
        scaling=scaling,
        space=space,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
    ).resolved()
    settings.prism()
    options = TokenOptions(facet=facet, final_norm=final_norm, token_norm=token_norm)
    for model in models:  # refused before the first one is loaded
        settings.framing(find_record(model) if isinstance(model, str) else model.record)
    tell, watch = progress or (lambda *_: None), Stopwatch()
    with reading() as heard:
        sources = list_photos(several(photos))
    job = Photos(sources, photo_names(sources), range=settings.range)
    failures: dict[int, PhotoError] = {}
    found: list[dict[int, Any]] = []
    framings, stacks = [], []
    for model in models:
        if isinstance(model, str):
            with watch("load models"):
                backbone = load_network(replace(settings, model=model), tell)
        else:
            backbone = model
        for layer in layers:
            backbone.layer_index(layer)
        framings.append(settings.framing(backbone.record))
        stack: Any = _Stacked(backbone, layers, options)
        report = failures.__setitem__ if errors == "report" else None
        with watch("read photos and run networks"):
            done = {
                each.index: each
                for each in extract(job, stack, framings[-1], batch_size=settings.batch_size, failed=report)
            }
        found.append(done)
        stacks.append((stack, [backbone.layer_index(layer) for layer in layers], backbone.weights))
        tell("photos", len(found) * len(job), len(models) * len(job))
    order = sorted(set(found[0]).intersection(*found[1:]))
    if not order:
        index = min(failures)
        raise PhotoError(job.names[index], f"{failures[index].reason} (no photo could be read by all models)")
    cells = []
    with watch("fit prisms"):
        for (stack, indices, _), done in zip(stacks, found, strict=True):
            ends = np.cumsum(stack.widths)[:-1]
            crops = [done[i].crop for i in order]
            per_photo = [np.split(done[i].tokens, ends, axis=-1) for i in order]
            for n, layer in enumerate(indices):
                tokens = PatchFeatures(
                    [np.ascontiguousarray(parts[n]) for parts in per_photo], [job.names[i] for i in order]
                )
                name = stack.record.name
                try:
                    cells.append(make_cell(name, layer, tokens, crops, settings.prism()))
                except FeaturesError as error:
                    raise FeaturesError(f"{name}, layer {layer}: {error}") from error
    with watch("turn"):
        align(cells, seed=seed)
    return Comparison(
        photos=job.subset(order),
        framing=framings[0],
        sizes=[found[0][i].size for i in order],
        cells=cells,
        models=[
            {
                "name": stack.record.name,
                "layers": indices,
                "weights": {"source": weights.source, "sha256": weights.sha256},
                "framing": framing.to_dict(),
            }
            for (stack, indices, weights), framing in zip(stacks, framings, strict=True)
        ],
        tokens={
            "facet": options.facet,
            "final_norm": options.final_norm,
            "token_norm": options.token_norm,
        },
        failures=[Failure(job.names[i], failures[i].reason) for i in sorted(failures)],
        seconds=watch.seconds,
        notes=heard.notes,
    )


def _models(models: Any) -> Sequence[str | Backbone]:
    """Names and backbones, in a sequence or one alone."""
    from patchprism.backbones import Backbone

    if isinstance(models, (str, Backbone)):
        models = [models]
    if not isinstance(models, (list, tuple)) or not models:
        checks.refuse("models", "at least one model, by name or as a backbone", models)
    return [model if isinstance(model, Backbone) else checks.text("models", model) for model in models]


def _layers(layers: Any) -> tuple[int, ...]:
    found = checks.layers("layers", layers)
    return found if isinstance(found, tuple) else (found,)
