"""Pages: positions of the parts of a figure, in points, independent of pixels and formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.pictures.sheet import Draw

    Color = tuple[int, int, int]

INK, MUTED, RULE = (28, 32, 38), (104, 112, 122), (224, 227, 231)
# Text colour of transparent figures, which is readable on white and on black.
ON_ANY = (122, 128, 136)
SCREEN = 2  # pixels per point, if no width in print is given


@dataclass(frozen=True)
class Picture:
    """A panel with its position; ``draw`` draws it at a size in pixels."""

    x: float
    y: float
    width: float
    height: float
    draw: Draw


@dataclass(frozen=True)
class Text:
    """A line of text; ``y`` is its baseline, and ``anchor`` says which part is at ``x``: l (left), m or r."""

    x: float
    y: float
    text: str
    size: float
    color: Color
    anchor: str = "l"


@dataclass(frozen=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    color: Color


@dataclass(frozen=True)
class Strokes:
    """Lines with dots at their ends, each as (x, y, x, y); later ones are drawn on top."""

    lines: Sequence[tuple[float, float, float, float]]
    colors: Sequence[Color]
    width: float
    radius: float


@dataclass
class Page:
    """A figure after layout: its width and height in points, and its items with their positions."""

    width: float
    height: float = 0.0
    items: list[Picture | Text | Box | Strokes] = field(default_factory=list)
