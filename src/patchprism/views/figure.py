"""The overview figure of a view."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.pictures.outline import outlined
from patchprism.pictures.sheet import Bar, Group, Panel, Sheet, heat, map_panel, photo_panel

if TYPE_CHECKING:
    from PIL import Image

    from patchprism.jobs.view import View

HEADS = ("photo", "score, foreground outlined", "colours", "all patches")


def overview_sheet(view: View) -> Sheet:
    """One row per photo: the photo, its score, its colours and its all-patch picture."""

    def photo(index: int, size: tuple[int, int]) -> Image.Image:
        return photo_panel(view.photos.shown(index, view.framing), size)

    def score(index: int, size: tuple[int, int]) -> Image.Image:
        part = view.parts[index]
        return outlined(map_panel(heat(part.score, 0.0, 1.0), size), part.foreground)

    def colors(index: int, size: tuple[int, int]) -> Image.Image:
        return map_panel(view.parts[index].rgb, size)

    def colors_all(index: int, size: tuple[int, int]) -> Image.Image:
        return map_panel(view.parts[index].rgb_all, size)

    groups = [
        Group(
            [Panel(part.foreground.shape, partial(draw, i)) for draw in (photo, score, colors, colors_all)],
            Path(view.names[i]).name,
            i,
        )
        for i, part in enumerate(view.parts)
    ]
    note = "Each row: a photo, its score with the foreground outlined, its colours, and the colours of all patches."
    return Sheet(groups, heads=HEADS, bars=(Bar("score", "0", "1"),), columns=1, notes=(note,))
