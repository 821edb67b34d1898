"""``patchprism video``: colour the frames of a clip."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.cli.console import advised_by_flags, note, print_line, progress, warner
from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes, without
from patchprism.errors import OutputError
from patchprism.jobs.settings import Settings
from patchprism.jobs.video.options import VideoOptions
from patchprism.lenses.options import ClipLensOptions
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support.options import OUTPUT
from patchprism.support.words import counted

if TYPE_CHECKING:
    from patchprism.jobs.video.drawing import VideoReport


@takes(
    clip_options=VideoOptions,
    settings=without(Settings, *MASK_OPTIONS),
    coloring=only(ColoringOptions, "prism", "mask", "head", "force"),
    lens=ClipLensOptions,
    running=only(Running, "quiet"),
)
def video(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A video or an animated picture; or photos in order, as a folder or a pattern with * or "
            "a counter like %04d.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="Video to write (.mp4, .mov, .mkv or .webm); or for PNG frames a folder or a pattern "
            "like frames/%04d.png.",
            rich_help_panel=OUTPUT,
        ),
    ],
    clip_options: VideoOptions,
    settings: Settings,
    coloring: ColoringOptions,
    lens: ClipLensOptions,
    running: Running,
) -> None:
    """Colour a video: the same parts of objects keep the same colours from the first frame to the last.

    The prism is fitted on frames spread over the clip, or comes from --prism. Frame times and sound are kept.
    """
    from patchprism.jobs.engines import open_engine
    from patchprism.jobs.run import Run
    from patchprism.jobs.video.job import color_clip
    from patchprism.lenses.clips import clip_lens

    saved, quiet = clip_options.save_prism, running.quiet
    if saved and os.path.realpath(saved) in (os.path.realpath(clip), os.path.realpath(out)):
        raise OutputError(saved, "it is the input or the output of this command")
    with progress(quiet=quiet) as tell, open_engine() as engine:
        report = color_clip(
            clip,
            out,
            clip_options,
            settings,
            coloring.coloring(),
            Run(engine=engine, tell=tell, warn=warner(quiet=quiet)),
            looking=clip_lens(lens),
        )
    if quiet:
        print(report.out)
        if saved:
            print(saved)
    else:
        _summarise(report)
    for warning in report.warnings:
        note(f"warning: {advised_by_flags(warning)}")
    for problem in report.problems:
        note(f"failed: {advised_by_flags(problem)}")
    if report.n_problems:
        typer.echo(f"{counted(report.n_problems, 'problem')} in the clip; all else is done", err=True)
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)


def _summarise(report: VideoReport) -> None:
    prism = report.prism
    split = (
        "all patches kept"
        if prism.side_ == "none"
        else f"foreground: score {prism.side_} {prism.threshold_:.3g}"
    )
    where = (
        f"fitted on {counted(prism.n_photos_, 'frame')}" if report.fitted_here else "as the prism was fitted"
    )
    (height, width), (rows, columns) = report.size, report.grid
    stages = ", ".join(f"{stage} {s:.1f} s" for stage, s in report.seconds.items() if s >= 0.05)
    for label, text in (
        ("model", f"{report.record.title}, weights from {report.weights}"),
        ("colours", report.lens or f"{where}; {split}"),
        ("frames", f"{report.frames}, {width} × {height} pixels, {columns} × {rows} patches each"),
        ("sound", report.sound),
        ("time", f"{sum(report.seconds.values()):.1f} s ({stages}), {report.fps:.1f} frames a second"),
        *(("hint", advised_by_flags(hint)) for hint in report.hints),
        ("wrote", str(report.out)),
    ):
        print_line(label, text)
