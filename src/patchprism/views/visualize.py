"""Photos -> Visualization, for people who want one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.given import masks_of
from patchprism.jobs.run import Run, nobody
from patchprism.jobs.settings import (
    ERRORS,
    Settings,
    check_backbone,
)
from patchprism.jobs.viewing import make_view
from patchprism.prism.estimator import Prism
from patchprism.prism.head import Head
from patchprism.support import checks
from patchprism.views.extract import check_framing
from patchprism.views.visualization import Visualization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from patchprism.backbones import Backbone
    from patchprism.photos.framing import Framing


def visualize(
    photos: Iterable[Any] | None = None,
    *,
    features: Any = None,
    framing: Framing | None = None,
    model: str | None = None,
    weights: str | None = None,
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
    components: tuple[int, int, int] | None = None,
    space: str | None = None,
    mask_threshold: float | None = None,
    mask_side: str | None = None,
    opening: int = 0,
    closing: int = 0,
    layer: int | Sequence[int] | None = None,
    facet: str | None = None,
    final_norm: bool | None = None,
    token_norm: str | None = None,
    tile: int | None = None,
    refine: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int | None = None,
    prism: Prism | None = None,
    force: bool = False,
    masks: Any = None,
    head: Head | None = None,
    backbone: Backbone | None = None,
    errors: str = "raise",
    fetch_from: Sequence[str] = (),
    progress: Callable[[str, int, int | None], None] | None = None,
) -> Visualization:
    """Colour photos by the principal components of their patch features.

    Parameters
    ----------
    photos : iterable of path, PIL.Image.Image or array
        Files, folders and patterns among the paths; arrays as :func:`~patchprism.read_photo` takes them.
        One photo may come alone; an array of four dimensions is a photo a row.
        Or one feature store: no network is needed then, and the store settles model and framing.
        With ``features``, photos may be left out: plain grey stands for them.
    features : sequence of array or tensor, each (h, w, D), or one (N, h, w, D), optional
        Features of your own, one array per photo, or :class:`~patchprism.PatchFeatures`. They are coloured instead
        of the tokens of a network, and options of the network are refused. Photos that come with them must be
        cropped as the network saw them: their framing must divide each into as many patches as its features have.
    framing : Framing, optional
        With ``features``: how the photos were framed. By default the framing of :func:`~patchprism.extract`, or
        the one that keeps each photo's shape and gives the shorter edge as many patches as the features have.
    model : str, optional
        A registered name. By default ``"dinov2_vits14"``, and where its weights are neither here nor can be fetched
        ``"focus_vits14"``, which comes in a Python package; ``notes`` of the result then says so.
        With ``features``: what to call them, ``"own features"`` by default.
    weights : str, optional
        File, address or ``hf:REPO``; by default looked for in the caches, then downloaded.
    preset : {"default", "seed"}
        ``"default"`` keeps each photo's shape and finds the foreground by itself; ``"seed"`` does what the DINOv2 post
        did: a square crop, threshold 0.6, foreground above it.
    size : int, default=448
        The photo's shorter edge as the network sees it, in pixels.
    stride : int, optional
        Pixels from one patch to the next, a divisor of the patch size. With a smaller one than the patch size patches
        overlap and the grid is finer; for vision transformers.
    range : (low, high), optional
        The values that are black and white in photos that do not hold 8 bits; see
        :func:`~patchprism.read_photo`. By default the prism's, where one is given.
    mean, std : sequence of three float, optional
        Normalisation of RGB in [0, 1]: ``(value - mean) / std``. By default the model's, or the preset's.
    threshold : float in [0, 1], "auto" or "otsu"
        Score that separates the foreground from the background. By default the preset's: ``"auto"``, or 0.6.
    foreground : {"auto", "object", "mask", "pca", "above", "below", "none"}
        How the foreground is found; see :class:`~patchprism.Prism`. By default the preset's: ``"auto"``, or
        ``"above"``.
    foreground_component : {1, 2, 3}
        Component of the scene PCA that ``"pca"``, ``"above"`` and ``"below"`` use.
    scaling : {"minmax", "percentile", "sigmoid"}
        How components are scaled to [0, 1].
    components : tuple of three int
        Components that become red, green and blue, counted from 1; a negative number turns one around.
    space : {"rgb", "oklab"}
        Where the three components are laid out as colours.
    mask_threshold, mask_side, opening, closing
        Which patches are shown as foreground, without touching the fit; see
        :class:`~patchprism.Prism`. They may be given beside a prism, and then replace its own.
    layer : int or sequence of int, optional
        Block whose tokens are taken, counted from 0, or from the end with negative numbers. The tokens of
        several blocks lie side by side. By default the model's own: -1, the last, but 8 for ``"focus_vits14"``.
    facet : {"token", "query", "key", "value"}
        What is taken of that block, where the model has it.
    final_norm : bool, default=True
        Whether the network's final norm is applied to the tokens, of earlier blocks too.
    token_norm : {"none", "l2"}
        ``"l2"`` gives each token unit length before anything is fitted.
    tile : int, optional
        Side in pixels of overlapping windows in which larger photos are taken, with their tokens blended. By default
        photos are taken whole, or in windows of 896 where the memory is too small for that.
    refine : {1, 2, 4, 8}, default=1
        Bring the tokens to a grid this many times as fine, along the photo's edges.
    device, dtype : str
        See :func:`~patchprism.backbones.load_backbone`.
    batch_size : int, optional
        Photos a forward pass, at most. Colours do not depend on it.
    prism : Prism, optional
        Colour with this one instead of fitting. It brings its own model and framing.
    masks : sequence or mapping of arrays, or path, optional
        Masks of some of the photos, from which the foreground of the others is learned; photos that have one keep it.
        Arrays (H, W) at any resolution of the photo's shape, bool or whole numbers as :meth:`Head.fit
        <patchprism.Head.fit>` takes them: one per photo, None for a photo without, or by the photos' names. Or a
        folder of PNG files with the photos' names, a COCO file, or ``"alpha"`` for the photos' own alpha channels.
    head : Head, optional
        Find the foreground with this one, in place of masks.
    force : bool
        Use the prism or the head even where model, weights, framing or dtype differ from those it was fitted on.
    backbone : Backbone, optional
        Use this one, already loaded, instead of ``model``, ``weights``, ``device`` and ``dtype``.
    errors : {"raise", "report"}
        What a photo that cannot be read does: raise, or be listed in ``failures`` while the others are done.
    fetch_from : sequence of str
        Buckets and hosts, like ``"s3://bucket"``, where photos that a feature store names by addresses are read,
        beside the one where the store itself lies.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)``.

    Returns
    -------
    Visualization

    Raises
    ------
    PatchPrismError
        One of its children: an option, a photo, a model, its weights or the prism cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    >>> view = visualize([photo], model="efficientnet_lite2", size=64)
    >>> view.colors[0].shape
    (4, 6, 3)

    Features of your own, without a network:

    >>> tokens = np.random.default_rng(0).normal(size=(2, 8, 12, 64))
    >>> visualize(features=tokens, foreground="none")
    Visualization(2 photos, own features, all patches, 100% foreground)
    """
    errors = checks.choice("errors", errors, allowed=ERRORS)
    force = checks.flag("force", force)
    fetch_from = checks.texts("fetch_from", fetch_from)
    checks.callback("progress", progress)
    check_backbone("backbone", backbone)
    settings = Settings(
        model=backbone.record.name if backbone else model,
        weights=weights,
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
        components=components,
        space=space,
        mask_threshold=mask_threshold,
        mask_side=mask_side,
        opening=opening,
        closing=closing,
        layer=layer,
        facet=facet,
        final_norm=final_norm,
        token_norm=token_norm,
        device=device,
        dtype=str(backbone.dtype).removeprefix("torch.") if backbone else dtype,
        batch_size=batch_size,
    )
    if prism is not None and not isinstance(prism, Prism):
        checks.refuse("prism", "a Prism, as Prism.load reads one", prism)
    if head is not None and not (isinstance(head, Head) and head.is_fitted):
        checks.refuse("head", "a fitted Head, as Head.load reads one", head)
    coloring = Coloring(prism=prism, masks=masks_of(masks), head=head, force=force, fetch_from=fetch_from)
    if features is not None:
        from patchprism.views.own import check_own, view_features

        check_own(settings, backbone=backbone, fetch_from=fetch_from or None)
        if framing is not None:
            check_framing(framing)
        return view_features(
            features, photos, settings=settings, framing=framing, coloring=coloring, errors=errors
        )
    if framing is not None:
        raise OptionError(
            "framing is for features; size, mean, std and preset frame photos", option="framing"
        )
    with open_engine() as engine:
        run = Run(engine=engine, backbone=backbone, tell=progress or nobody)
        return Visualization.of(make_view(photos, settings, run, coloring, strict=errors == "raise"))
