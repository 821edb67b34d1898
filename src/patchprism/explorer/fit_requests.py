"""Requests of the page for a fit, and the views and settings that result from them."""

from __future__ import annotations

from copy import copy
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.explorer.layers import shown_layers
from patchprism.prism.estimator import Prism
from patchprism.prism.options import MASK_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from patchprism.backbones import Backbone
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.view import View
    from patchprism.prism.head import Head

# Settings that belong to a model.
_OWN = ("weights", "dtype", "layer", "facet", "final_norm", "mean", "std")


@dataclass(frozen=True, kw_only=True)
class FitRequest:
    """Changes that a fit should make; None means no change.

    Attributes
    ----------
    layer : int, optional
        Counted from 0.
    head : bool, optional
        Whether the head of the tab becomes the foreground.
    without : tuple of int
        Rows of the photos to remove.
    aside : bool
        Whether the fit is shown beside the present one.
    """

    model: str | None = None
    layer: int | None = None
    threshold: float | str | None = None
    foreground: str | None = None
    scaling: str | None = None
    components: tuple[int, int, int] | None = None
    space: str | None = None
    head: bool | None = None
    without: tuple[int, ...] = ()
    aside: bool = False

    @property
    def only_moves(self) -> bool:
        """Whether only another model or layer is requested."""
        return self == FitRequest(model=self.model, layer=self.layer, aside=self.aside) and bool(self.changes)

    @property
    def changes_fit(self) -> bool:
        """Whether the prism must be fitted again, even if it came from a file."""
        return bool(self.changes)

    @property
    def changes(self) -> dict[str, Any]:
        """The settings to change, by their names."""
        kept = {key: value for key, value in asdict(self).items() if value is not None}
        for name in ("without", "aside"):
            kept.pop(name)
        return kept | {"foreground": "mask"} if kept.pop("head", False) else kept


def models_here(first: str) -> list[str]:
    """Names of models that can be shown: the model of the first view, then those with weights on this machine."""
    from patchprism.backbones import locate_weights, records

    here = [record.name for record in records() if locate_weights(record) is not None]
    return [first, *(name for name in here if name != first)]


def settings_of(
    view: View, request: FitRequest, *, first: View | None = None, asked: dict[str, Any] | None = None
) -> Settings:
    """The settings of a view after the changes of a request.

    Parameters
    ----------
    view : View
    request : FitRequest
    first : View, optional
        The view that the page opened with. If its model is chosen again, it gets its weights, layer and framing back.
    asked : dict, optional
        ``threshold`` and ``foreground`` for a fit with other scores, for which the threshold of this view has no
        meaning.
    """
    from patchprism.jobs.settings import Settings

    names = Settings.__dataclass_fields__
    kept = {key: value for key, value in view.settings.items() if key in names}
    # If no network has run, no device was chosen.
    settings = Settings(**kept | {"device": kept.get("device") or "auto"})
    changes = (asked or {} if request.threshold is None else {}) | request.changes
    if moves(view, request) and changes.get("foreground", settings.foreground) == "mask":
        changes["foreground"] = "auto"  # a head cannot be used with other tokens
    if "model" in changes and changes["model"] != view.label:
        # Weights, dtype and tokens belong to one network; the size stays.
        changes |= {"mean": None, "std": None}
        changes |= {"weights": None, "dtype": "auto", "layer": None, "facet": None, "final_norm": None}
        if first is not None and changes["model"] == first.label:
            changes |= {key: first.settings.get(key, value) for key, value in changes.items() if key in _OWN}
        changes |= {} if request.layer is None else {"layer": request.layer}
    if changes.get("foreground") in ("auto", "object", "mask"):  # these methods use no component
        changes["foreground_component"] = None
    # A new fit is first shown with its own foreground.
    changes |= {"mask_threshold": None, "mask_side": None, "opening": 0, "closing": 0}
    return replace(settings, **changes).resolved()


def moves(view: View, request: FitRequest) -> bool:
    """Whether a request needs tokens of another model or layer."""
    if request.model not in (None, view.label):
        return True
    return request.layer is not None and shown_layers(view) != (request.layer,)


def head_of(view: View, request: FitRequest, head: Head | None) -> Head | None:
    """The head for the foreground of a fit: the head of the tab if it is requested, or that of the view."""
    if request.head:
        if head is None:
            raise OptionError("no head has been taught in this tab; mark patches first")
        return head
    if moves(view, request) or request.foreground not in (None, "mask"):
        return None
    return view.prism.head_ or (head if request.foreground == "mask" else None)


def check_request(view: View, request: FitRequest, loaded: Mapping[str, Backbone] | None = None) -> None:
    """Refuse an invalid request before it is queued. ``loaded``: models that are loaded already, by name."""
    from patchprism.backbones import find_record, locate_weights, records

    loaded = loaded or {}
    record = view.record
    if request.model is not None and request.model in loaded:
        record = loaded[request.model].record
    elif request.model not in (None, view.label):
        assert request.model is not None
        if ":" in request.model:  # looking for it would mean a request to the hub
            names = ", ".join(record.name for record in records())
            raise OptionError(
                f"model must be one of {names}, or the one that is shown, got {request.model!r}"
            )
        record = find_record(request.model)
        if locate_weights(record) is None:
            raise OptionError(
                f"the weights of {request.model} are not on this machine; to fetch them, run patchprism download"
            )
    if request.layer is not None:
        if request.model in (None, view.label) and view.store is not None:
            raise OptionError(
                "a feature store holds the tokens of its own layer only; layer needs the photos"
            )
        record.layer_index(request.layer)
    if any(not 0 <= row < len(view) for row in request.without):
        raise OptionError("without names a photo that does not exist")
    settings_of(view, request).prism()


def without(view: View, rows: Collection[int]) -> View:
    """A view without some of its photos, with the same prism.

    Raises
    ------
    OptionError
        If no photo would be left.
    """
    from patchprism.features.extraction import Photos
    from patchprism.features.patch_features import PatchFeatures

    if not rows:
        return view
    kept = [row for row in range(len(view)) if row not in rows]
    if not kept:
        raise OptionError("the last photo cannot be removed; add others first")
    photos = Photos(
        [view.photos.sources[row] for row in kept],
        [view.names[row] for row in kept],
        range=view.photos.range,
    )
    photos.notes |= {new: view.photos.notes[row] for new, row in enumerate(kept) if row in view.photos.notes}
    tokens = list(view.features)
    return replace(
        view,
        photos=photos,
        features=PatchFeatures([tokens[row] for row in kept], photos.names),
        parts=[view.parts[row] for row in kept],
        crops=[view.crops[row] for row in kept],
        sizes=[view.sizes[row] for row in kept],
        plain=[name for name in view.plain if name in photos.names],
        store=None,
    )


def over_all_patches(prism: Prism, view: View) -> Prism:
    """A copy of a prism whose all-patch picture is scaled over all patches of a view, including the background."""
    from patchprism.prism.axes import chosen

    prism = copy(prism)
    values = [chosen(prism.scene_components(tokens), prism.components) for tokens in view.features]
    rows = np.concatenate([each.reshape(-1, 3) for each in values])
    prism.all_range_ = np.stack([rows.min(axis=0), rows.max(axis=0)])
    return prism


def reshown(view: View, options: dict[str, Any], *, basis: str = "object") -> View:
    """A view with other components, scaling, space or shown foreground, as the page shows it."""
    from patchprism.jobs.settings import with_mask

    options = dict(options)
    scaling, components = options.pop("scaling"), tuple(options.pop("components"))
    space = options.pop("space", "rgb")
    prism = view.prism
    if (scaling, components, space) != (prism.scaling, tuple(prism.components), prism.space):
        if not view.fitted_here:
            raise OptionError(
                "components, scaling and space are fixed by the prism; fit again to change them"
            )
        shown = {"scaling": scaling, "components": components, "space": space}
        view = view.recolored(Prism(**prism.get_params() | MASK_OPTIONS | shown), fit=True)
        prism = view.prism
    if options["mask_side"] == prism.side_ and options["mask_threshold"] == prism.threshold_:
        options |= {"mask_side": None, "mask_threshold": None}
    elif options["mask_side"] == "none":
        options["mask_threshold"] = None
    shown_prism = with_mask(prism, options)
    if basis == "all" and options["mask_side"] == "none":
        shown_prism = over_all_patches(shown_prism, view)
    again = view.recolored(shown_prism, fit=False)
    again.settings = {
        **view.settings,
        **options,
        "scaling": scaling,
        "components": components,
        "space": space,
    }
    again.seconds = dict(view.seconds)
    return again
