"""A clip in, the same clip in colours out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from patchprism.backbones import find_record
from patchprism.errors import OptionError, PrismError
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.given import masks_of
from patchprism.jobs.network import load_network, open_network, said_of
from patchprism.jobs.opened import resolved_for
from patchprism.jobs.run import Run, nobody
from patchprism.jobs.settings import Settings, check_backbone
from patchprism.jobs.video.canvas import Canvas
from patchprism.jobs.video.drawing import Drawing, VideoReport
from patchprism.jobs.video.fitting import Frames, fit_frames
from patchprism.jobs.video.frames import Span, import_av
from patchprism.jobs.video.masked import fit_head_to_frames, masks_of_frames
from patchprism.jobs.video.options import Seconds, VideoOptions
from patchprism.jobs.video.sink import check_output, is_pictures
from patchprism.jobs.video.source import AnimationClip, FileClip, open_clip
from patchprism.jobs.video.steady import FrameColors, Steady
from patchprism.prism.estimator import Prism
from patchprism.prism.head import Head
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support import checks
from patchprism.support.files import check_target
from patchprism.support.folders import local_path

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from patchprism.backbones import Backbone


def render_video(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    overlay: float | None = None,
    upsample: str | None = None,
    smooth: bool = False,
    steady: bool = True,
    start: Seconds | None = None,
    end: Seconds | None = None,
    every: int = 1,
    fps: float | None = None,
    fit_frames: int = 32,
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
    smooth : bool
        Deprecated; the same as ``upsample="bilinear"``.
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
    crf : int, optional
        Quality of the video; a lower number is better. H.264: 0 to 51, by default 18. VP9: 0 to 63, by default 30.
    sound : bool
        Keep the sound. It is copied if the format allows it, and encoded again otherwise.
    range : (low, high), optional
        As in :func:`~patchprism.visualize`, for an image sequence.
    model, weights, preset, size, mean, std, threshold, foreground, foreground_component, scaling, components
        As in :func:`~patchprism.visualize`.
    space, layer, facet, final_norm, token_norm, device, dtype, batch_size
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
            smooth=smooth,
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
        backbone=backbone,
        progress=progress,
    )


def color_clip(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VideoOptions,
    settings: Settings,
    coloring: Coloring,
    *,
    backbone: Backbone | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> VideoReport:
    """The same as :func:`render_video`, with its options put together."""
    import_av()
    span = Span(start=options.start, end=options.end, every=options.every)  # type: ignore[arg-type]  # checked
    source, out = checks.path("source", source), checks.path("out", out)
    checks.callback("progress", progress)
    check_backbone("backbone", backbone)
    prism, save_prism, crf = coloring.prism, options.save_prism, options.crf
    if backbone:
        dtype = str(backbone.dtype).removeprefix("torch.")
        settings = replace(settings, model=backbone.record.name, dtype=dtype)
    tell, engine = progress or nobody, open_engine()
    run = Run(engine=engine, backbone=backbone, tell=tell)
    watch = run.watch
    values, settings = settings.range, resolved_for(settings, [], run, coloring)
    # Everything that can be refused is refused before anything heavy is loaded.
    fitted = coloring.unfitted(settings)
    settings.framing(backbone.record if backbone else find_record(str(settings.model)))
    check_output(out, source, crf)
    clip = open_clip(source, fps=options.fps, range=settings.range)
    if values is not None and isinstance(clip, FileClip):
        raise OptionError(f"range is for image sequences; {clip.name} is a video")
    read = [clip.path] if isinstance(clip, FileClip | AnimationClip) else clip.paths
    used = [settings.weights, settings.model, prism.loaded_from if prism else None]
    if save_prism is not None:
        check_target(save_prism, read, read=[out, *used])
    if not is_pictures(local_path(out)):
        check_target(out, read, read=used)
    readers, said = masks_of_frames(clip, coloring.masks) if coloring.masks is not None else ({}, [])
    canvas = Canvas(
        layout=options.layout or ("side" if options.overlay is None else "overlay"),
        alpha=options.overlay,
        upsample=options.upsample or "nearest",
        matrix=clip.matrix,
    )
    with watch("load model"):
        backbone = backbone or load_network(settings, tell)
        network = open_network(settings, backbone=backbone, engine=engine, tell=tell)
    if prism and any(getattr(prism, name) != unset for name, unset in MASK_OPTIONS.items()):
        raise PrismError(
            "videos show the foreground that was fitted: this prism shows another (it was saved with a "
            "mask, an opening or a closing); save it without"
        )
    coloring.check(network.origin)
    frames = Frames(clip=clip, backbone=backbone, network=network, batch_size=settings.batch_size)
    if readers:
        with watch("read masks and fit head"):
            fitted.head = fit_head_to_frames(frames, readers)
    hints = fit_frames(fitted, frames, span, options.fit_frames, run) if prism is None else []
    if save_prism is not None:
        fitted.save(save_prism)
    report = VideoReport(
        out=local_path(out),
        prism=fitted,
        fitted_here=prism is None,
        hints=hints,
        record=backbone.record,
        weights=backbone.weights,
        warnings=[note.text for note in said_of(run, network.weights)],
        seconds=watch.seconds,
    )
    drawing = Drawing(
        frames=frames,
        span=span,
        colors=FrameColors(fitted),
        steady=Steady(fitted.threshold_, fitted.side_) if options.steady else None,
        canvas=canvas,
        crf=crf,
        sound=options.sound,
    )
    with watch("colour and write"):
        drawing.write(report, tell)
    report.warnings = [*said, *report.warnings]
    return report
