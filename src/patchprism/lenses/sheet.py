"""Sheets: panels in rows and columns under a heading, with captions and a colour bar; Pillow alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.captions import caption, draw_text, fit_text, load_font, text_width
from patchprism.pictures.figures import MUTED, WHITE, viridis
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image, ImageDraw, ImageFont

INK = (28, 32, 38)
# Beyond these a figure is a poster that some viewers refuse; the heading says how many are shown.
MAX_CELLS = 120
_VIRIDIS_256 = to_uint8(viridis(np.linspace(0.0, 1.0, 256)))


@dataclass(frozen=True)
class Cell:
    """Panels that belong together, side by side, with captions below."""

    panels: list[Image.Image]
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """What the ends of a sheet's colour scale mean."""

    low: str
    high: str
    colors: NDArray[np.uint8] | None = None  # (n, 3); viridis by default


def heat(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint8]:
    """Values of any shape as viridis, (..., 3) uint8; ``low`` and ``high`` are its ends, equal ones its middle."""
    span = high - low
    scaled = (
        (np.asarray(values, np.float32) - low) * (255 / span) if span > 0 else np.full_like(values, 127.5)
    )
    return _VIRIDIS_256[np.clip(np.rint(scaled), 0, 255).astype(np.uint8)]


def panel_size(grid: tuple[int, ...], box: int) -> tuple[int, int]:
    """Width and height of a panel of about ``box`` squared pixels, whole pixels a patch where that is possible."""
    h, w = grid[:2]
    cell = max(1, round(box / math.sqrt(h * w)))
    scale = min(1.0, 2 * box / (max(h, w) * cell))
    return max(1, round(w * cell * scale)), max(1, round(h * cell * scale))


def photo_panel(shown: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """A photo's crop at a panel's size."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(shown)).resize(size, Image.Resampling.LANCZOS)


def map_panel(colors: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """Patches, (h, w, 3) uint8 or floats in [0, 1], at a panel's size, each a rectangle."""
    from PIL import Image

    patches = colors if colors.dtype == np.uint8 else to_uint8(colors)
    return Image.fromarray(np.ascontiguousarray(patches)).resize(size, Image.Resampling.NEAREST)


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


def sheet(
    cells: Sequence[Cell],
    *,
    columns: int,
    title: str = "",
    notes: Sequence[str] = (),
    bar: Bar | None = None,
) -> NDArray[np.uint8]:
    """Cells in reading order, ``columns`` a row, under a title and notes.

    Parameters
    ----------
    cells : sequence of Cell
        At most 120 are drawn; if there are more, a note says so.
    columns : int
    title : str
    notes : sequence of str
        Lines below the title: what must be known to read the figure.
    bar : Bar, optional
        The colour scale, drawn at the foot.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
    """
    from PIL import Image, ImageDraw

    if len(cells) > MAX_CELLS:
        notes = [*notes, f"first {MAX_CELLS:,} of {len(cells):,}"]
        cells = cells[:MAX_CELLS]
    margin, gap, inner = 28, 20, 8
    font, small, head = load_font(15), load_font(13), load_font(20)
    line = round(font.size * 1.45)
    captions = max(len(cell.captions) for cell in cells)
    n_rows = -(-len(cells) // columns)
    widths, heights = [0] * columns, [0] * n_rows
    for i, cell in enumerate(cells):
        width = sum(panel.width for panel in cell.panels) + inner * (len(cell.panels) - 1)
        widths[i % columns] = max(widths[i % columns], width)
        heights[i // columns] = max(heights[i // columns], *(panel.height for panel in cell.panels))
    inside = sum(widths) + gap * (columns - 1)
    title = caption(title)
    wrapped = [part for note in notes for part in _wrap(caption(note), font, max(inside, 360))]
    top = margin + (round(head.size * 1.6) if title else 0) + line * len(wrapped) + (8 if wrapped else 0)
    height = top + sum(heights) + n_rows * (captions * line + gap) - gap + (48 if bar else 0) + margin
    result = Image.new("RGB", (2 * margin + max(inside, 360), height), WHITE)
    draw = ImageDraw.Draw(result)
    y = margin
    if title:
        draw_text(draw, (margin, y), fit_text(title, head, result.width - 2 * margin), head, INK)
        y += round(head.size * 1.6)
    for text in wrapped:
        draw_text(draw, (margin, y), text, font, MUTED)
        y += line
    y = top
    for row in range(n_rows):
        x = margin
        for column in range(columns):
            i = row * columns + column
            if i >= len(cells):
                break
            at = x
            for panel in cells[i].panels:
                result.paste(panel, (at, y))
                at += panel.width + inner
            tall = max(panel.height for panel in cells[i].panels)
            for n, text in enumerate(cells[i].captions):
                place = (x, y + tall + 4 + n * line)
                face = font if n == 0 else small
                shorter = fit_text(caption(text), face, widths[column])
                draw_text(draw, place, shorter, face, INK if n == 0 else MUTED)
            x += widths[column] + gap
        y += heights[row] + captions * line + gap
    if bar:
        _draw_bar(result, draw, font, bar, result.height - margin)
    return np.array(result)


def _draw_bar(
    result: Image.Image, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont, bar: Bar, bottom: int
) -> None:
    length, size = min(220, result.width // 3), 14
    left = (result.width - length) // 2
    colors = _VIRIDIS_256 if bar.colors is None else bar.colors
    result.paste(map_panel(colors[None], (length, size)), (left, bottom - size))
    draw.text((left - 8, bottom - size / 2), bar.low, font=font, fill=MUTED, anchor="rm")
    draw.text((left + length + 8, bottom - size / 2), bar.high, font=font, fill=MUTED, anchor="lm")


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, font) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
