"""``patchprism fit``: fit a prism, to colour photos with it later."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import many, options
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes, without
from patchprism.jobs.settings import Settings
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support.options import OUTPUT

PrismOut = Annotated[
    str,
    typer.Option(
        "--out", "-o", metavar="FILE", help="Prism to write, for example dogs.prism.", rich_help_panel=OUTPUT
    ),
]


@takes(
    coloring=only(ColoringOptions, "sample", "seed", "mask", "head", "force"),
    settings=without(Settings, *MASK_OPTIONS),
    running=without(Running, "resume"),
)
def fit(
    photos: options.PhotosOrStore,
    out: PrismOut,
    coloring: ColoringOptions,
    settings: Settings,
    running: Running,
) -> None:
    """Fit a prism, for `patchprism render --prism FILE` to give any photo the same colours.

    The fit is exact for any number of photos, and memory does not grow with their number. To resume an interrupted
    run, repeat the command.
    """
    from patchprism.jobs.prisms import fit_prism

    with many.running(running.engine, running.workers, quiet=running.quiet) as run:
        outcome = fit_prism(photos, out, settings=settings, run=run, coloring=coloring.coloring())
    if running.quiet:
        print(out)
    else:
        many.print_lines(
            [*many.lines_of(outcome), *many.lines_of_fit(outcome), *many.hints_of(outcome), ("wrote", out)]
        )
    many.finish(outcome, quiet=running.quiet)
