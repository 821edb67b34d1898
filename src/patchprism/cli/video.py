"""``patchprism video``: a clip in, the same clip in colours out."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.cli.console import advised_by_flags, note, print_line
from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes, without
from patchprism.errors import OutputError
from patchprism.jobs.settings import Settings
from patchprism.jobs.video.options import VideoOptions
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support.options import OUTPUT
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patchprism.jobs.video.drawing import VideoReport


@takes(
    clip_options=VideoOptions,
    settings=without(Settings, *MASK_OPTIONS),
    coloring=only(ColoringOptions, "prism", "mask", "head", "force"),
    running=only(Running, "quiet"),
)
def video(
    clip: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A video file or an animated picture; or photos in order: a folder, or a pattern with * or a counter "
            "like %04d.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A .mp4, .mov, .mkv or .webm; or for PNG pictures a folder or a pattern like frames/%04d.png.",
            rich_help_panel=OUTPUT,
        ),
    ],
    clip_options: VideoOptions,
    settings: Settings,
    coloring: ColoringOptions,
    running: Running,
) -> None:
    """Colour a video: every part of the objects in it in one colour from the first frame to the last.

    The prism is fitted on frames spread over the clip, or comes from --prism; frame times and sound are kept.
    """
    from patchprism.jobs.video.job import color_clip

    saved, quiet = clip_options.save_prism, running.quiet
    if saved and os.path.realpath(saved) in (os.path.realpath(clip), os.path.realpath(out)):
        raise OutputError(saved, "it is the clip, or what comes out")
    with frame_progress(quiet=quiet) as tell:
        report = color_clip(clip, out, clip_options, settings, coloring.coloring(), progress=tell)
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
        ("colours", f"{where}; {split}"),
        ("frames", f"{report.frames}, {width} × {height} pixels, {columns} × {rows} patches each"),
        ("sound", report.sound),
        ("time", f"{sum(report.seconds.values()):.1f} s ({stages}), {report.fps:.1f} frames a second"),
        *(("hint", advised_by_flags(hint)) for hint in report.hints),
        ("wrote", str(report.out)),
    ):
        print_line(label, text)


@contextmanager
def frame_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A function ``tell(stage, done, total)`` that draws bars with frames per second and the time left.

    Only on a terminal, on standard error.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from patchprism.cli.console import human_bytes

    class Amount(TextColumn):
        """Frames with their speed, or a download in bytes."""

        def render(self, task: Any) -> Text:
            if task.fields["counts_frames"]:
                total = "?" if task.total is None else f"{task.total:.0f}"
                speed = f"  {task.speed:.1f} frames/s" if task.speed else ""
                return Text(f"{task.completed:.0f}/{total}{speed}")
            if not task.description.startswith(("downloading ", "fetching ")):
                return Text("")
            total = "" if task.total is None else f"/{human_bytes(int(task.total))}"
            return Text(f"{human_bytes(int(task.completed))}{total}")

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        Amount(""),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        transient=True,
    ) as bars:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, counts_frames=stage in ("fit", "frames"))
            bars.update(tasks[stage], completed=done, total=total)

        yield tell
