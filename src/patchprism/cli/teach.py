"""``patchprism teach``: fit a head to masks of a few photos."""

from __future__ import annotations

from typing import Annotated

import typer

from patchprism.cli import many, options
from patchprism.cli.options import Running
from patchprism.cli.takes import only, takes, without
from patchprism.jobs.settings import Settings
from patchprism.prism.options import DEFAULTS
from patchprism.support import checks
from patchprism.support.options import FIT, OUTPUT
from patchprism.support.words import counted

HeadOut = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Head to write, for example dogs.head.safetensors.",
        rich_help_panel=OUTPUT,
    ),
]
Masks = Annotated[
    str,
    typer.Option(
        "--masks",
        metavar="DIR|alpha|FILE.json",
        help="Masks of some of the photos. Give a folder of PNG files with the photos' names, alpha "
        "for the photos' own alpha channels, or a COCO file.",
        rich_help_panel=FIT,
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAME,NAME,...",
        help="Names of the classes, background first. The pixels of the PNG files then count from 0 "
        "in this order; 255 is unlabelled. Default: background and one class of objects.",
        rich_help_panel=FIT,
    ),
]
Weight = Annotated[
    float,
    typer.Option(
        "--c",
        metavar="FLOAT",
        help="Inverse strength of the penalty on large weights (C in scikit-learn).",
        rich_help_panel=FIT,
    ),
]


@takes(settings=without(Settings, *DEFAULTS), running=only(Running, "quiet"))
def teach(
    photos: options.PhotosOrStore,
    masks: Masks,
    out: HeadOut,
    settings: Settings,
    running: Running,
    classes: Classes = None,
    c: Weight = 10.0,
) -> None:
    """Teach a head the foreground from masks of a few photos, for `patchprism render --head FILE`.

    A few masks are enough; photos without a mask are not used. A head belongs to the model and layer that it was
    taught with.
    """
    from patchprism.cli.console import print_notes
    from patchprism.cli.exits import EXIT_SOME_PHOTOS_FAILED
    from patchprism.jobs.given import open_masks
    from patchprism.jobs.teaching import teach_head
    from patchprism.prism.head import Head
    from patchprism.prism.head_file import class_names

    c = checks.number("c", c, low=1e-6, high=1e6)
    names = class_names([each.strip() for each in classes.split(",")]) if classes is not None else None
    given = open_masks(masks, classes=len(names) if names else 0)
    with many.running("local", None, quiet=running.quiet, keeps=False) as run:
        found = teach_head(photos, given, out, head=Head(C=c, classes=names), settings=settings, run=run)
    if running.quiet:
        print(out)
    else:
        head = found.head
        patches = ", ".join(
            f"{name} {count:,}" for name, count in zip(head.classes_, head.n_patches_, strict=True)
        )
        many.print_lines(
            [
                ("masks", f"{counted(head.n_photos_, 'photo')}; patches: {patches}"),
                ("model", f"{found.model}, weights from {found.weights_source}"),
                ("fit", f"{found.agreement:.1%} of these patches are classified correctly"),
                ("wrote", out),
            ]
        )
    print_notes(found.notes, quiet=running.quiet)
    many.warn_of_failures(found.failures)
    if found.failures:
        raise typer.Exit(EXIT_SOME_PHOTOS_FAILED)
