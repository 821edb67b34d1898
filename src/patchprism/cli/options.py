"""Options of commands only: where prisms come from, how work is run, arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.jobs.engines import ENGINES, MAX_WORKERS
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import FIT, INPUT, OUTPUT, SCALE, Checked, option

if TYPE_CHECKING:
    from patchprism.jobs.coloring import Coloring
    from patchprism.jobs.run import Sample


@dataclass(frozen=True, kw_only=True)
class ColoringOptions(Checked):
    """Which prism colours the photos, and which photos it is fitted to."""

    prism: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Colour with a prism that was fitted earlier, instead of fitting one.",
        panel=FIT,
    )
    mask: str | None = option(
        None,
        check=optional(checks.path),
        metavar="DIR|alpha|FILE.json",
        help="Learn the foreground from masks of some of the photos: a folder of PNG files with the photos' names "
        "(0 is background), the photos' own alpha channels, or a COCO file. Photos that have a mask keep it.",
        panel=FIT,
    )
    head: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Find the foreground with a head that [bold]patchprism teach[/bold] or the explorer's page wrote.",
        panel=FIT,
    )
    force: bool = option(
        False,
        check=checks.flag,
        help="Use the prism or head even if the model, weights, framing or dtype differ from those of its fit.",
        panel=FIT,
    )
    sample: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1)),
        metavar="N",
        help="Fit on a random sample of N photos; the report says so.",
        panel=FIT,
    )
    seed: int = option(0, check=checks.seed, metavar="N", help="Random seed for --sample.", panel=FIT)
    fetch_from: tuple[str, ...] = option(
        (),
        check=checks.texts,
        metavar="ADDRESS",
        help="Also show photos that a feature store names by addresses of this bucket or host, like s3://bucket; "
        "those beside the store are shown anyway. May be given several times.",
        panel=INPUT,
    )

    def sampled(self) -> Sample:
        """The photos to fit on."""
        from patchprism.jobs.run import Sample

        return Sample(self.sample, self.seed)

    def coloring(self) -> Coloring:
        """The prism, loaded, or what it is to be fitted on.

        Raises
        ------
        PatchPrismError
            If the prism, the masks or the head cannot be read.
        """
        from patchprism.jobs.coloring import Coloring
        from patchprism.jobs.given import open_masks
        from patchprism.prism.estimator import Prism
        from patchprism.prism.head import Head

        return Coloring(
            prism=Prism.load(self.prism) if self.prism else None,
            masks=open_masks(self.mask) if self.mask else None,
            head=Head.load(self.head) if self.head else None,
            force=self.force,
            sample=self.sampled(),
            fetch_from=self.fetch_from,
        )


@dataclass(frozen=True, kw_only=True)
class Running(Checked):
    """How a job is run; nothing here changes its results."""

    engine: str = option(
        "local",
        check=partial(checks.choice, allowed=ENGINES),
        metavar="local|ray",
        help="Where the work is done.",
        panel=SCALE,
    )
    workers: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1, high=MAX_WORKERS)),
        metavar="N",
        help="Number of workers of --engine ray. Default: one per GPU, or one per two cores.",
        panel=SCALE,
    )
    resume: bool = option(
        False,
        check=checks.flag,
        help="Keep unfinished work in DIR, so that the same command resumes an interrupted run. Above 64 photos, and "
        "with --engine ray, this is always on.",
        panel=SCALE,
    )
    quiet: bool = option(
        False,
        check=checks.flag,
        flag="--quiet -q",
        help="Print nothing but the paths of what was written.",
        panel=OUTPUT,
    )


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all below them) or patterns.",
        show_default=False,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder to write to, made if missing; or an address like s3://bucket/out.",
        rich_help_panel=OUTPUT,
    ),
]
PhotosOrStore = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all below them), patterns, addresses like s3://... (with "
        "--engine ray); or one feature store (.zarr).",
        show_default=False,
    ),
]
