"""Sheets: panels in rows and columns, with captions, a heading and a colour bar; Pillow alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.captions import caption, draw_text, fit_text, load_font, text_width
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

# Every eighth colour of viridis (Nathaniel Smith and Stéfan van der Walt, 2015, CC0), as drawn by Matplotlib.
_VIRIDIS = (
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d "
    "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a "
    "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
)
WHITE, MUTED, INK = (255, 255, 255), (104, 112, 122), (28, 32, 38)
# A figure of more cells is a poster, which some viewers refuse.
MAX_CELLS = 120


def viridis(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Values in [0, 1], of any shape, to RGB in [0, 1] with one axis more; within 0.012 of Matplotlib's."""
    anchors = np.array([list(bytes.fromhex(color)) for color in "".join(_VIRIDIS).split()]) / 255.0
    places = np.linspace(0.0, 1.0, len(anchors))
    return np.stack([np.interp(values, places, anchors[:, channel]) for channel in range(3)], axis=-1)


_VIRIDIS_256 = to_uint8(viridis(np.linspace(0.0, 1.0, 256)))


def heat(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint8]:
    """Values of any shape as viridis, (..., 3) uint8; ``low`` and ``high`` are its ends, equal ones its middle."""
    span = high - low
    scaled = (
        (np.asarray(values, np.float32) - low) * (255 / span) if span > 0 else np.full_like(values, 127.5)
    )
    return _VIRIDIS_256[np.clip(np.rint(scaled), 0, 255).astype(np.uint8)]


# ---------------------------------------------------------------- panels


@dataclass(frozen=True)
class Cell:
    """Panels that belong together, side by side, with captions below.

    Attributes
    ----------
    size : tuple of int
        Width and height of each of its panels.
    draw : callable
        Draws the panels as they are pasted: all at once would fill the memory.
    captions : tuple of str
    n_panels : int
    """

    size: tuple[int, int]
    draw: Callable[[], Sequence[Image.Image]]
    captions: tuple[str, ...] = ()
    n_panels: int = 1


@dataclass(frozen=True)
class Bar:
    """What the ends of a sheet's colour scale mean."""

    low: str
    high: str
    colors: NDArray[np.uint8] | None = None  # (n, 3); viridis by default


def cell_of(panels: Sequence[Image.Image], captions: tuple[str, ...] = ()) -> Cell:
    """A cell of panels that are drawn already, all of one size."""
    return Cell(panels[0].size, lambda: panels, captions, len(panels))


def panel_size(grid: tuple[int, ...], box: int) -> tuple[int, int]:
    """Width and height: a whole number of pixels per patch, so that all look alike, about box² in all."""
    rows, columns = grid[:2]
    pixels = max(1, round(box / math.sqrt(rows * columns)))
    while pixels > 1 and max(rows, columns) * pixels > 2 * box:
        pixels -= 1
    scale = min(1.0, 2 * box / (max(rows, columns) * pixels))
    return max(1, round(columns * pixels * scale)), max(1, round(rows * pixels * scale))


def photo_panel(shown: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """A photo's crop at a panel's size."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(shown)).resize(size, Image.Resampling.LANCZOS)


def map_panel(colors: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """Patches, (h, w, 3) uint8 or floats in [0, 1], at a panel's size, each a rectangle."""
    from PIL import Image

    patches = np.ascontiguousarray(colors)
    return Image.fromarray(patches if patches.dtype == np.uint8 else to_uint8(patches)).resize(
        size, Image.Resampling.NEAREST
    )


def mark(panel: Image.Image, x: float, y: float) -> Image.Image:
    """A panel with a ring and a dot at a place, given as shares of its width and height."""
    from PIL import ImageDraw

    panel = panel.copy()
    draw = ImageDraw.Draw(panel)
    at = np.array([x * panel.width, y * panel.height])
    radius = max(5.0, min(panel.size) / 28)
    for r, width, color in (
        (radius + 2, 6, (0, 0, 0)),
        (radius, 3, (255, 255, 255)),
        (2.0, 4, (255, 60, 60)),
    ):
        draw.ellipse(
            (*(at - r), *(at + r)), outline=color, width=width if r > 2 else 0, fill=None if r > 2 else color
        )
    return panel


def columns_for(count: int, panels: int) -> int:
    """How many cells of so many panels stand side by side on a sheet that is not too tall."""
    return max(1, min(count, round(math.sqrt(count * 1.6 / panels))))


def box_for(count: int) -> int:
    """About how large the panels of so many cells are."""
    return 288 if count <= 4 else 256 if count <= 8 else 208 if count <= 24 else 160 if count <= 60 else 128


# ---------------------------------------------------------------- the sheet


@dataclass(frozen=True)
class Layout:
    """Lengths of a sheet in pixels.

    Attributes
    ----------
    margin, gap, inner : int
        Around the sheet, between cells, between the panels of a cell.
    font, small, head : int
        Sizes of text: first captions and notes, further captions, the title.
    line : int
        Height of a caption.
    drop : float
        From the lower edge of the panels to the first caption.
    least : int
        Width that the sheet has at least, margins left out.
    bar, thickness : int
        Length of the colour bar at most, and its height.
    space : float
        Between the colour bar and its labels.
    foot : int
        Height of what is below the cells, where there is anything.
    centered : bool
        Whether panels stand in the middle of their row, and captions below the row, rather than all at the top.
    most : int
        Cells that are drawn.
    """

    margin: int = 28
    gap: int = 20
    inner: int = 8
    font: int = 15
    small: int = 13
    head: int = 20
    line: int = 22
    drop: float = 4
    least: int = 360
    bar: int = 220
    thickness: int = 14
    space: float = 8
    foot: int = 48
    centered: bool = False
    most: int = MAX_CELLS


def sheet(
    cells: Sequence[Cell],
    *,
    columns: int,
    title: str = "",
    notes: Sequence[str] = (),
    bar: Bar | None = None,
    total: int | None = None,
    foot: str = "",
    layout: Layout = Layout(),
) -> NDArray[np.uint8]:
    """Cells in reading order, each as large as its row and column need.

    Parameters
    ----------
    cells : sequence of Cell
        At most 120 are drawn (``layout.most``); if there are more, a note says so.
    columns : int
    title : str
    notes : sequence of str
        Lines below the title: what must be known to read the figure.
    bar : Bar, optional
        The colour scale, drawn at the foot.
    total : int, optional
        How many cells there are, where only the first of them are given.
    foot : str
        A remark at the lower right.
    layout : Layout

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
    """
    from PIL import Image, ImageDraw

    total = total or len(cells)
    if total > layout.most:
        notes, cells = [*notes, f"first {layout.most:,} of {total:,}"], cells[: layout.most]
    margin, gap = layout.margin, layout.gap
    font, head = load_font(layout.font), load_font(layout.head)
    below = layout.line * max(len(each.captions) for each in cells)
    widths, heights = [0] * columns, [0] * -(-len(cells) // columns)
    for i, each in enumerate(cells):
        width = each.n_panels * each.size[0] + layout.inner * (each.n_panels - 1)
        widths[i % columns] = max(widths[i % columns], width)
        heights[i // columns] = max(heights[i // columns], each.size[1])
    inside = max(sum(widths) + gap * (columns - 1), layout.least)
    title_height = round(layout.head * 1.6) if title else 0
    lines = [line for note in notes for line in _wrap(caption(note), font, inside)]
    top = margin + title_height + layout.line * len(lines) + (8 if lines else 0)
    height = top + sum(heights) + len(heights) * (below + gap) - gap + margin
    height += layout.foot if bar or foot else 0
    result = Image.new("RGB", (2 * margin + inside, height), WHITE)
    draw = ImageDraw.Draw(result)
    if title:
        draw_text(draw, (margin, margin), fit_text(caption(title), head, inside), head, INK)
    for n, text in enumerate(lines):
        draw_text(draw, (margin, margin + title_height + n * layout.line), text, font, MUTED)
    y = top
    for row, row_height in enumerate(heights):
        x = margin
        for each, width in zip(cells[row * columns : (row + 1) * columns], widths, strict=False):
            _paste(result, draw, each, (x, y, width, row_height), layout)
            x += width + gap
        y += row_height + below + gap
    if bar:
        _draw_bar(result, draw, bar, layout)
    if foot:
        place = (result.width - margin, result.height - margin)
        draw.text(place, foot, font=font, fill=MUTED, anchor="rs")
    return _as_array(result)


def _paste(
    result: Image.Image,
    draw: ImageDraw.ImageDraw,
    cell: Cell,
    box: tuple[int, int, int, int],
    layout: Layout,
) -> None:
    """A cell into its place: left, top, width and height."""
    left, top, width, height = box
    at = left
    for panel in cell.draw():
        result.paste(panel, (at, top + ((height - panel.height) // 2 if layout.centered else 0)))
        at += panel.width + layout.inner
    tall = height if layout.centered else cell.size[1]
    for n, text in enumerate(cell.captions):
        face = load_font(layout.small if n else layout.font)
        color = MUTED if n or layout.centered else INK
        place = (left, top + tall + layout.drop + n * layout.line)
        draw_text(draw, place, fit_text(caption(text), face, width), face, color)


def _draw_bar(result: Image.Image, draw: ImageDraw.ImageDraw, bar: Bar, layout: Layout) -> None:
    length, size = min(layout.bar, result.width // 3), layout.thickness
    left, bottom = (result.width - length) // 2, result.height - layout.margin
    colors = _VIRIDIS_256 if bar.colors is None else bar.colors
    result.paste(map_panel(colors[None], (length, size)), (left, bottom - size))
    font, space, middle = load_font(layout.font), layout.space, bottom - size / 2
    draw.text((left - space, middle), bar.low, font=font, fill=MUTED, anchor="rm")
    draw.text((left + length + space, middle), bar.high, font=font, fill=MUTED, anchor="lm")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _as_array(image: Image.Image) -> NDArray[np.uint8]:
    """An image's pixels, strip by strip: Pillow's own way makes a second copy on the way."""
    array = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 256):
        strip = image.crop((0, top, image.width, min(top + 256, image.height)))
        array[top : top + 256] = np.asarray(strip)
    return array
