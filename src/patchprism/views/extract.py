"""From photos to patch tokens in memory: `patchprism.extract`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.backbones import Backbone, find_record, load_backbone
from patchprism.errors import OptionError, WeightsError
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.opened import open_in_memory
from patchprism.jobs.run import Run, no_progress
from patchprism.jobs.settings import ERRORS, Settings
from patchprism.jobs.source import read_all
from patchprism.jobs.viewing import features_of
from patchprism.photos.framing import Framing
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patchprism.features.patch_features import PatchFeatures
    from patchprism.jobs.view import View


def extract(
    photos: Iterable[Any],
    backbone: Backbone | str,
    *,
    size: int | None = None,
    stride: int | None = None,
    framing: Framing | None = None,
    layer: int | Sequence[int] | None = None,
    facet: str = "token",
    final_norm: bool = True,
    token_norm: str = "none",
    tile: int | None = None,
    refine: int = 1,
    range: tuple[float, float] | None = None,
    batch_size: int | None = None,
    errors: str = "raise",
    progress: Callable[[str, int, int | None], None] | None = None,
) -> PatchFeatures:
    """Patch tokens of photos.

    Parameters
    ----------
    photos : iterable of path, PIL.Image.Image or array
        Paths can be files, folders and patterns. Arrays are as for :func:`~patchprism.read_photo`. A single photo
        needs no list. An array with four dimensions contains one photo per entry of the first.
    backbone : Backbone or str
        A backbone, or the name of a model, which :func:`~patchprism.load_backbone` loads.
    size : int, default=448
        The photo's shorter edge as the network sees it, in pixels.
    stride : int, optional
        Pixels from one patch to the next; it must divide the patch size. With a smaller stride, patches overlap.
    framing : Framing, optional
        How photos are resized, cropped and normalised, instead of ``size``. By default photos keep their shape and
        are normalised as the model expects.
    layer, facet, final_norm, token_norm, tile, refine, range
        As in :func:`~patchprism.visualize`.
    batch_size : int, optional
        Maximum number of photos per forward pass. By default it depends on the free memory.
    errors : {"raise", "report"}
        What to do if a photo cannot be read: ``"raise"`` raises an error, and ``"report"`` leaves the photo out and
        lists it in ``failures`` of the result.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)``.

    Returns
    -------
    PatchFeatures
        One array (h, w, D) float32 per photo, in the order given.

    Raises
    ------
    PatchPrismError
        One of its subclasses, if an option, a photo, the model or its weights cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    >>> features = extract([photo], "efficientnet_lite2", size=64)
    >>> features[0].shape
    (4, 6, 536)
    """
    errors = checks.choice("errors", errors, allowed=ERRORS)
    checks.callback("progress", progress)
    if isinstance(backbone, Backbone):
        record, dtype = backbone.record, str(backbone.dtype).removeprefix("torch.")
    elif isinstance(backbone, str):
        record, dtype = find_record(backbone), "auto"
    else:
        checks.refuse("backbone", "a Backbone or the name of a model", backbone)
    settings = Settings(
        model=record.name,
        size=size,
        stride=stride,
        range=range,
        layer=layer,
        facet=facet,
        final_norm=final_norm,
        token_norm=token_norm,
        tile=tile,
        refine=refine,
        dtype=dtype,
        batch_size=batch_size,
    ).resolved(record=record)
    if framing is not None:
        check_framing(framing)
        for name, value in (("size", size), ("stride", stride)):
            if value is not None:
                raise OptionError(f"{name} is part of framing; give only one of them", option=name)
        if framing.patch_size != record.patch_size:
            raise OptionError(
                f"framing must have the patch size of {record.name}, {record.patch_size}, got {framing.patch_size}",
                option="framing",
            )
    given, _ = listed_input(photos)
    if isinstance(given, StoredFeatures):
        raise OptionError(f"photos: {given.path} is a feature store; patchprism.StoredFeatures opens it")
    loaded = backbone if isinstance(backbone, Backbone) else None
    with open_engine() as engine:
        run = Run(engine=engine, backbone=loaded, tell=progress or no_progress)
        opened = open_in_memory(given, settings, run, framing=framing, strict=errors == "raise")
    return features_of(opened, list(read_all(opened.source)))


def load_again(view: View) -> Backbone:
    """The backbone that a view was made with, loaded again.

    Raises
    ------
    OptionError
        If the features are the user's own, or those of a function.
    WeightsError
        If the weights are no longer on this machine, or have changed.
    """
    name = view.record.name
    if view.record.family in ("own", "callable"):
        raise OptionError(f"backbone must be given: {name} cannot be loaded by its name", option="backbone")
    # hf: models bring their own weights.
    weights = None if name.startswith("hf:") else view.weights.path or None
    device, dtype = view.settings.get("device") or "auto", view.settings.get("dtype") or "auto"
    backbone = load_backbone(name, weights=weights, device=device, dtype=dtype, download=False)
    if view.weights.sha256 and backbone.weights.sha256 != view.weights.sha256:
        raise WeightsError(
            f"the weights of {name} on this machine differ from those of the view; give its backbone"
        )
    return backbone


def check_framing(framing: Any) -> None:
    """Refuse anything that is not a framing."""
    if not isinstance(framing, Framing):
        checks.refuse("framing", "a Framing, or None", framing)
