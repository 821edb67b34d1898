"""Draw pages with Pillow. Matplotlib is not used here, because importing it takes longer than drawing the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchprism.pictures.captions import draw_text, load_font, text_width
from patchprism.pictures.page import ON_ANY, Box, Picture, Strokes

if TYPE_CHECKING:
    from PIL import Image

    from patchprism.pictures.layout import Measure
    from patchprism.pictures.page import Page


def measure_at(scale: float) -> Measure:
    """A function that gives the width of text in points, in Pillow's own font with fallbacks for missing letters."""
    return lambda text, size: text_width(text, load_font(_pixels(size, scale))) / scale


def paint_page(page: Page, scale: float, *, clear: bool = False) -> Image.Image:
    """A page as an image: RGB, or RGBA if its background is transparent.

    Parameters
    ----------
    page : Page
    scale : float
        Pixels per point.
    clear : bool
        Whether the background is transparent.
    """
    from PIL import Image, ImageDraw

    # Transparent pixels get the colour of the text, so that its edges do not become dark.
    mode, ground = ("RGBA", (*ON_ANY, 0)) if clear else ("RGB", (255, 255, 255))
    result = Image.new(mode, page_size(page, scale), ground)
    draw = ImageDraw.Draw(result)
    for item in page.items:
        if isinstance(item, Strokes):
            _draw_strokes(result, item, scale)
            continue
        x, y = round(item.x * scale), round(item.y * scale)
        if isinstance(item, Picture):
            size = max(1, round(item.width * scale)), max(1, round(item.height * scale))
            result.paste(item.draw(size), (x, y))
        elif isinstance(item, Box):
            right, bottom = round((item.x + item.width) * scale), round((item.y + item.height) * scale)
            draw.rectangle((x, y, max(x, right - 1), max(y, bottom - 1)), fill=item.color)
        elif item.text:
            font = load_font(_pixels(item.size, scale))
            left = item.x * scale - text_width(item.text, font) * {"l": 0.0, "m": 0.5, "r": 1.0}[item.anchor]
            draw_text(draw, (left, item.y * scale - font.getmetrics()[0]), item.text, font, item.color)
    return result


def _draw_strokes(result: Image.Image, strokes: Strokes, scale: float) -> None:
    """Draw lines with a white edge, which are visible on any photo; drawn larger and reduced, to be smooth."""
    from PIL import Image, ImageDraw

    places = np.array(strokes.lines) * scale
    reach = (strokes.radius + strokes.width) * scale + 2
    left, top = (np.maximum(places.reshape(-1, 2).min(axis=0) - reach, 0)).astype(int)
    right, bottom = (places.reshape(-1, 2).max(axis=0) + reach).astype(int)
    # Three times as large, if this needs at most 100 MB.
    times = 3 if (right - left) * (bottom - top) < 2_800_000 else 1
    layer = Image.new("RGBA", ((right - left) * times, (bottom - top) * times), (255, 255, 255, 0))
    draw = ImageDraw.Draw(layer)
    width, radius = strokes.width * scale * times, strokes.radius * scale * times
    for line, color in zip((places - [left, top, left, top]) * times, strokes.colors, strict=True):
        draw.line(tuple(line), fill=(255, 255, 255, 255), width=max(1, round(width * 1.8)))
        draw.line(tuple(line), fill=(*color, 255), width=max(1, round(width)))
        for x, y in (line[:2], line[2:]):
            for r, fill in ((radius * 1.35, (255, 255, 255, 255)), (radius, (*color, 255))):
                draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    layer = layer.resize((right - left, bottom - top), Image.Resampling.BOX)
    result.paste(layer, (int(left), int(top)), layer)


def page_size(page: Page, scale: float) -> tuple[int, int]:
    """Width and height of a page in pixels."""
    return max(1, round(page.width * scale)), max(1, round(page.height * scale))


def _pixels(size: float, scale: float) -> int:
    return max(1, round(size * scale))
