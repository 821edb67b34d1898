"""Pages as Matplotlib figures, for PDF and SVG, where text stays text, and for notebooks. Imports Matplotlib."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke

from patchprism.pictures.captions import face_at, families_for, text_width
from patchprism.pictures.page import Box, Picture, Strokes

if TYPE_CHECKING:
    from pathlib import Path

    from patchprism.pictures.page import Page

# Type 42 embeds TrueType fonts, so that text can be searched and copied. In SVG, text stays text in the viewer's fonts.
_STYLE: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "patchprism",
    "image.composite_image": False,
    "savefig.bbox": None,
    "text.usetex": False,
}
# Matplotlib's parameters are global, and several threads write figures.
one_at_a_time = threading.RLock()


class ShownFigure(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def measure_in_points(text: str, size: float) -> float:
    """Width of text in points, in Matplotlib's font, ``rcParams["font.family"]``."""
    # Measured at ten times the size, because hinting rounds to whole pixels.
    return text_width(text, face_at(_own_font(), round(size * 10))) / 10


def figure_of(page: Page, dpi: int, *, clear: bool = False) -> ShownFigure:
    """A page as a Matplotlib figure of its size, with panels of ``dpi`` pixels per inch."""
    figure = ShownFigure(figsize=(page.width / 72, page.height / 72), dpi=dpi)
    figure.patch.set_facecolor("none" if clear else "white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, page.width), ylim=(page.height, 0), autoscale_on=False)
    axes.set_axis_off()
    scale = dpi / 72
    for item in page.items:
        if isinstance(item, Picture):
            size = max(1, round(item.width * scale)), max(1, round(item.height * scale))
            # Draw it at its final size in pixels, because PDF viewers blur pictures that they enlarge.
            extent = (item.x, item.x + item.width, item.y + item.height, item.y)
            image = AxesImage(axes, interpolation="none", origin="upper", extent=extent)
            image.set_data(np.asarray(item.draw(size)))
            axes.add_image(image)
        elif isinstance(item, Box):
            color = tuple(value / 255 for value in item.color)
            axes.add_patch(Rectangle((item.x, item.y), item.width, item.height, facecolor=color, linewidth=0))
        elif isinstance(item, Strokes):
            _draw_strokes(axes, item)
        elif item.text:
            axes.text(
                item.x,
                item.y,
                item.text,
                fontsize=item.size,
                fontfamily=[*rcParams["font.family"], *families_for(item.text, _own_font())],
                color=tuple(value / 255 for value in item.color),
                horizontalalignment={"l": "left", "m": "center", "r": "right"}[item.anchor],
                verticalalignment="baseline",
                parse_math=False,  # names may contain dollar signs
                usetex=False,
            )
    return figure


def _draw_strokes(axes: Any, strokes: Strokes) -> None:
    casing = [Stroke(linewidth=1.8 * strokes.width, foreground="white"), Normal()]
    for n, ((x, y, u, v), color) in enumerate(zip(strokes.lines, strokes.colors, strict=True)):
        drawn = {"color": tuple(value / 255 for value in color), "zorder": 3 + n}
        axes.plot([x, u], [y, v], linewidth=strokes.width, path_effects=casing, **drawn)
        size = 2 * strokes.radius
        axes.plot([x, u], [y, v], "o", markersize=size, markeredgecolor="white", **drawn)


def write_vector(figure: Figure, path: Path, format: str, *, clear: bool = False) -> None:
    """Write a figure as PDF or SVG; the same figure gives the same bytes."""
    metadata: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}[format]
    with one_at_a_time, rc_context(_STYLE):
        figure.savefig(path, format=format, dpi=figure.dpi, metadata=metadata, transparent=clear)


def _own_font() -> str:
    return _found(tuple(rcParams["font.family"]), tuple(rcParams["font.sans-serif"]))


@lru_cache(maxsize=8)
def _found(*style: tuple[str, ...]) -> str:
    return str(findfont(FontProperties()))
