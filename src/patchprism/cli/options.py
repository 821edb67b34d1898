"""Options that several commands share: one spelling, one help text, one check each."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.errors import OptionError
from patchprism.support.checks import said

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patchprism.jobs.settings import Settings

_INPUT, _MODEL, _FIT, _OUTPUT = "What goes in", "The network", "Foreground and colours", "What comes out"
_SCALE = "Many photos"


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


def parse_layers(text: str | None) -> int | tuple[int, ...] | None:
    """One layer, or several apart by commas, e.g. ``-1`` or ``2,5,8,11``.

    Raises
    ------
    OptionError
        If it is anything else.
    """
    if text is None:
        return None
    try:
        layers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(
            f"layer must be a number or several like 2,5,8,11, got {said(text)}", option="layer"
        ) from error
    return layers[0] if len(layers) == 1 else layers


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


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings among a command's options, by their names; those that are texts are read.

    Raises
    ------
    OptionError
        If a text makes no sense.
    """
    from patchprism.jobs.settings import Settings

    chosen: dict[str, Any] = {each.name: given[each.name] for each in fields(Settings) if each.name in given}
    chosen["layer"] = parse_layers(chosen["layer"])
    chosen["range"] = parse_range(chosen["range"])
    for name in ("mean", "std"):
        chosen[name] = parse_triple(name, chosen[name])
    if "threshold" in chosen:  # with it come all that a fit has
        chosen["threshold"] = parse_threshold(chosen["threshold"])
        chosen["components"] = parse_components(chosen["components"])
    return Settings(**chosen)


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
Layer = Annotated[
    str | None,
    typer.Option(
        metavar="N[,N...]",
        help="Block whose tokens are taken, from 0, or from the end: -1 (the default) is the last; "
        "several lie side by side.",
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
        "--final-norm/--no-norm",
        help="Apply the network's final norm to the tokens (the default), or not.",
        show_default=False,
        rich_help_panel=_MODEL,
    ),
]
TokenNorm = Annotated[
    str | None,
    typer.Option(
        "--norm",
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
MaskThreshold = Annotated[
    float | None,
    typer.Option(
        metavar="FLOAT",
        help="Show the foreground at this threshold; the colours stay as fitted at [bold]--threshold[/bold].",
        rich_help_panel=_FIT,
    ),
]
MaskSide = Annotated[
    str | None,
    typer.Option(
        metavar="above|below|none", help="The side to show, where it is another one.", rich_help_panel=_FIT
    ),
]
Opening = Annotated[
    int,
    typer.Option(min=0, help="Drop specks of the shown foreground of so many patches.", rich_help_panel=_FIT),
]
Closing = Annotated[
    int,
    typer.Option(min=0, help="Fill holes in the shown foreground of so many patches.", rich_help_panel=_FIT),
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
Overlay = Annotated[
    float | None,
    typer.Option(
        metavar="ALPHA",
        help="Also write each photo under its colours, with this opacity from 0 to 1.",
        rich_help_panel=_OUTPUT,
    ),
]
Background = Annotated[
    str,
    typer.Option(
        metavar="black|grey|photo",
        help="What a photo's picture shows where there is no foreground.",
        rich_help_panel=_OUTPUT,
    ),
]
Basis = Annotated[
    str,
    typer.Option(
        metavar="object|all",
        help="What a photo's picture shows: colours of the foreground, or of all patches.",
        rich_help_panel=_OUTPUT,
    ),
]
Arrays = Annotated[
    bool,
    typer.Option(
        "--arrays",
        help="Also write each photo's score, foreground, rgb and rgb_all as .npz.",
        rich_help_panel=_OUTPUT,
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        metavar="png[,coco]",
        help="Also write the foreground at the photos' resolution: png, a mask of each photo; coco, one COCO JSON.",
        rich_help_panel=_OUTPUT,
    ),
]
Outline = Annotated[
    bool,
    typer.Option(
        "--outline",
        help="Draw a line around the foreground on the photos of the figures.",
        rich_help_panel=_OUTPUT,
    ),
]
Instances = Annotated[
    bool,
    typer.Option(
        "--instances",
        help="Part the foreground into objects: instances.csv, and an annotation each in --masks coco.",
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
FetchFrom = Annotated[
    list[str] | None,
    typer.Option(
        "--fetch-from",
        metavar="ADDRESS",
        help="Also show photos that a feature store names by addresses of this bucket or host, like s3://bucket; "
        "those of the store's own are shown anyway. May be given several times.",
        show_default=False,
        rich_help_panel=_INPUT,
    ),
]
Sample = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Fit on a random sample of so many photos; the report says so.",
        rich_help_panel=_FIT,
    ),
]
Seed = Annotated[int, typer.Option(help="Of the sample.", rich_help_panel=_FIT)]
EngineName = Annotated[
    str,
    typer.Option("--engine", metavar="local|ray", help="Where the work is done.", rich_help_panel=_SCALE),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="With --engine ray: how many work at once. Default: one a GPU, or one for two cores.",
        rich_help_panel=_SCALE,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep work in DIR until all is done, so that the same command takes up a broken run. Above 64 "
        "photos, and with --engine, that is always so.",
        rich_help_panel=_SCALE,
    ),
]
