"""Visualize features that the user provides: `patchprism.visualize(features=...)`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.backbones import BackboneRecord, WeightsOrigin
from patchprism.errors import FeaturesError, OptionError, PhotoError
from patchprism.features.extraction import Photos, photo_names
from patchprism.features.patch_features import PatchFeatures
from patchprism.features.records import record_from
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.engines import open_engine
from patchprism.jobs.fitting import fit
from patchprism.jobs.inputs import list_photos, several, store_among
from patchprism.jobs.opened import Opened
from patchprism.jobs.report import Colored
from patchprism.jobs.run import Run
from patchprism.jobs.settings import TOKEN_DEFAULTS
from patchprism.jobs.source import Failure, MemorySource
from patchprism.jobs.teaching import check_given, teach
from patchprism.jobs.viewing import view_of
from patchprism.photos.framing import MAX_SIZE, Framing
from patchprism.photos.sources import GONE_GREY
from patchprism.support.reading import Note, reading
from patchprism.support.words import none_could
from patchprism.views.visualization import Visualization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.settings import Settings

OWN = "own features"
# Patch size if neither photos nor a framing are given: that of DINOv2.
PATCH = 14
# Settings for the way from photos to tokens.
_OF_NETWORK = ("weights", "size", "stride", "mean", "std", *TOKEN_DEFAULTS, "dtype", "batch_size")


def check_own(settings: Settings, **others: Any) -> None:
    """Refuse options for the way from photos to tokens, because the tokens are already given."""
    given = others | {name: getattr(settings, name) for name in _OF_NETWORK}
    given["device"] = None if settings.device == "auto" else settings.device
    for name, value in given.items():
        if value is not None:
            raise OptionError(
                f"{name} is for photos that go through a network, not for features", option=name
            )


def view_features(
    features: Any,
    photos: Any,
    *,
    settings: Settings,
    framing: Framing | None,
    coloring: Coloring,
    errors: str,
) -> Visualization:
    """Colour features that the user provides.

    Parameters
    ----------
    features, photos, framing, errors
        As in :func:`~patchprism.visualize`.
    settings : Settings
        Options of the fit and of the shown foreground, and the name of the model.

    Raises
    ------
    FeaturesError
        If the features cannot be used, or do not fit the photos.
    """
    label = settings.model
    settings = coloring.resolved(settings)
    prism = coloring.unfitted(settings)
    with reading() as heard:
        sources = None if photos is None else _sources(photos)
    found = own_features(features, None if sources is None else photo_names(sources))
    framing = framing or _framing_of(found)
    record, weights = _record_of(found, label, framing)
    if found.origin and not label:
        coloring.check(found.origin)
    origin = {"model": label} if label else found.origin
    used = {"model": record.name, "size": framing.size, "device": None, "dtype": origin.get("dtype")}
    used |= {name: origin.get(name) for name in TOKEN_DEFAULTS} | {"engine": "local"}
    with open_engine() as engine:
        run = Run(engine=engine)
        failures = [Failure(**each) for each in found.failures]
        with run.watch("read photos"):
            if sources is None:
                source = _without_photos(found, framing)
            else:
                listed = Photos(sources, found.names, range=settings.range)
                source, lost = _with_photos(listed, found, framing, errors)
                failures += lost
        opened = Opened(
            source=source,
            origin=origin,
            failures=failures,
            framing=framing,
            record=record,
            weights=weights,
            settings=asdict(settings) | used | coloring.report_entries(),
        )
        if coloring.prism is None:
            check_given(coloring.masks, found.names)
            teach(prism, opened, coloring.masks, run)
            fit(prism, opened, run)
        colored = Colored(opened=opened, prism=prism, fitted_here=coloring.prism is None)
        with run.watch("colour and write"):
            notes = [Note("", text) for text in heard.notes]
            return Visualization.of(view_of(colored, notes, run.watch.seconds))


def own_features(features: Any, names: Sequence[str] | None) -> PatchFeatures:
    """Features as :class:`PatchFeatures`, named after their photos if there are photos.

    Raises
    ------
    FeaturesError
        If they are not features of these photos. If their axes seem to be in another order, the message says how to
        correct it.
    """
    if not isinstance(features, PatchFeatures):
        _check_axes(features)
        if names is None or not hasattr(features, "__iter__"):
            return PatchFeatures(features)
        features = list(features)
    if isinstance(features, PatchFeatures) and names is None:
        return features
    assert names is not None
    if len(features) != len(names):
        raise FeaturesError(
            f"features and photos must have the same length, got {len(features)} and {len(names)}"
        )
    named = PatchFeatures(list(features), names)
    return _same(named, features) if isinstance(features, PatchFeatures) else named


def _check_axes(features: Any) -> None:
    shape = _shape(features)
    if len(shape) == 3:
        raise FeaturesError(
            f"features must be (N, h, w, D), or a list of (h, w, D), got {shape}: give one photo as [features], and "
            "tokens in a row, (N, h * w, D), as features.reshape(N, h, w, D)"
        )
    if len(shape) == 4 and _channels_first(shape[1:]):
        order = "permute" if type(features).__module__.partition(".")[0] == "torch" else "transpose"
        raise FeaturesError(
            f"features must be (N, h, w, D), got {shape}, which looks like (N, D, h, w): give "
            f"features.{order}(0, 2, 3, 1)"
        )
    if not shape and isinstance(features, (list, tuple)) and features:
        shapes = [_shape(each) for each in features]
        if all(len(each) == 3 and each[0] == shapes[0][0] and _channels_first(each) for each in shapes):
            order = "permute" if type(features[0]).__module__.partition(".")[0] == "torch" else "transpose"
            raise FeaturesError(
                f"features must be (h, w, D) each, got {shapes[0]}, which looks like (D, h, w): give "
                f"[each.{order}(1, 2, 0) for each in features]"
            )


def _shape(array: Any) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    return tuple(map(int, shape)) if isinstance(shape, tuple) else ()


def _channels_first(shape: tuple[int, ...]) -> bool:
    # Tokens usually have a width of at least 64. Grids with at least 64 rows that are three times as high as wide are
    # rare.
    return shape[0] >= 64 and shape[0] >= 3 * max(shape[1:])


def _same(features: PatchFeatures, like: PatchFeatures) -> PatchFeatures:
    features.origin, features.model, features.failures = like.origin, like.model, like.failures
    return features


def _framing_of(features: PatchFeatures) -> Framing:
    """The framing that features were made with; if unknown, the default framing that results in their grids."""
    if "framing" in features.origin:
        return Framing.from_dict(features.origin["framing"])
    short = max(min(grid) for grid in features.grids)
    patch = max(1, min(PATCH, MAX_SIZE // max(max(grid) for grid in features.grids)))
    return Framing(size=short * patch, patch_size=patch, mean=(0, 0, 0), std=(1, 1, 1))


def _record_of(
    features: PatchFeatures, label: str | None, framing: Framing
) -> tuple[BackboneRecord, WeightsOrigin]:
    if features.model and not label:
        origin = features.origin
        return record_from(features.model), WeightsOrigin(
            source=str(origin.get("weights_source", "")),
            sha256=str(origin.get("weights_sha256") or ""),
            taken_from=str(origin.get("weights_taken_from") or ""),
        )
    record = BackboneRecord(
        name=label or OWN,
        family="own",
        patch_size=framing.patch_size,
        width=features.width,
        depth=1,
        heads=0,
        prefix_tokens=0,
        mean=framing.mean,
        std=framing.std,
        n_parameters=0,
        licence="",
        source=OWN,
    )
    return record, WeightsOrigin(source=OWN)


def _sources(photos: Any) -> list[Any]:
    photos = several(photos)
    if store_among(photos) is not None:
        raise OptionError("photos: a feature store already contains features; give it without features")
    return list_photos(photos)


def _without_photos(features: PatchFeatures, framing: Framing) -> MemorySource:
    """A source with plain grey instead of photos; each uses one byte of memory, regardless of its size."""
    sizes = [(h * framing.patch_size, w * framing.patch_size) for h, w in features.grids]
    grey = [np.broadcast_to(np.uint8(GONE_GREY), (*size, 3)) for size in sizes]
    rows = [
        PhotoRow(name, grid, size, (0.0, 0.0, float(size[1]), float(size[0])))
        for name, grid, size in zip(features.names, features.grids, sizes, strict=True)
    ]
    return MemorySource(Photos(grey, features.names), rows, list(features))


def _with_photos(
    photos: Photos, features: PatchFeatures, framing: Framing, errors: str
) -> tuple[MemorySource, list[Failure]]:
    """A source of photos and their features; with ``errors="report"``, photos that cannot be read are left out."""
    rows: dict[int, PhotoRow] = {}
    failures = []
    for i, grid in enumerate(features.grids):
        name = photos.names[i]
        try:
            each, (height, width) = photos.frame(i, framing)
        except PhotoError as error:
            if errors == "raise":
                raise
            failures.append(Failure(name, error.reason))
            continue
        if each.grid != grid:
            raise FeaturesError(
                f"{name}: features have {grid[0]} x {grid[1]} patches, but the framing divides this photo of "
                f"{height} x {width} pixels (height x width) into {each.grid[0]} x {each.grid[1]}: give photos "
                "cropped as the network saw them, or the framing that was used"
            )
        rows[i] = PhotoRow(name, grid, (height, width), each.crop, each.plain, photos.content(i))
    if not rows:
        raise PhotoError(failures[-1].photo, none_could(failures[-1].reason, len(failures)))
    tokens = [features[i] for i in rows]
    return MemorySource(photos.subset(list(rows)), list(rows.values()), tokens), failures
