"""``patchprism.render_video``: a clip in, the same clip in colours out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.jobs.coloring import Coloring
from patchprism.jobs.given import masks_of
from patchprism.jobs.settings import Settings
from patchprism.jobs.video.job import color_clip
from patchprism.jobs.video.options import VideoOptions
from patchprism.lenses.clips import clip_lens
from patchprism.lenses.options import ClipLensOptions
from patchprism.prism.estimator import Prism
from patchprism.prism.head import Head
from patchprism.support import checks

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from patchprism.backbones import Backbone
    from patchprism.jobs.video.drawing import VideoReport
    from patchprism.jobs.video.options import Seconds


def render_video(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    overlay: float | None = None,
    upsample: str | None = None,
    steady: bool = True,
    start: Seconds | None = None,
    end: Seconds | None = None,
    every: int = 1,
    fps: float | None = None,
    fit_frames: int = 32,
    lens: str = "pca",
    at: str | None = None,
    clusters: int | str = "auto",
    crf: int | None = None,
    sound: bool = True,
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
    masks: Any = None,
    head: Head | None = None,
    save_prism: str | os.PathLike[str] | None = None,
    force: bool = False,
    backbone: Backbone | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> VideoReport:
    """Colour the frames of a clip, all with one prism, in memory that does not grow with its length.

    Parameters
    ----------
    source : path
        A video file; an animated GIF, WebP or PNG; or an image sequence: a folder, or a pattern with ``*`` or a
        counter such as ``%04d``.
    out : path
        ``.mp4``, ``.mov`` and ``.mkv`` (H.264) or ``.webm`` (VP9), with even sides (an odd last row or column
        of a panel is cut off); or a folder, or a pattern such as ``frames/%04d.png``, for PNG pictures.
    layout : {"side", "overlay", "colors"}, default="side"
        The frame beside its colours, under them, or the colours alone.
    overlay : float in [0, 1], optional
        Opacity of the colours over the frame; without ``layout`` it means ``"overlay"``, where it is 0.6
        by default.
    upsample : {"nearest", "bilinear", "guided"}, default="nearest"
        How patches become pixels: each patch as a rectangle, blended from patch to patch, or along the edges of
        the frame.
    steady : bool, default=True
        Keep patches still where nothing moves; see :class:`~patchprism.jobs.video.steady.Steady`. Without it every
        frame has the colours that it would have as a photo.
    start, end : float, optional
        Seconds: frames from ``start`` on and before ``end``.
    every : int
        Keep every Nth frame; it is shown for as long as the frames that it replaces.
    fps : float, optional
        Frames a second of an image sequence, 25 by default.
    fit_frames : int
        Number of frames, evenly spread over the time that is wanted, on which the prism is fitted.
    lens : {"pca", "score", "norm", "similarity", "clusters", "attention"}
        What to look through: the prism's colours, or what another lens shows of all patches, on one scale for all
        frames. ``attention`` takes a second forward pass for each frame.
    at : str, optional
        The point for ``similarity``: ``"TIME:x,y"`` with a time like ``12.5`` or ``1:30``, and x and y in the
        pixels of the frame that is on show then.
    clusters : int or "auto"
        Number of clusters, from 2 to 64; ``"auto"`` takes the one of best silhouette.
    crf : int, optional
        Quality of the video, less is better: H.264 18 of 0 to 51, VP9 30 of 0 to 63.
    sound : bool
        Keep the sound: copied where the format can hold it, else encoded again.
    range : (low, high), optional
        As in :func:`~patchprism.visualize`, for an image sequence.
    model, weights, preset, size, mean, std, threshold, foreground, foreground_component, scaling, components
        As in :func:`~patchprism.visualize`.
    space, layer, facet, final_norm, token_norm, device, dtype, batch_size
        As in :func:`~patchprism.visualize`.
    prism : Prism, optional
        Colour with this one instead of fitting.
    masks : path or sequence of arrays, optional
        Masks of some of the frames, from which the foreground is learned: a folder of PNG files, named by the frames'
        numbers from 0, or as the photos of an image sequence; for an image sequence also as in
        :func:`~patchprism.visualize`.
    head : Head, optional
        As in :func:`~patchprism.visualize`.
    save_prism : path, optional
        Also save the prism here.
    force, backbone
        As in :func:`~patchprism.visualize`.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)`` with the stages ``fit`` (frames to fit on), ``fit, pass 1``
        and so on, ``frames``, and those of a download.

    Returns
    -------
    VideoReport

    Raises
    ------
    PatchPrismError
        One of its children: an option, the clip, the model, its weights, the prism or the output cannot be
        used. Nothing is at ``out`` then that was not there before.
    """
    if prism is not None and not isinstance(prism, Prism):
        checks.refuse("prism", "a Prism, as Prism.load reads one", prism)
    if head is not None and not (isinstance(head, Head) and head.is_fitted):
        checks.refuse("head", "a fitted Head, as Head.load reads one", head)
    return color_clip(
        source,
        out,
        VideoOptions(
            layout=layout,
            overlay=overlay,
            upsample=upsample,
            steady=steady,
            start=start,
            end=end,
            every=every,
            fps=fps,
            fit_frames=fit_frames,
            crf=crf,
            sound=sound,
            save_prism=save_prism,  # type: ignore[arg-type]  # becomes a text
        ),
        Settings(
            model=model,
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
            layer=layer,
            facet=facet,
            final_norm=final_norm,
            token_norm=token_norm,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        ),
        Coloring(prism=prism, masks=masks_of(masks), head=head, force=checks.flag("force", force)),
        looking=clip_lens(ClipLensOptions(lens=lens, at=at, clusters=clusters)),
        backbone=backbone,
        progress=progress,
    )
