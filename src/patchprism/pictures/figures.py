"""Figures: several photos in one picture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.captions import caption, draw_text, fit_text, load_font
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

# Beyond these a figure is a poster: nobody reads it, and some viewers refuse it.
MAX_PHOTOS = 200

# Every eighth colour of viridis (Nathaniel Smith and Stéfan van der Walt, 2015, CC0), as drawn by Matplotlib.
_VIRIDIS = (
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d "
    "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a "
    "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
)
WHITE, MUTED = (255, 255, 255), (104, 112, 122)


def viridis(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Values in [0, 1], of any shape, to RGB in [0, 1] with one axis more; within 0.012 of Matplotlib's."""
    anchors = np.array([list(bytes.fromhex(color)) for color in "".join(_VIRIDIS).split()]) / 255.0
    places = np.linspace(0.0, 1.0, len(anchors))
    return np.stack([np.interp(values, places, anchors[:, channel]) for channel in range(3)], axis=-1)


def fg_mask_figure(
    shown: Sequence[NDArray[np.uint8]],
    scores: Sequence[NDArray[np.floating[Any]]],
    foregrounds: Sequence[NDArray[np.bool_]],
    *,
    names: Sequence[str] | None = None,
    side: Literal["above", "below", "none"] = "above",
    total: int | None = None,
) -> NDArray[np.uint8]:
    """Each crop with its score laid over it, background at 0; the panels in a grid near square.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops, as the backbone saw them.
    scores : sequence of np.ndarray, shape (h, w), floating
        In [0, 1].
    foregrounds : sequence of np.ndarray, shape (h, w), bool
    names : sequence of str, optional
        Captions.
    side : {"above", "below", "none"}, default "above"
        Where the foreground lies. With ``"below"`` one minus the score is shown, or the object would be as
        dark as the background.
    total : int, optional
        How many photos there are, where only the first 200 of them are given.

    Returns
    -------
    np.ndarray, shape (height, width, 3), uint8
        Of at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or not as many of one as of the other, or shapes do not agree.
    """
    _check(shown, scores, names, ndim=2)
    _check(shown, foregrounds, names, ndim=2)
    total = total or len(shown)
    panel_box, _ = sheet_sizes(total)

    def panels(index: int, size: tuple[int, int]) -> list[Image.Image]:
        score = np.asarray(scores[index])
        mask = np.asarray(foregrounds[index], dtype=bool)
        strength = np.where(mask, 1.0 - score if side == "below" else score, 0.0)
        photo = _shrink(shown[index], size)
        colors = _enlarge(viridis(strength), size)
        return [_blend(photo, colors)]

    columns = math.ceil(math.sqrt(min(total, MAX_PHOTOS)))
    sizes = [_panel_size(np.shape(score), panel_box) for score in scores[:MAX_PHOTOS]]
    return _sheet(total, sizes, 1, panels, names, box=panel_box, columns=columns, color_bar=True)


def results_figure(
    shown: Sequence[NDArray[np.uint8]],
    colors: Sequence[NDArray[np.floating[Any]]],
    *,
    names: Sequence[str] | None = None,
    total: int | None = None,
) -> NDArray[np.uint8]:
    """Each crop beside its colours, a row a photo; many photos go into several columns of such pairs.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops, as the backbone saw them.
    colors : sequence of np.ndarray, shape (h, w, 3), floating
        In [0, 1].
    names : sequence of str, optional
        Captions.
    total : int, optional
        How many photos there are, where only the first 200 of them are given.

    Returns
    -------
    np.ndarray, shape (height, width, 3), uint8
        Of at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or not as many of one as of the other, or shapes do not agree.
    """
    _check(shown, colors, names, ndim=3)
    total = total or len(shown)
    panel_box, columns = sheet_sizes(total)

    def panels(index: int, size: tuple[int, int]) -> list[Image.Image]:
        return [_shrink(shown[index], size), _enlarge(np.asarray(colors[index]), size)]

    sizes = [_panel_size(np.shape(picture)[:2], panel_box) for picture in colors[:MAX_PHOTOS]]
    return _sheet(total, sizes, 2, panels, names, box=panel_box, columns=columns, color_bar=False)


def _check(shown: Sequence[Any], values: Sequence[Any], names: Sequence[str] | None, *, ndim: int) -> None:
    if not len(shown) or len(shown) != len(values) or (names is not None and len(names) != len(shown)):
        count = "" if names is None else f" and {len(names)} names"
        raise OptionError(
            f"a figure needs as many photos as arrays, got {len(shown)} and {len(values)}{count}"
        )
    for index, (photo, value) in enumerate(zip(shown, values, strict=True)):
        if np.ndim(photo) != 3 or np.ndim(value) != ndim or 0 in np.shape(value):
            raise OptionError(f"photo {index} of a figure has shapes {np.shape(photo)} and {np.shape(value)}")


def sheet_sizes(total: int) -> tuple[int, int]:
    """About how large a panel is, and how many pairs stand side by side."""
    for most, box, columns in (
        (4, 288, 1),
        (6, 256, 1),
        (12, 224, 2),
        (27, 192, 3),
        (60, 160, 4),
        (100, 144, 5),
    ):
        if total <= most:
            return box, columns
    return 128, 7


def _panel_size(grid: tuple[int, ...], box: int) -> tuple[int, int]:
    """Width and height: a whole number of pixels a patch, so that all look alike, about box² in all."""
    rows, columns = grid
    cell = max(1, round(box / math.sqrt(rows * columns)))
    while cell > 1 and max(rows, columns) * cell > 2 * box:
        cell -= 1
    scale = min(1.0, 2 * box / (max(rows, columns) * cell))
    return max(1, round(columns * cell * scale)), max(1, round(rows * cell * scale))


def _shrink(photo: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    from PIL import Image as PILImage

    return PILImage.fromarray(np.ascontiguousarray(photo)).resize(size, PILImage.Resampling.LANCZOS)


def _enlarge(colors: NDArray[np.floating[Any]], size: tuple[int, int]) -> Image.Image:
    from PIL import Image as PILImage

    return PILImage.fromarray(to_uint8(np.ascontiguousarray(colors))).resize(
        size, PILImage.Resampling.NEAREST
    )


def _blend(photo: Image.Image, colors: Image.Image) -> Image.Image:
    from PIL import Image as PILImage

    return PILImage.blend(photo, colors, 0.5)


def _sheet(
    total: int,
    sizes: Sequence[tuple[int, int]],
    n_panels: int,
    panels: Callable[[int, tuple[int, int]], list[Image.Image]],
    names: Sequence[str] | None,
    *,
    box: int,
    columns: int,
    color_bar: bool,
) -> NDArray[np.uint8]:
    """Panels in rows and columns, each cell as large as its row and column need, with captions below.

    Panels of a cell have one size, and are made as they are pasted: all at once would fill the memory.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw as PILImageDraw

    count = min(total, MAX_PHOTOS)
    columns = min(columns, count)
    inner, gap, margin = max(4, box // 32), max(12, box // 10), max(20, box // 8)
    font = load_font(max(11, box // 18))
    below = 0 if names is None else round(font.size * 1.7)
    rows = math.ceil(count / columns)
    widths, heights = [0] * columns, [0] * rows
    for index, (panel_width, panel_height) in enumerate(sizes[:count]):
        width = n_panels * panel_width + inner * (n_panels - 1)
        widths[index % columns] = max(widths[index % columns], width)
        heights[index // columns] = max(heights[index // columns], panel_height)
    note = f"first {count:,} of {total:,} photos" if total > count else ""
    foot = round(font.size * 2.4) if color_bar or note else 0
    sheet = PILImage.new(
        "RGB",
        (
            2 * margin + sum(widths) + gap * (columns - 1),
            2 * margin + sum(heights) + (gap + below) * rows - gap + foot,
        ),
        WHITE,
    )
    draw = PILImageDraw.Draw(sheet)
    y = margin
    for row, height in enumerate(heights):
        x = margin
        for column, width in enumerate(widths[: count - row * columns]):
            index = row * columns + column
            at = x
            for panel in panels(index, sizes[index]):
                sheet.paste(panel, (at, y + (height - panel.height) // 2))
                at += panel.width + inner
            if names is not None:
                text = fit_text(caption(names[index], index + 1), font, width)
                draw_text(draw, (x, y + height + below * 0.25), text, font, MUTED)
            x += width + gap
        y += height + below + gap
    if color_bar:
        _draw_color_bar(sheet, draw, font, sheet.height - margin)
    if note:
        draw.text((sheet.width - margin, sheet.height - margin), note, font=font, fill=MUTED, anchor="rs")
    return _as_array(sheet)


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """An image's pixels, strip by strip: Pillow's own way makes a second copy on the way."""
    array = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 256):
        strip = image.crop((0, top, image.width, min(top + 256, image.height)))
        array[top : top + 256] = np.asarray(strip)
    return array


def _draw_color_bar(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, bottom: int
) -> None:
    size = round(font.size)
    length = min(10 * size, sheet.width // 3)
    left = (sheet.width - length) // 2
    bar = _enlarge(viridis(np.linspace(0.0, 1.0, 256))[None], (length, size))
    sheet.paste(bar, (left, bottom - size))
    middle = bottom - size / 2
    draw.text((left - size * 0.6, middle), "background 0", font=font, fill=MUTED, anchor="rm")
    draw.text((left + length + size * 0.6, middle), "1 score", font=font, fill=MUTED, anchor="lm")
