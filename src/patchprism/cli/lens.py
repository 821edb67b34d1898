"""Options of the lenses on the command line, and the way from them to results."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchprism.jobs.view import View
    from patchprism.lenses import LensOptions, LensResult

_PANEL = "Lenses"

Lenses = Annotated[
    list[str] | None,
    typer.Option(
        "--lens",
        metavar="NAME",
        help="What to look for; several may be given: pca (default), score, norm, similarity, matches, clusters, "
        "attention.",
        rich_help_panel=_PANEL,
    ),
]
At = Annotated[
    list[str] | None,
    typer.Option(
        "--at",
        metavar="PHOTO:x,y",
        help="A point for similarity and attention, in the photo's pixels; PHOTO is a name or a number from 1. "
        "Several may be given.",
        rich_help_panel=_PANEL,
    ),
]
Clusters = Annotated[
    str,
    typer.Option(
        metavar="K|auto", help="Number of clusters; auto takes the best silhouette.", rich_help_panel=_PANEL
    ),
]
MatchPhotos = Annotated[
    list[str] | None,
    typer.Option(
        "--match-photo",
        metavar="PHOTO",
        help="A photo that matches compares, by name or by number from 1; several may be given. Default: all.",
        rich_help_panel=_PANEL,
    ),
]
MatchAll = Annotated[
    bool, typer.Option("--match-all", help="Match patches of the background too.", rich_help_panel=_PANEL)
]
MatchLines = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Matches drawn for a pair of photos at most.", rich_help_panel=_PANEL
    ),
]
Space = Annotated[
    str | None,
    typer.Option(
        metavar="rgb|oklab",
        help="Components as red, green, blue, or in OKLab, where equal steps look equal. Default: rgb.",
        rich_help_panel="Foreground and colours",
    ),
]
Upsample = Annotated[
    str,
    typer.Option(
        metavar="nearest|bilinear|guided",
        help="From patches to pixels in the pictures of photos; guided follows the photo's edges.",
        rich_help_panel="What comes out",
    ),
]


def lens_options(
    names: Sequence[str] | None,
    at: Sequence[str] | None,
    clusters: str,
    match_all: bool,
    match_lines: int,
    upsample: str,
    match_photos: Sequence[str] | None = None,
    layer: int | tuple[int, ...] | None = None,
) -> tuple[list[str], LensOptions]:
    """The lenses asked for and their options, checked.

    Raises
    ------
    OptionError
        If a name or a value is not allowed.
    """
    from patchprism.lenses import LensOptions, check_lenses

    if isinstance(layer, tuple) and "attention" in (names or ()):
        raise OptionError(f"attention is that of one layer, got --layer {','.join(map(str, layer))}")
    options = LensOptions(
        at=tuple(at or ()),
        clusters=int(clusters) if re.fullmatch("[0-9]{1,9}", clusters) else clusters,
        match_photos=tuple(match_photos or ()),
        match_all=match_all,
        match_lines=match_lines,
        upsample=upsample,
        layer=layer if isinstance(layer, int) else -1,
    )
    return check_lenses(names or ["pca"], options), options


def visualize_through(
    names: Sequence[str], options: LensOptions, photos: Sequence[Any], **asked: Any
) -> tuple[View, list[LensResult]]:
    """:func:`~patchprism.visualize`, and what the lenses make of it.

    What can be refused is refused before photos are read: points in photos that are not there, a network
    without attention.
    """
    from patchprism.jobs.inputs import list_photos
    from patchprism.lenses import check_lenses, look_through
    from patchprism.views.visualize import visualize

    if list(names) == ["pca"]:
        return visualize(photos, **asked), []
    photos = list_photos(photos)
    check_lenses(names, options, photos=len(photos))
    _check_points(options, photos)
    backbone, seconds = None, dict[str, float]()
    if "attention" in names:
        backbone, seconds = _load_for_attention(options, asked)
        for name in ("model", "weights", "device", "dtype"):
            asked.pop(name)
    view = visualize(photos, backbone=backbone, **asked)
    view.seconds = seconds | view.seconds
    # A prism may bring the layer that it was fitted on.
    if isinstance(view.settings["layer"], int):
        options = replace(options, layer=view.settings["layer"])
    tell: Callable[[str, int, int | None], None] = asked["progress"]
    tell("lenses", 0, None)
    return view, look_through(view, names, options, backbone=backbone)


def _check_points(options: LensOptions, photos: Sequence[Any]) -> None:
    from patchprism.features.extraction import photo_names
    from patchprism.lenses.points import find_photo, parse_point

    for text in options.at:
        find_photo(parse_point(text)[0], photo_names(photos))


def _load_for_attention(options: LensOptions, asked: dict[str, Any]) -> tuple[Any, dict[str, float]]:
    from patchprism.backbones import load_backbone
    from patchprism.jobs.settings import Settings, Stopwatch
    from patchprism.lenses.attention import check_backbone

    settings = Settings(
        model=asked["model"], weights=asked["weights"], device=asked["device"], dtype=asked["dtype"]
    ).resolved()
    prism, watch = asked.get("prism"), Stopwatch()
    origin = prism.origin if prism else {}
    with watch("load model"):
        backbone = load_backbone(
            asked["model"] or origin.get("model") or str(settings.model),
            weights=settings.weights,
            device=settings.device,
            dtype=asked["dtype"] or origin.get("dtype") or "auto",
            progress=asked["progress"],
        )
    check_backbone(backbone, has_points=bool(options.at), layer=options.layer)
    return backbone, watch.seconds
