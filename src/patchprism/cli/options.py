"""Options and arguments that only the commands have: the source of the prism, and how a job is run."""

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
    """Which prism colours the photos, and how it is fitted."""

    prism: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Use a prism that was fitted earlier instead of fitting one.",
        panel=FIT,
    )
    mask: str | None = option(
        None,
        check=optional(checks.path),
        metavar="DIR|alpha|FILE.json",
        help="Learn the foreground from masks of some photos. Give a folder of PNG files with the "
        "photos' names (0 is background), alpha for the photos' own alpha channels, or a COCO "
        "file. Photos with a mask keep it as their foreground.",
        panel=FIT,
    )
    head: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Find the foreground with a head from `patchprism teach` or the explorer.",
        panel=FIT,
    )
    force: bool = option(
        False,
        check=checks.flag,
        help="Use the prism or head even if it was fitted with another model, weights, framing or dtype.",
        panel=FIT,
    )
    sample: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1)),
        metavar="N",
        help="Fit on a random sample of N photos.",
        panel=FIT,
    )
    seed: int = option(0, check=checks.seed, metavar="N", help="Random seed for --sample.", panel=FIT)
    fetch_from: tuple[str, ...] = option(
        (),
        check=checks.texts,
        metavar="ADDRESS",
        help="Also fetch photos that a feature store lists at this bucket or host, for example "
        "s3://bucket. Photos beside the store need no option. May be repeated.",
        panel=INPUT,
    )

    def sampled(self) -> Sample:
        """The photos to fit on."""
        from patchprism.jobs.run import Sample

        return Sample(self.sample, self.seed)

    def coloring(self) -> Coloring:
        """The loaded prism, or how to fit one.

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
    """How a job is run. These options do not change its results."""

    engine: str = option(
        "local",
        check=partial(checks.choice, allowed=ENGINES),
        metavar="local|ray",
        help="Where to run: local on this machine, ray on a Ray cluster.",
        panel=SCALE,
    )
    workers: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1, high=MAX_WORKERS)),
        metavar="N",
        help="Number of workers for --engine ray. Default: one per GPU, or one per two CPU cores.",
        panel=SCALE,
    )
    resume: bool = option(
        False,
        check=checks.flag,
        help="Keep unfinished work in the output folder, so that the same command can resume an "
        "interrupted run. Always on above 64 photos and with --engine ray.",
        panel=SCALE,
    )
    quiet: bool = option(
        False,
        check=checks.flag,
        flag="--quiet -q",
        help="Print only the paths of the files written.",
        panel=OUTPUT,
    )


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all subfolders), patterns or addresses like s3://...",
        show_default=False,
    ),
]
# Default folder of the pictures.
OUT = "out"
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder to write to, created if missing; or an address like s3://bucket/out.",
        rich_help_panel=OUTPUT,
    ),
]
PhotosOrStore = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all subfolders), patterns or addresses like s3://...; or "
        "one feature store (.zarr).",
        show_default=False,
    ),
]
