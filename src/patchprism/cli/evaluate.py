"""``patchprism evaluate``: compare the foreground with true masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchprism.cli import many, options
from patchprism.cli.options import ColoringOptions, Running
from patchprism.cli.takes import only, takes
from patchprism.jobs.settings import Settings
from patchprism.pictures.options import PictureOptions
from patchprism.support.options import INPUT, OUTPUT

TrueMasks = Annotated[
    str,
    typer.Option(
        "--masks",
        metavar="DIR",
        help="Folder of true masks: PNG files with the photos' names; 0 is background.",
        rich_help_panel=INPUT,
    ),
]
JsonOut = Annotated[
    str | None,
    typer.Option(
        "--json",
        metavar="FILE",
        help="Also write the measures and settings to this file.",
        rich_help_panel=OUTPUT,
    ),
]


@takes(
    settings=Settings,
    coloring=only(ColoringOptions, "prism", "force", "mask", "head"),
    pictures=only(PictureOptions, "upsample"),
    running=only(Running, "quiet"),
)
def evaluate(
    photos: options.PhotosOrStore,
    masks: TrueMasks,
    settings: Settings,
    coloring: ColoringOptions,
    pictures: PictureOptions,
    running: Running,
    json: JsonOut = None,
) -> None:
    """Measure the foreground against true masks: IoU, max F, MAE, max E, S and CorLoc.

    Prints the measures of each photo and of all photos together. A mask may be larger or smaller than its
    photo, but must have the same proportions. Photos without a mask are listed.
    """
    from patchprism.cli.console import print_notes, print_table, stdout
    from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
    from patchprism.jobs.evaluation import MEASURES, evaluate_photos

    with many.running("local", None, quiet=running.quiet, keeps=False) as run:
        found = evaluate_photos(
            photos,
            masks,
            settings=settings,
            run=run,
            coloring=coloring.coloring(),
            upsample=pictures.upsample,
            out=json,
        )
    named = [] if running.quiet else [(Path(each["photo"]).name, each) for each in found.photos]
    named.append((f"all {len(found.photos):,}", found.overall))
    columns = [("photo", "left"), *((name.replace("_", " "), "right") for name in MEASURES)]
    rows = [(name, *(f"{each[measure]:.3f}" for measure in MEASURES)) for name, each in named]
    print_table("", columns, rows, console=stdout())
    print_notes(found.notes, quiet=running.quiet)
    many.warn_of_failures(found.failures)
    if found.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
