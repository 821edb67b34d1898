"""Options of the lenses on the command line, and the way from them to results."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.lenses import LensOptions

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
