"""Comparing networks, layers, weights and feature stores on the same photos.

:mod:`patchprism.lenses.turning` makes the colours agree. This module opens the tokens of one model after the other,
in the same way as every other job. A cell keeps only the colours and components of its tokens.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError, PhotoError
from patchprism.features.store import StoredFeatures
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.figures import origin_of
from patchprism.jobs.fitting import fit
from patchprism.jobs.opened import open_tokens
from patchprism.jobs.run import Run, no_progress
from patchprism.jobs.settings import ERRORS, Settings
from patchprism.jobs.source import read_all, rows_of
from patchprism.jobs.view import all_notes
from patchprism.jobs.viewing import photos_of
from patchprism.lenses.compared import models_of
from patchprism.lenses.turning import MIN_SHARED, CompareCell, align
from patchprism.photos.sources import elsewhere
from patchprism.pictures.outputs import as_png
from patchprism.support import checks
from patchprism.support.version import __version__
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.opened import Opened
    from patchprism.jobs.source import Failure, Source
    from patchprism.lenses.compared import Model
    from patchprism.photos.framing import Framing
    from patchprism.support.folders import Folder
    from patchprism.support.reading import Note


@dataclass(kw_only=True, repr=False)
class Comparison:
    """Models and layers on the same photos, in colours that agree; notebooks display it as a picture.

    Attributes
    ----------
    photos : Photos
    framing : Framing
        The framing of the first model.
    sizes : list of tuple of int
    cells : list of CompareCell
        One cell per model and layer: models in the order given, and the layers of each.
    models : list of dict
        For each model or store: label, name, layers, weights and framing.
    tokens : dict
        The options ``facet``, ``final_norm`` and ``token_norm``.
    failures : list of Failure
    seconds : dict
    notes : list of str
        Notes about the job. Notes about single photos are in ``photos.notes``.
    unasked : list of str
        Buckets and hosts with photos of a store that ``fetch_from`` does not allow to read.
    origins : list of str
        Sentences that say what the colours of each model were made from.
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
    unasked: list[str] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)

    @property
    def layers_a_model(self) -> int:
        """Number of layers per model."""
        return len(self.cells) // len(self.models)

    def __repr__(self) -> str:
        cells = ", ".join(cell.label for cell in self.cells)
        return f"Comparison({counted(len(self.photos), 'photo')}: {cells})"

    def _repr_png_(self) -> bytes:
        """PNG for notebooks: one row per photo, one column per cell."""
        # Imported by name, because that module imports this one.
        figures = importlib.import_module("patchprism.lenses.comparison_figures")
        return as_png(figures.overview(self, turned=True)())

    def all_notes(self) -> list[Note]:
        """Notes about the job and about its photos."""
        return all_notes(self.notes, self.photos)

    def report(self) -> dict[str, Any]:
        """The contents of ``compare.json``, as JSON values."""
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
        report: dict[str, Any] = {
            "model": cell.model,
            "layer": cell.layer if isinstance(cell.layer, int) else list(cell.layer),
            "turned": turn is not None,
        }
        if turn is not None:
            shifted = turn.residual_shifted
            report |= {
                "residual": round(turn.residual, 6),
                "residual_shuffled_patches": round(turn.residual_shuffled, 6),
                "residual_shifted_maps": None if shifted is None else round(shifted, 6),
                "shared_patches": turn.n_shared,
                "clipped": round(cell.clipped, 6),
                "rotation": turn.rotation.round(9).tolist(),
            }
        elif index:
            report["reason"] = f"fewer than {MIN_SHARED} patches are foreground in both cells"
        return report | {"prism": cell.prism.summary()}


@dataclass(kw_only=True)
class _Seen:
    """The results of a model, without its tokens: its cells and the entries of its photos."""

    report: dict[str, Any]
    origin: str
    cells: list[CompareCell]
    rows: list[PhotoRow]
    photos: Photos
    framing: Framing
    failures: list[Failure]
    notes: list[str]
    unasked: list[str]

    def order_like(self, other: _Seen) -> None:
        """Sort the photos of the cells like those of another model, because stores may differ in their order."""
        at = {row.name: i for i, row in enumerate(self.rows)}
        order = [at[row.name] for row in other.rows]
        for cell in self.cells:
            cell.parts = [cell.parts[i] for i in order]
            cell.components = [cell.components[i] for i in order]
            cell.crops = [cell.crops[i] for i in order]


class _OneLayer:
    """One layer of a source whose tokens are the concatenated tokens of several layers."""

    def __init__(self, source: Source, columns: slice) -> None:
        self.source, self.columns, self.n_shards = source, columns, source.n_shards

    def key(self, shard: int) -> str:
        """See :class:`Source`."""
        return f"{self.source.key(shard)} {self.columns.start} {self.columns.stop}"

    def rows(self, shard: int) -> list[PhotoRow]:
        """See :class:`Source`."""
        return self.source.rows(shard)

    def read(self, shard: int) -> Iterator[tuple[PhotoRow, Tokens]]:
        """See :class:`Source`."""
        for row, tokens in self.source.read(shard):
            yield row, np.ascontiguousarray(tokens[..., self.columns])

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        return self.source.photo(row)

    def shown(self, row: PhotoRow, framing: Framing) -> tuple[NDArray[np.uint8] | None, str | None]:
        """See :class:`Source`."""
        return self.source.shown(row, framing)


def compare(
    photos: Any,
    *,
    models: Sequence[str | Backbone] | str | Backbone | None = None,
    weights: Sequence[str | None] | str | None = None,
    fetch_from: Sequence[str] = (),
    layers: Sequence[int] | int | None = None,
    facet: str | None = None,
    final_norm: bool | None = None,
    token_norm: str | None = None,
    tile: int | None = None,
    refine: int | None = None,
    preset: str | None = None,
    size: int | None = None,
    stride: int | None = None,
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
    """Colour photos with several models, weights, layers or feature stores, in colours that agree.

    Parameters
    ----------
    photos : sequence
        As for :func:`~patchprism.visualize`; or feature stores of the same photos, whose photos are matched by name.
        Stores need no network.
    models : sequence of str or Backbone
        Names, or backbones that are already loaded. Only one model and its tokens are in memory at a time. Models of
        the same name are labelled with their weights: ``"dinov2_vits14 (tuned.pth)"``.
    weights : sequence of str or None, optional
        One per model; None means the official weights.
    fetch_from : sequence of str
        As for :func:`~patchprism.visualize`; only for stores.
    layers : sequence of int, optional
        Layers of each model, counted from 0, or from the end with negative numbers; the last by default.
    facet, final_norm, token_norm, tile, refine, preset, size, stride, range, mean, std, threshold
        As for :func:`~patchprism.visualize`; each cell has its own prism with these options.
    foreground, foreground_component, scaling, space, device, dtype, batch_size, errors, progress
        As for :func:`~patchprism.visualize`; each cell has its own prism with these options.
    seed : int
        Random seed of the baseline with shuffled patches.

    Returns
    -------
    Comparison

    Raises
    ------
    PatchPrismError
        One of its subclasses. A photo that fails for one model is left out for all.
    """
    errors = checks.choice("errors", errors, allowed=ERRORS)
    checks.callback("progress", progress)
    settings = Settings(
        layer=None if layers is None else checks.layers("layers", layers),
        facet=facet,
        final_norm=final_norm,
        token_norm=token_norm,
        preset=preset,
        size=size,
        stride=stride,
        tile=tile,
        refine=refine,
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
    )
    found, notes = models_of(photos, models, weights, settings, fetch_from)
    run = Run(engine=open_engine(), tell=progress or no_progress)
    return compare_models(found, run, seed=seed, strict=errors == "raise", notes=notes)


def compare_models(
    models: Sequence[Model],
    run: Run,
    *,
    work: Folder | None = None,
    seed: int = 0,
    strict: bool = False,
    notes: Sequence[str] = (),
) -> Comparison:
    """Compare models: make the cells of all of them, and turn the colours to agree with the first cell.

    Parameters
    ----------
    work : Folder, optional
        Folder for the tokens of each model, shard by shard; by default, the tokens of one model at a time are kept
        in memory.
    seed : int
        Random seed of the baseline with shuffled patches.
    strict : bool
        Whether the first photo that cannot be read raises an error.
    notes : sequence of str
        Notes about the inputs of the job.

    Raises
    ------
    PatchPrismError
        One of its subclasses. A photo that fails for one model is left out for all.
    """
    seed = checks.seed("seed", seed)
    only = None
    stores = [set(each.given.names) for each in models if isinstance(each.given, StoredFeatures)]
    if stores and any(names != stores[0] for names in stores):
        only = _shared(models, stores)
    while True:
        seen = [
            _see(model, run, None if work is None else work.below(f"model-{i + 1}"), only, strict)
            for i, model in enumerate(models)
        ]
        named = [{row.name for row in each.rows} for each in seen]
        if all(names == named[0] for names in named):
            break
        # Only some models could read all photos, so the prisms of the others were fitted on photos to leave out.
        only = _shared(models, named)
    failures = {failure.photo: failure for each in reversed(seen) for failure in each.failures}
    first = seen[0]
    for each in seen[1:]:
        each.order_like(first)
    cells = [cell for each in seen for cell in each.cells]
    with run.watch("turn"):
        align(cells, seed=seed)
    return Comparison(
        photos=first.photos,
        framing=first.framing,
        sizes=[row.size for row in first.rows],
        cells=cells,
        models=[each.report for each in seen],
        origins=[each.origin for each in seen],
        tokens={name: getattr(models[0].settings, name) for name in ("facet", "final_norm", "token_norm")},
        failures=list(failures.values()),
        seconds=run.watch.seconds,
        unasked=first.unasked,
        notes=list(dict.fromkeys([*notes, *(text for each in seen for text in each.notes)])),
    )


def _shared(models: Sequence[Model], named: Sequence[set[str]]) -> frozenset[str]:
    """The photos that all models have."""
    shared = frozenset(named[0].intersection(*named[1:]))
    if not shared:
        firsts = [
            f"{model.label} has {min(names)}" for model, names in zip(models, named, strict=True) if names
        ]
        raise PhotoError("photos", f"no photo could be read for all models: {', '.join(firsts)}")
    return shared


def _see(model: Model, run: Run, work: Folder | None, only: frozenset[str] | None, strict: bool) -> _Seen:
    """Make the cells of one model; its tokens are freed at the end."""
    run = replace(run, backbone=model.backbone)
    opened = open_tokens(
        model.given,
        model.settings,
        run,
        Coloring(fetch_from=model.fetch_from),
        work=work,
        strict=strict,
    )
    opened.only = only
    rows = list(rows_of(opened.source, only))
    cells = []
    for layer, source in _layers(opened):
        try:
            prism = fit(model.settings.prism(), replace(opened, source=source), run)
        except FeaturesError as error:
            raise FeaturesError(f"{model.label}, layer {layer}: {error}") from error
        cell = CompareCell(model=model.label, layer=layer, prism=prism)
        with run.watch("colour and write"):
            cell.add((row.name, tokens, row.crop) for row, tokens in read_all(source, only))
        cells.append(cell)
    photos = photos_of(opened, rows)
    at = {name: i for i, name in enumerate(photos.names)}
    return _Seen(
        report={
            "label": model.label,
            "name": opened.record.name,
            "layers": [cell.layer for cell in cells],
            "weights": opened.weights.report(),
            "framing": opened.framing.to_dict(),
        },
        origin=f"{model.label}: {origin_of(opened, len(rows), sum(row.grid[0] * row.grid[1] for row in rows))}",
        cells=cells,
        rows=rows,
        photos=photos.subset([at[row.name] for row in rows]),
        framing=opened.framing,
        failures=opened.failures,
        notes=[note.text for note in opened.notes if not note.name],
        unasked=[] if opened.places is None else elsewhere((row.name for row in rows), opened.places),
    )


def _layers(opened: Opened) -> Iterator[tuple[int | tuple[int, ...], Source]]:
    """The layers of a model, counted from 0, and the tokens of each."""
    chosen, depth = opened.settings["layer"], opened.record.depth
    if isinstance(chosen, int):
        yield chosen % depth, opened.source
        return
    layers = tuple(layer % depth for layer in chosen)
    if opened.load is None:  # a store does not record the width of each layer
        yield layers, opened.source
        return
    stop = 0
    for layer, width in zip(
        layers, layer_widths(opened.load(), layers, opened.settings["facet"]), strict=True
    ):
        stop, start = stop + width, stop
        yield layer, _OneLayer(opened.source, slice(start, stop))


def layer_widths(backbone: Backbone, layers: Sequence[int], facet: str) -> list[int]:
    """Widths of a network's layers, which differ in convolutional networks, measured on a blank image."""
    import torch

    side = 8 * backbone.record.patch_size
    tokens = backbone.layer_tokens(torch.zeros(1, 3, side, side), layers, facet=facet)
    return [each.shape[-1] for each in tokens]
