"""``patchprism.render_video``: colour all frames of a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.given import masks_of
from patchprism.jobs.run import Run, no_progress
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
    """Colour all frames of a clip with one prism. Memory does not grow with the length of the clip.

    Parameters
    ----------
    source : path
        A video file; an animated GIF, WebP or PNG; or an image sequence, given as a folder or as a pattern with ``*``
        or a counter such as ``%04d``.
    out : path
        A ``.mp4``, ``.mov`` or ``.mkv`` file (H.264), or a ``.webm`` file (VP9). Videos have even sides, so an odd
        last row or column of a panel is cut off. For PNG pictures: a folder, or a pattern such as
        ``frames/%04d.png``.
    layout : {"side", "overlay", "colors"}, default="side"
        Show the frame beside its colours, the colours over the frame, or only the colours.
    overlay : float in [0, 1], optional
        Opacity of the colours over the frame, by default 0.6. Without ``layout``, it implies ``layout="overlay"``.
    upsample : {"nearest", "bilinear", "guided"}, default="nearest"
        How patches become pixels: as rectangles, interpolated, or along the edges of the frame.
    steady : bool, default=True
        Remove flicker where nothing moves; see :class:`~patchprism.jobs.video.steady.Steady`. Without it, every frame
        has the colours that it would have as a photo.
    start, end : float, optional
        Time of the first frame, and time to stop before, in seconds.
    every : int
        Keep every Nth frame. It is shown for as long as the frames that it replaces.
    fps : float, optional
        Frames per second of an image sequence, by default 25.
    fit_frames : int
        Number of frames that the prism is fitted on, evenly spread over the selected time.
    lens : {"pca", "score", "norm", "similarity", "clusters", "attention"}
        What to show: the colours of the prism, or another lens with one scale for all frames. ``"attention"`` needs a
        second forward pass for each frame.
    at : str, optional
        The point for ``lens="similarity"``: ``"TIME:x,y"`` with a time such as ``12.5`` or ``1:30``, and x and y in
        the pixels of the frame that is shown at this time.
    clusters : int or "auto"
        Number of clusters, from 2 to 64. ``"auto"`` uses the number with the best silhouette.
    crf : int, optional
        Quality of the video; a lower number is better. H.264: 0 to 51, by default 18. VP9: 0 to 63, by default 30.
    sound : bool
        Keep the sound. It is copied if the format allows it, and encoded again otherwise.
    range : (low, high), optional
        As in :func:`~patchprism.visualize`, for an image sequence.
    model, weights, preset, size, mean, std, threshold, foreground, foreground_component, scaling, components
        As in :func:`~patchprism.visualize`.
    space, stride, layer, facet, final_norm, token_norm, tile, refine, device, dtype, batch_size
        As in :func:`~patchprism.visualize`.
    prism : Prism, optional
        Use this prism instead of fitting one.
    masks : path or sequence of arrays, optional
        Masks of some of the frames, to learn the foreground from: a folder of PNG files that are named after the
        numbers of the frames from 0, or after the photos of an image sequence. For an image sequence, also everything
        that :func:`~patchprism.visualize` accepts.
    head : Head, optional
        As in :func:`~patchprism.visualize`.
    save_prism : path, optional
        Also save the prism to this file.
    force, backbone
        As in :func:`~patchprism.visualize`.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)`` with the stages ``fit`` (reading the frames of the fit),
        ``fit, pass 1`` and so on, ``frames``, and the stages of a download.

    Returns
    -------
    VideoReport

    Raises
    ------
    PatchPrismError
        One of its subclasses, if an option, the clip, the model, its weights, the prism or the output cannot be used.
        In this case, ``out`` is not changed.
    """
    if prism is not None and not isinstance(prism, Prism):
        checks.refuse("prism", "a Prism, for example from Prism.load", prism)
    if head is not None and not (isinstance(head, Head) and head.is_fitted):
        checks.refuse("head", "a fitted Head, for example from Head.load", head)
    checks.callback("progress", progress)
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
        Run(engine=open_engine(), backbone=backbone, tell=progress or no_progress),
        looking=clip_lens(ClipLensOptions(lens=lens, at=at, clusters=clusters)),
    )
