"""``patchprism.visualize``: colour photos in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.given import masks_of
from patchprism.jobs.run import Run, no_progress
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
        Paths can be files, folders and patterns. Arrays are as for :func:`~patchprism.read_photo`. A single photo
        needs no list. An array with four dimensions contains one photo per entry of the first. Instead, a feature
        store can be given; it needs no network, and determines model and framing. With ``features``, photos can be
        left out; the pictures then show plain grey instead.
    features : sequence of array or tensor, each (h, w, D), or one (N, h, w, D), optional
        Your own features, one array per photo, or :class:`~patchprism.PatchFeatures`. They are coloured instead of
        the tokens of a network, and options of the network are not allowed. If you also give photos, crop them as the
        network saw them: their framing must divide each photo into as many patches as its features have.
    framing : Framing, optional
        Only with ``features``: how the photos were framed. By default it is the framing of
        :func:`~patchprism.extract`, or one that keeps the shape of each photo and divides its shorter edge into as
        many patches as the features have.
    model : str, optional
        Name of a model, as for :func:`~patchprism.load_backbone`. By default ``"dinov2_vits14"``, or
        ``"focus_vits14"``, which comes in a Python package, if the weights of the former are not on this machine and
        cannot be downloaded; ``notes`` of the result then says so. With ``features``: a name for them, by default
        ``"own features"``.
    weights : str, optional
        File, address or ``hf:REPO``. By default PatchPrism looks into the caches, and then downloads the weights.
    preset : {"default", "seed"}
        ``"default"`` keeps the shape of each photo and finds the foreground by itself. ``"seed"`` reproduces a blog
        post on DINOv2: a square crop, and the patches with a score above 0.6 as foreground.
    size : int, default=448
        The photo's shorter edge as the network sees it, in pixels.
    stride : int, optional
        Pixels from one patch to the next; it must divide the patch size. With a smaller stride, patches overlap and
        the grid is finer. Only for vision transformers.
    range : (low, high), optional
        The values that are black and white in photos that do not have 8 bits; see :func:`~patchprism.read_photo`. By
        default the range of the prism, if one is given.
    mean, std : sequence of three float, optional
        Normalisation of RGB in [0, 1]: ``(value - mean) / std``. By default the model's, or the preset's.
    threshold : float in [0, 1], "auto" or "otsu"
        Score that separates the foreground from the background. By default ``"auto"``, or 0.6 with the preset
        ``"seed"``.
    foreground : {"auto", "object", "mask", "pca", "above", "below", "none"}
        How the foreground is found; see :class:`~patchprism.Prism`. By default ``"auto"``, or ``"above"`` with the
        preset ``"seed"``.
    foreground_component : {1, 2, 3}
        Component of the scene PCA that ``"pca"``, ``"above"`` and ``"below"`` use.
    scaling : {"minmax", "percentile", "sigmoid"}
        How components are scaled to [0, 1].
    components : tuple of three int
        Components that become red, green and blue, from 1 to 8. A negative number inverts the component.
    space : {"rgb", "oklab"}
        Colour space of the three components. In OKLab, equal steps look equal.
    mask_threshold, mask_side, opening, closing
        Which patches are shown as foreground, without changing the fit; see :class:`~patchprism.Prism`. With a prism,
        they replace those of the prism.
    layer : int or sequence of int, optional
        Block whose tokens are used, counted from 0; negative numbers count from the end. The tokens of several blocks
        are concatenated. By default -1, the last block, and 8 for ``"focus_vits14"``.
    facet : {"token", "query", "key", "value"}
        Which output of the block is used, if the model provides it.
    final_norm : bool, default=True
        Whether the network's final norm is applied to the tokens, including those of earlier blocks.
    token_norm : {"none", "l2"}
        ``"l2"`` scales each token to unit length before the fit.
    tile : int, optional
        Photos that are larger than this many pixels go through the network in overlapping windows of this side, whose
        tokens are blended. By default they go through it as a whole, or in windows of 896 if the memory is too small.
    refine : {1, 2, 4, 8}, default=1
        Upsample the tokens to a grid that is this many times as fine, along the edges of the photo.
    device, dtype : str
        See :func:`~patchprism.backbones.load_backbone`.
    batch_size : int, optional
        Maximum batch size. The colours do not depend on it.
    prism : Prism, optional
        Use this prism instead of fitting one. It determines model and framing.
    masks : sequence or mapping of arrays, or path, optional
        Masks of some of the photos, from which the foreground of the others is learned; photos with a mask keep it.
        Arrays (H, W) in any resolution with the shape of the photo, boolean or integer, as for :meth:`Head.fit
        <patchprism.Head.fit>`: one per photo (None for a photo without a mask), or a mapping from names of photos to
        arrays. Or a path: a folder of PNG files that are named after the photos, or a COCO file. Or ``"alpha"`` for
        the alpha channels of the photos.
    head : Head, optional
        Use this head to find the foreground, instead of masks.
    force : bool
        Use the prism or the head even if model, weights, framing or dtype differ from those of its fit.
    backbone : Backbone, optional
        Use this loaded backbone instead of ``model``, ``weights``, ``device`` and ``dtype``.
    errors : {"raise", "report"}
        What to do if a photo cannot be read: raise an error, or list it in ``failures`` and colour the others.
    fetch_from : sequence of str
        Buckets and hosts, such as ``"s3://bucket"``, from which photos of a feature store may be read, in addition to
        the bucket or host of the store itself.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)``.

    Returns
    -------
    Visualization

    Raises
    ------
    PatchPrismError
        One of its subclasses, if an option, a photo, a model, its weights or the prism cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    >>> view = visualize([photo], model="efficientnet_lite2", size=64)
    >>> view.colors[0].shape
    (4, 6, 3)

    Your own features, without a network:

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
        checks.refuse("prism", "a Prism, for example from Prism.load", prism)
    if head is not None and not (isinstance(head, Head) and head.is_fitted):
        checks.refuse("head", "a fitted Head, for example from Head.load", head)
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
        run = Run(engine=engine, backbone=backbone, tell=progress or no_progress)
        return Visualization.of(make_view(photos, settings, run, coloring, strict=errors == "raise"))
