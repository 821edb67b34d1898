"""What only commands take: where prisms come from, how work is run, arguments."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.errors import OptionError
from patchprism.jobs.engines import ENGINES, MAX_WORKERS
from patchprism.support import checks
from patchprism.support.checks import optional, said
from patchprism.support.options import FIT, INPUT, OUTPUT, SCALE, Checked, option

if TYPE_CHECKING:
    from patchprism.jobs.render import Coloring
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
    force: bool = option(
        False,
        check=checks.flag,
        help="Use the prism even if the model, weights, framing or dtype differ from those of its fit.",
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
        PrismError
            If the prism cannot be read.
        """
        from patchprism.jobs.render import Coloring
        from patchprism.prism.estimator import Prism

        return Coloring(
            prism=Prism.load(self.prism) if self.prism else None,
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


_INPUT, _MODEL, _FIT, _OUTPUT = INPUT, "The network", FIT, OUTPUT


def parse_triple(name: str, text: str | None) -> tuple[float, float, float] | None:
    """A number for each of red, green and blue, apart by commas, or one for all three.

    Raises
    ------
    OptionError
        If it is anything else.

    Examples
    --------
    >>> parse_triple("mean", "0.485,0.456,0.406"), parse_triple("std", "0.5")
    ((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
        red, green, blue = values * 3 if len(values) == 1 else values
    except ValueError as error:
        raise OptionError(f"{name} must be three numbers like 0.485,0.456,0.406, got {text!r}") from error
    return red, green, blue


def parse_threshold(text: str | None) -> float | str | None:
    """``auto`` and ``otsu`` as they are, anything else as a number.

    Raises
    ------
    OptionError
        If it is neither.
    """
    if text in (None, "auto", "otsu"):
        return text
    try:
        return float(text)
    except ValueError as error:
        raise OptionError(
            f"threshold must be 'auto', 'otsu' or a number from 0 to 1, got {said(text)}", option="threshold"
        ) from error


def parse_components(text: str | None) -> tuple[int, int, int] | None:
    """Three numbers apart by commas, e.g. ``1,2,3`` or ``2,-1,3``.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    if text is None:
        return None
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"components must be three numbers like 1,2,3, got {said(text)}", option="components"
        ) from error
    return red, green, blue


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Two numbers apart by a comma, e.g. ``0,4095``.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    if text is None:
        return None
    from patchprism.photos.images import value_range

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"range must be two numbers like 0,4095, got {text!r}") from error
    return value_range((low, high))


Photos = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all below them) or patterns.",
        show_default=False,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME",
        help="A name that [bold]patchprism models[/bold] lists, hf:REPO, hf:FOLDER or timm:NAME. "
        "Default: dinov2_vits14, or the prism's.",
        rich_help_panel=_MODEL,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|URL|hf:REPO",
        help="Where the weights are, if not in a cache or at the official address.",
        rich_help_panel=_MODEL,
    ),
]
Facet = Annotated[
    str | None,
    typer.Option(
        metavar="token|query|key|value",
        help="What is taken of the block: its tokens (the default), or a projection of its attention.",
        rich_help_panel=_MODEL,
    ),
]
FinalNorm = Annotated[
    bool | None,
    typer.Option(
        "--final-norm/--no-final-norm",
        help="Apply the network's final norm to the tokens (the default), or not.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
TokenNorm = Annotated[
    str | None,
    typer.Option(
        "--token-norm",
        metavar="none|l2",
        help="l2 gives each token unit length before the PCA, so that high-norm patches weigh no more.",
        rich_help_panel=_MODEL,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="auto|cpu|cuda|mps",
        help="Where the network computes; auto takes a GPU if there is one.",
        rich_help_panel=_MODEL,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        metavar="auto|float32|bfloat16|float16",
        help="What the network computes in; auto is float32.",
        rich_help_panel=_MODEL,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Photos a forward pass, at most. Colours do not depend on it.",
        rich_help_panel=_MODEL,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="default|seed",
        help="default: each photo's shape, Otsu, auto; seed: what the DINOv2 post did (square, 0.6, above).",
        rich_help_panel=_INPUT,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        min=1,
        help="Shorter edge of the photo as the network sees it, in pixels. Default: 448.",
        rich_help_panel=_INPUT,
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="Values that are black and white in photos that do not hold 8 bits, like 0,4095 for 12 bits in 16. "
        "Default: all that the file's numbers can hold, or the prism's.",
        rich_help_panel=_INPUT,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Mean of RGB from 0 to 1 that the network expects. Default: what is known of the model.",
        rich_help_panel=_INPUT,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Standard deviation of RGB from 0 to 1 that the network expects. Default: as for --mean.",
        rich_help_panel=_INPUT,
    ),
]
Threshold = Annotated[
    str | None,
    typer.Option(
        metavar="auto|otsu|FLOAT",
        help="Score (0 to 1) that separates foreground from background. Default: auto, fitted to the photos.",
        rich_help_panel=_FIT,
    ),
]
Foreground = Annotated[
    str | None,
    typer.Option(
        metavar="METHOD",
        help="How foreground is found: object (learned from what differs from the photos' borders), pca (first "
        "component, side by the borders), above or below (that side of the component), or none (keep all patches). "
        "Default: object.",
        rich_help_panel=_FIT,
    ),
]
ForegroundComponent = Annotated[
    int | None,
    typer.Option(
        metavar="1|2|3",
        help="Component that pca, above and below use as the score. Default: 1.",
        rich_help_panel=_FIT,
    ),
]
Scaling = Annotated[
    str | None,
    typer.Option(
        metavar="minmax|percentile|sigmoid",
        help="How components become colours. Default: minmax.",
        rich_help_panel=_FIT,
    ),
]
Components = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B",
        help="Components for red, green and blue, from 1 to 8; negative: turned around. Default: 1,2,3.",
        rich_help_panel=_FIT,
    ),
]
PrismFile = Annotated[
    str | None,
    typer.Option(
        "--prism",
        metavar="FILE",
        help="Colour with a prism fitted earlier instead of fitting.",
        rich_help_panel=_FIT,
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Use the prism even with another model, weights, framing or dtype.",
        rich_help_panel=_FIT,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        help="Folder to write to, made if missing; or an address like s3://bucket/out.",
        rich_help_panel=_OUTPUT,
    ),
]
Format = Annotated[
    str, typer.Option(metavar="png|jpg", help="Format of the pictures.", rich_help_panel=_OUTPUT)
]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print nothing but the paths of what was written.", rich_help_panel=_OUTPUT
    ),
]

# ---------------------------------------------------------------- many photos

PhotosOrStore = Annotated[
    list[str],
    typer.Argument(
        metavar="PHOTO",
        help="Photos: files, folders (with all below them), patterns, addresses like s3://... (with "
        "--engine ray); or one feature store (.zarr).",
        show_default=False,
    ),
]
