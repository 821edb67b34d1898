"""Colour a clip: from the options to the written video."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from patchprism.backbones import find_record
from patchprism.errors import OptionError, PrismError
from patchprism.jobs.network import about_dtype, load_network, notes_on_network, open_network, warn_of_cost
from patchprism.jobs.opened import resolved_for
from patchprism.jobs.settings import Settings, check_backbone
from patchprism.jobs.video.canvas import Canvas
from patchprism.jobs.video.drawing import Drawing, VideoReport, expected_frames
from patchprism.jobs.video.fitting import Frames, fit_frames
from patchprism.jobs.video.frames import Span, import_av
from patchprism.jobs.video.masked import fit_head_to_frames, masks_of_frames
from patchprism.jobs.video.sink import check_output, is_pictures
from patchprism.jobs.video.source import FileClip, open_clip
from patchprism.jobs.video.steady import FrameColors, Steady
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support import checks
from patchprism.support.files import check_target
from patchprism.support.folders import local_path

if TYPE_CHECKING:
    import os

    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.lens import ClipLooking
    from patchprism.jobs.run import Run
    from patchprism.jobs.video.options import VideoOptions


def color_clip(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VideoOptions,
    settings: Settings,
    coloring: Coloring,
    run: Run,
    *,
    looking: ClipLooking | None = None,
) -> VideoReport:
    """The same as :func:`patchprism.render_video`, with its options put together."""
    import_av()
    span = Span(start=options.start, end=options.end, every=options.every)  # type: ignore[arg-type]  # checked
    source, out = checks.path("source", source), checks.path("out", out)
    backbone = run.backbone
    check_backbone("backbone", backbone)
    prism, save_prism, crf = coloring.prism, options.save_prism, options.crf
    if backbone:
        dtype = str(backbone.dtype).removeprefix("torch.")
        settings = replace(settings, model=backbone.record.name, dtype=dtype)
    tell, watch = run.tell, run.watch
    values, settings = settings.range, resolved_for(settings, [], run, coloring)
    # Everything that can be refused is refused before anything heavy is loaded.
    fitted = coloring.unfitted(settings)
    settings.framing(backbone.record if backbone else find_record(str(settings.model)))
    check_output(out, source, crf)
    clip = open_clip(source, fps=options.fps, range=settings.range)
    if values is not None and isinstance(clip, FileClip):
        raise OptionError(f"range is only for sequences of photos; {clip.name} is a video")
    used = [settings.weights, settings.model, prism.loaded_from if prism else None]
    if save_prism is not None:
        check_target(save_prism, clip.paths, read=[out, *used])
    if not is_pictures(local_path(out)):
        check_target(out, clip.paths, read=used)
    readers, mask_notes = masks_of_frames(clip, coloring.masks) if coloring.masks is not None else ({}, [])
    canvas = Canvas(
        layout=options.layout or ("side" if options.overlay is None else "overlay"),
        alpha=options.overlay,
        upsample=options.upsample or "nearest",
        matrix=clip.matrix,
    )
    with watch("load model"):
        backbone = backbone or load_network(settings, tell)
        network = open_network(settings, backbone=backbone, engine=run.engine, tell=tell)
    if prism and any(getattr(prism, name) != unset for name, unset in MASK_OPTIONS.items()):
        raise PrismError(
            "a video shows the fitted foreground, but this prism was saved with another one (a mask "
            "threshold or side, an opening or a closing); save the prism without it"
        )
    coloring.check(network.origin)
    warn_of_cost(network, run, expected_frames(clip, span) or 1)
    frames = Frames(clip=clip, span=span, backbone=backbone, network=network, batch_size=settings.batch_size)
    if readers:
        with watch("read masks and fit head"):
            fitted.head = fit_head_to_frames(frames, readers)
    hints: list[str] = []
    lens = None
    if prism is None or looking is not None:
        hints, lens = fit_frames(
            fitted, frames, options.fit_frames, run, fitted=prism is not None, looking=looking
        )
    if save_prism is not None:
        fitted.save(save_prism)
    report = VideoReport(
        out=local_path(out),
        prism=fitted,
        fitted_here=prism is None,
        hints=hints,
        lens=lens.meaning if lens else "",
        record=backbone.record,
        weights=backbone.weights,
        warnings=[note.text for note in notes_on_network(run, network.weights)],
        seconds=watch.seconds,
    )
    steady = Steady(fitted.threshold_, fitted.side_) if lens is None else Steady(math.nan, "none")
    drawing = Drawing(
        frames=frames,
        colors=FrameColors(fitted),
        lens=lens,
        steady=steady if options.steady else None,
        canvas=canvas,
        crf=crf,
        sound=options.sound,
    )
    with watch("colour and write"):
        drawing.write(report, tell)
    about = about_dtype(run, network.origin["dtype"], backbone.device.type, seconds=report.network_seconds)
    report.warnings = [*mask_notes, *report.warnings, *(note.text for note in about)]
    return report
