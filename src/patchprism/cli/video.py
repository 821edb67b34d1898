"""``patchprism video``: a clip in, the same clip in colours out."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.cli import EXIT_SOME_PHOTOS_FAILED, lens, options
from patchprism.cli.console import note, print_line
from patchprism.errors import OutputError
from patchprism.support import checks
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patchprism.jobs.video import VideoReport

_INPUT, _OUTPUT, _FIT = "What goes in", "What comes out", "Foreground and colours"


def parse_time(name: str, text: str | None) -> Fraction | None:
    """Seconds, from ``12.5``, ``1:30`` or ``1:02:03.5``.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    if text is None:
        return None
    parts = text.split(":")
    # Digits alone: Fraction would also take 1/0, and work for hours on 1e999999999.
    plain = all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", part) for part in parts)
    times = [Fraction(part) for part in parts] if plain and len(parts) <= 3 else []
    if not times or any(time >= 60 for time in times[1:]):
        checks.refuse(name, "seconds, MM:SS or HH:MM:SS", text)
    return sum((time * 60**i for i, time in enumerate(reversed(times))), Fraction(0))


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
            rich_help_panel=_OUTPUT,
        ),
    ],
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="First moment: seconds, MM:SS or HH:MM:SS.", rich_help_panel=_INPUT
        ),
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Moment to stop before.", rich_help_panel=_INPUT)
    ] = None,
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Take each Nth frame.", rich_help_panel=_INPUT)
    ] = 1,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames a second of an image sequence. Default: 25.", rich_help_panel=_INPUT),
    ] = None,
    preset: options.Preset = None,
    size: options.Size = None,
    range: options.Range = None,
    mean: options.Mean = None,
    std: options.Std = None,
    model: options.Model = None,
    weights: options.Weights = None,
    layer: options.Layer = None,
    facet: options.Facet = None,
    final_norm: options.FinalNorm = None,
    token_norm: options.TokenNorm = None,
    device: options.Device = "auto",
    dtype: options.Dtype = None,
    batch_size: options.BatchSize = None,
    threshold: options.Threshold = None,
    foreground: options.Foreground = None,
    foreground_component: options.ForegroundComponent = None,
    scaling: options.Scaling = None,
    components: options.Components = None,
    space: lens.Space = None,
    prism: options.PrismFile = None,
    force: options.Force = False,
    fit_frames: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Fit on N frames spread over the clip.", rich_help_panel=_FIT),
    ] = 32,
    save_prism: Annotated[
        str | None, typer.Option(metavar="FILE", help="Also save the prism.", rich_help_panel=_FIT)
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="side|overlay|colors",
            help="Frame beside its colours (the default), under them, or the colours alone.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    overlay: Annotated[
        float | None,
        typer.Option(
            metavar="ALPHA",
            help="Opacity of the colours over the frame, from 0 to 1. Alone it means --layout overlay.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    upsample: Annotated[
        str | None,
        typer.Option(
            metavar="nearest|bilinear|guided",
            help="From patches to pixels: rectangles (the default), blended, or along the frame's edges.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    # The old name of --upsample bilinear.
    smooth: Annotated[bool, typer.Option("--smooth", hidden=True)] = False,
    steady: Annotated[
        bool,
        typer.Option(
            help="Keep patches still where nothing moves, or show each frame as a photo would be.",
            rich_help_panel=_OUTPUT,
        ),
    ] = True,
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Quality, less is better. Default: 18 (H.264), 30 (VP9).",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    sound: Annotated[
        bool, typer.Option("--sound/--no-sound", help="Keep the sound.", rich_help_panel=_OUTPUT)
    ] = True,
    quiet: options.Quiet = False,
) -> None:
    """Colour a video: every part of the objects in it in one colour from the first frame to the last.

    The prism is fitted on frames spread over the clip, or comes from --prism; frame times and sound are kept.
    """
    # Read before PyAV and torch are: what is mistyped is said at once.
    first, last = parse_time("start", start), parse_time("end", end)
    chosen = options.parse_threshold(threshold)
    triple, layers = options.parse_components(components), options.parse_layers(layer)
    values = options.parse_range(range)
    middle, spread = options.parse_triple("mean", mean), options.parse_triple("std", std)
    from patchprism.jobs.video import render_video
    from patchprism.prism.estimator import Prism

    if save_prism and os.path.realpath(save_prism) in (os.path.realpath(clip), os.path.realpath(out)):
        raise OutputError(str(save_prism), "it is the clip, or what comes out")
    with frame_progress(quiet=quiet) as tell:
        report = render_video(
            clip,
            out,
            start=first,
            end=last,
            layout=layout,
            overlay=overlay,
            upsample=upsample,
            smooth=smooth,
            steady=steady,
            every=every,
            fps=fps,
            fit_frames=fit_frames,
            crf=crf,
            sound=sound,
            model=model,
            weights=weights,
            preset=preset,
            size=size,
            range=values,
            mean=middle,
            std=spread,
            threshold=chosen,
            foreground=foreground,
            foreground_component=foreground_component,
            scaling=scaling,
            components=triple,
            space=space,
            layer=layers,
            facet=facet,
            final_norm=final_norm,
            token_norm=token_norm,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            prism=Prism.load(prism) if prism else None,
            save_prism=save_prism,
            force=force,
            progress=tell,
        )
    if quiet:
        print(report.out)
        if save_prism:
            print(save_prism)
    else:
        _summarise(report)
    for warning in report.warnings:
        note(f"warning: {warning}")
    for problem in report.problems:
        note(f"failed: {problem}")
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
        ("model", f"{report.record.name}, weights from {report.weights}"),
        ("colours", f"{where}; {split}"),
        ("frames", f"{report.frames}, {width} × {height} pixels, {columns} × {rows} patches each"),
        ("sound", report.sound),
        ("time", f"{sum(report.seconds.values()):.1f} s ({stages}), {report.fps:.1f} frames a second"),
        *(("hint", hint) for hint in report.hints),
        ("wrote", str(report.out)),
    ):
        print_line(label, text)


@contextmanager
def frame_progress(*, quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """A function ``tell(stage, done, total)`` that draws bars with frames a second and the time left.

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
