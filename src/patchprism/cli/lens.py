"""Options of the lenses on the command line, and the way from them to results."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchprism.jobs.render import Coloring
    from patchprism.jobs.run import Outcome, Run
    from patchprism.jobs.settings import Settings
    from patchprism.lenses import LensOptions
    from patchprism.pictures.picture import PictureOptions

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
        match_all=match_all,
        match_lines=match_lines,
        upsample=upsample,
        layer=layer if isinstance(layer, int) else -1,
    )
    return check_lenses(names or ["pca"], options), options


def render_through(
    names: Sequence[str],
    options: LensOptions,
    photos: Sequence[str],
    out: str,
    *,
    settings: Settings,
    pictures: PictureOptions,
    run: Run,
    coloring: Coloring,
    wrote: Callable[[str], None],
) -> Outcome:
    """Write what lenses show of photos in memory.

    What can be refused is refused before photos are read: points in photos that are not there, a network
    without attention.
    """
    import os

    from patchprism.jobs.inputs import list_photos
    from patchprism.jobs.network import load_network
    from patchprism.jobs.view import make_view
    from patchprism.lenses import check_lenses, look_through
    from patchprism.lenses.attention import check_backbone
    from patchprism.lenses.write import file_names
    from patchprism.photos.paths import unique_stems
    from patchprism.support.written import Output

    listed = list_photos(photos)
    check_lenses(names, options, photos=len(listed))
    _check_points(options, listed)
    stems = unique_stems([os.path.basename(photo) for photo in listed])
    more = file_names(names, options, stems, arrays=pictures.arrays, format=pictures.format)
    Output(out, prism=coloring.prism.loaded_from if coloring.prism else "").check(
        [*pictures.names(stems), *more], listed
    )
    if "attention" in names:
        backbone = load_network(settings.resolved(coloring.prism), run.tell)
        check_backbone(backbone, has_points=bool(options.at), layer=options.layer)
        run = replace(run, backbone=backbone)
    view = make_view(photos, settings, run, coloring)
    # A prism may bring the layer that it was fitted on.
    if isinstance(view.settings["layer"], int):
        options = replace(options, layer=view.settings["layer"])
    run.tell("lenses", 0, None)
    found = look_through(view, names, options, backbone=run.backbone)
    written, outcome = view.write(out, pictures, found)
    for name in written:
        wrote(os.path.join(out, name))
    return outcome


def _check_points(options: LensOptions, photos: Sequence[Any]) -> None:
    from patchprism.features.extraction import photo_names
    from patchprism.lenses.points import find_photo, parse_point

    for text in options.at:
        find_photo(parse_point(text)[0], photo_names(photos))
