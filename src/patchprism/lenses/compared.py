"""The models or feature stores to compare, each with its weights and its label."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.backbones import Backbone, find_record
from patchprism.backbones.choice import choose_model, explain_choice
from patchprism.errors import OptionError
from patchprism.features.store import StoredFeatures, is_store
from patchprism.jobs.inputs import listed_input, several
from patchprism.jobs.opened import resolved_for
from patchprism.support import checks
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Model:
    """A network that runs on photos, or a feature store; it gives one or more cells.

    Attributes
    ----------
    label : str
        Distinguishes this model from the others.
    given : StoredFeatures or list
        The result of :func:`~patchprism.jobs.inputs.open_input`.
    settings : Settings
        Resolved settings.
    backbone : Backbone, optional
        A loaded backbone to use instead of the one in the settings.
    fetch_from : sequence of str
        As for :func:`~patchprism.visualize`.
    """

    label: str
    given: StoredFeatures | list[Any]
    settings: Settings
    backbone: Backbone | None = None
    fetch_from: Sequence[str] = ()


def models_of(
    photos: Any, models: Any, weights: Any, settings: Settings, fetch_from: Sequence[str] = ()
) -> tuple[list[Model], list[str]]:
    """The models to compare, checked before anything is loaded, and notes about the inputs.

    Parameters
    ----------
    photos, models, weights, fetch_from
        As for :func:`~patchprism.compare`.
    settings : Settings
        The settings that all models share.
    """
    given = several(photos)
    stores = [each for each in given if isinstance(each, (str, os.PathLike)) and is_store(each)]
    if stores:
        found = _stores(given, stores, models, weights, settings)
        return [replace(each, fetch_from=fetch_from) for each in found], []
    if fetch_from:
        raise OptionError("fetch_from is only for feature stores; photos given by address are read anyway")
    n_layers = len(settings.layer) if isinstance(settings.layer, tuple) else 1
    said = ""
    if models is None and n_layers > 1:  # the layers of the usual network
        models = [choose_model()]
        said = explain_choice(models[0])
    if models is None or isinstance(models, (str, Backbone)):
        models = [] if models is None else [models]
    if not isinstance(models, (list, tuple)) or not models:
        checks.refuse("models", "at least one model, by name or as a backbone", models or [])
    models = [each if isinstance(each, Backbone) else checks.text("models", each) for each in models]
    weights = [weights] if isinstance(weights, (str, os.PathLike)) else weights
    if not (weights is None or isinstance(weights, (list, tuple))):
        checks.refuse("weights", "one path per model, or None", weights)
    files = [None] * len(models) if weights is None else list(weights)
    if len(files) != len(models):
        raise OptionError(
            f"weights must be one per model, in the same order: got {len(files)} for "
            f"{counted(len(models), 'model')}",
            option="weights",
        )
    if len(models) * n_layers < 2:
        raise OptionError("compare needs at least two models or two layers, for example layers=(4, 8)")
    chosen = []
    for model, file in zip(models, files, strict=True):
        if isinstance(model, Backbone) and file is not None:
            raise OptionError("weights is only for models given by name; a backbone has its own")
        dtype = str(model.dtype).removeprefix("torch.") if isinstance(model, Backbone) else settings.dtype
        name = model.record.name if isinstance(model, Backbone) else model
        its = replace(settings, model=name, weights=file, dtype=dtype)
        its = its.resolved(record=model.record if isinstance(model, Backbone) else None)
        its.prism()
        its.framing(model.record if isinstance(model, Backbone) else find_record(model))
        chosen.append((its, model if isinstance(model, Backbone) else None))
    listed, notes = listed_input(given)
    labels = _labels(
        [str(its.model) for its, _ in chosen],
        [backbone.weights.source if backbone else its.weights or "default" for its, backbone in chosen],
    )
    return [
        Model(label=label, given=listed, settings=its, backbone=backbone)
        for label, (its, backbone) in zip(labels, chosen, strict=True)
    ], [*([said] if said else []), *(note.text for note in notes)]


def _stores(
    given: Sequence[Any], stores: Sequence[Any], models: Any, weights: Any, settings: Settings
) -> list[Model]:
    if len(stores) < len(given):
        raise OptionError(
            f"feature stores can only be compared with each other, got {os.fspath(stores[0])} together "
            "with photos"
        )
    if models:
        raise OptionError("models cannot be used with feature stores, which already hold features")
    if weights:
        raise OptionError("weights cannot be used with a feature store, which already holds features")
    if len(stores) < 2:
        raise OptionError("compare needs at least two feature stores of the same photos")
    opened = [StoredFeatures(each) for each in stores]
    resolved = [resolved_for(settings, each) for each in opened]
    for its in resolved:
        its.prism()
    labels = _labels([str(its.model) for its in resolved], [each.path for each in opened])
    return [
        Model(label=label, given=each, settings=its)
        for label, each, its in zip(labels, opened, resolved, strict=True)
    ]


def _labels(names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Different labels for the models: models of the same name get the file of their weights, or a number."""
    short = [Path(source).name or source for source in sources]

    def with_details(details: Sequence[str]) -> list[str]:
        return [
            name if names.count(name) == 1 else f"{name} ({detail})"
            for name, detail in zip(names, details, strict=True)
        ]

    labels = with_details(short)
    if len(set(labels)) < len(labels):
        labels = with_details(sources)
    return [
        label if labels.count(label) == 1 else f"{label} #{labels[:i].count(label) + 1}"
        for i, label in enumerate(labels)
    ]
