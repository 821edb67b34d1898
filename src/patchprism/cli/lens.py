"""Options of the lenses on the command line."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.settings import Settings
    from patchprism.lenses.options import LensOptions
    from patchprism.pictures.options import PictureOptions

_PANEL = "Lenses"

Lenses = Annotated[
    list[str] | None,
    typer.Option(
        "--lens",
        metavar="NAME",
        help="Lens to look through: pca (the default), score, norm, similarity, matches, clusters or "
        "attention. May be repeated.",
        rich_help_panel=_PANEL,
    ),
]


def lens_options(
    names: Sequence[str] | None, given: LensOptions, pictures: PictureOptions, settings: Settings
) -> tuple[list[str], LensOptions]:
    """The requested lenses and their options, completed from other options.

    Raises
    ------
    OptionError
        If a name or a value is not allowed.
    """
    from patchprism.lenses.looking import check_lenses

    layer = settings.layer
    if layer is not None and not isinstance(layer, int):
        if "attention" in (names or ()):
            raise OptionError(
                f"the lens attention needs a single layer, got --layer {','.join(map(str, layer))}"
            )
        layer = None
    options = replace(given, upsample=pictures.upsample, layer=-1 if layer is None else layer)
    return check_lenses(names or ["pca"], options), options
