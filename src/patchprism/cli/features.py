"""``patchprism features``: write the features of photos, for other commands and programs."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import many, options
from patchprism.cli.options import Running
from patchprism.cli.takes import takes, without
from patchprism.jobs.settings import Settings
from patchprism.prism.options import DEFAULTS
from patchprism.support.options import OUTPUT

StoreOut = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="STORE",
        help="Feature store to write, for example feats.zarr.",
        rich_help_panel=OUTPUT,
    ),
]
Flat = Annotated[
    str | None,
    typer.Option(
        "--flat",
        metavar="FILE",
        help="Also write a Parquet table with the columns photo, row, column and vector. Needs "
        "patchprism[tables].",
        rich_help_panel=OUTPUT,
    ),
]
TokensDtype = Annotated[
    str,
    typer.Option(
        "--tokens",
        metavar="float16|float32",
        help="Number format of the stored tokens; float16 halves the size.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace a store of other photos or settings.", rich_help_panel=OUTPUT),
]


@takes(settings=without(Settings, *DEFAULTS), running=without(Running, "resume"))
def features(
    photos: options.Photos,
    out: StoreOut,
    settings: Settings,
    running: Running,
    flat: Flat = None,
    tokens: TokensDtype = "float16",
    overwrite: Overwrite = False,
) -> None:
    """Write the patch features of photos to a store (Zarr v3), which other commands accept instead of photos.

    To resume an interrupted run, repeat the command. An unfinished store cannot be opened.
    """
    from patchprism.features.store import StoredFeatures
    from patchprism.jobs.stores import extract_features, write_table

    if flat is not None:  # report problems with this file now, and not after hours
        from patchprism.support.files import check_target
        from patchprism.support.folders import is_remote, local_path

        check_target(flat, read=[out, settings.weights, settings.model])
        if is_remote(flat) or local_path(flat).exists():
            from patchprism.jobs.inputs import open_input

            listed = open_input(photos)
            check_target(flat, listed if isinstance(listed, list) else [])
    many.warn_if_inside(out, photos)
    with many.running(running.engine, running.workers, quiet=running.quiet) as run:
        outcome = extract_features(
            photos, out, settings=settings, run=run, tokens=tokens, overwrite=overwrite
        )
        if flat is not None:
            write_table(StoredFeatures(out), flat, tell=run.tell)
    written = [out, *([flat] if flat else [])]
    if running.quiet:
        for path in written:
            print(path)
    else:
        there = " (it was already complete)" if outcome.already else ""
        many.print_lines([*many.lines_of(outcome), ("wrote", " and ".join(written) + there)])
    many.finish(outcome, quiet=running.quiet)
