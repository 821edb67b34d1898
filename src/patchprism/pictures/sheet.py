"""Sheets: the contents of a figure before layout: panels in groups, labels, colour bars and a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    Size = tuple[int, int]
    Draw = Callable[[Size], Image.Image]

# Every eighth colour of viridis (Nathaniel Smith and Stéfan van der Walt, 2015, CC0), as drawn by Matplotlib.
_VIRIDIS = (
    "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d "
    "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a "
    "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
)
# Figures with more groups would be so large that some viewers refuse them.
MAX_GROUPS = 120


def viridis(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """RGB in [0, 1] for values in [0, 1] of any shape, with one more axis; within 0.012 of Matplotlib's viridis."""
    anchors = np.array([list(bytes.fromhex(color)) for color in "".join(_VIRIDIS).split()]) / 255.0
    places = np.linspace(0.0, 1.0, len(anchors))
    return np.stack([np.interp(values, places, anchors[:, channel]) for channel in range(3)], axis=-1)


VIRIDIS_256 = to_uint8(viridis(np.linspace(0.0, 1.0, 256)))


def heat(values: NDArray[np.floating[Any]], low: float, high: float) -> NDArray[np.uint8]:
    """Viridis colours of values of any shape, (..., 3) uint8; its middle if ``low`` and ``high`` are equal."""
    span = high - low
    scaled = (
        (np.asarray(values, np.float32) - low) * (255 / span) if span > 0 else np.full_like(values, 127.5)
    )
    return VIRIDIS_256[np.clip(np.rint(scaled), 0, 255).astype(np.uint8)]


# ---------------------------------------------------------------- contents of a sheet


@dataclass(frozen=True)
class Panel:
    """One picture of a figure.

    Attributes
    ----------
    shape : tuple of int
        Height and width of its grid or of a photo, in any unit.
    draw : callable
        Draws the panel at a size, (width, height) in pixels. To save memory, panels are drawn when they are pasted.
    captions : tuple of str
        Lines below the panel.
    square : bool
        Whether the panel may be cropped to a square.
    """

    shape: tuple[int, ...]
    draw: Draw
    captions: tuple[str, ...] = ()
    square: bool = True


@dataclass(frozen=True)
class Group:
    """Panels that belong together: a photo and its maps.

    Attributes
    ----------
    panels : sequence of Panel
    name : str
        Name of the photo.
    number : int, optional
        Index of the photo, from 0; None if the group does not belong to a single photo. Such a group keeps its name
        when other labels are given.
    captions : tuple of str
        Lines below the name.
    """

    panels: Sequence[Panel]
    name: str = ""
    number: int | None = None
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A colour bar: the name of the quantity with its unit, and labels of both ends."""

    name: str
    low: str
    high: str
    colors: NDArray[np.uint8] | None = None  # (n, 3), or (m, n, 3) for m rows; viridis by default


@dataclass(frozen=True)
class Key:
    """A colour and its meaning."""

    color: tuple[int, int, int]
    text: str


@dataclass(frozen=True)
class Line:
    """A line from a group's first panel to its second; ``start`` and ``end`` are shares of width and height."""

    start: tuple[float, float]
    end: tuple[float, float]
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Sheet:
    """Contents of a figure.

    Attributes
    ----------
    groups : sequence of Group
        In reading order.
    heads : tuple of str
        Texts above the panels of the first group if each row has one group; otherwise they are captions. Newlines
        separate lines.
    bars : tuple of Bar
    keys : tuple of Key
    lines : tuple of Line
        Lines between panels of the first group; later ones are drawn on top.
    notes : tuple of str
        Explanations for the caption; they are not drawn into the picture.
    columns : int, optional
        Number of groups per row, unless the options set it; by default it depends on their number and shapes.
    total : int, optional
        Number of all groups, if only the first of them are given.
    what : str
        Name of the groups in the remark about groups that are not shown.
    """

    groups: Sequence[Group]
    heads: tuple[str, ...] = ()
    bars: tuple[Bar, ...] = ()
    keys: tuple[Key, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    columns: int | None = None
    total: int | None = None
    what: str = "photos"

    @property
    def photos(self) -> int:
        """Number of photos, including those that are not shown."""
        return self.total or sum(group.number is not None for group in self.groups)

    @property
    def remark(self) -> str:
        """Remark about groups that are not shown."""
        total = self.total or len(self.groups)
        return f"first {len(self.groups):,} of {total:,} {self.what}" if total > len(self.groups) else ""


def photo_panel(shown: NDArray[np.uint8], size: Size) -> Image.Image:
    """A photo's crop, resized for a panel."""
    from PIL import Image

    # For enlarging, both filters look alike, and Lanczos takes 1.4 times as long.
    larger = size[0] >= shown.shape[1] and size[1] >= shown.shape[0]
    filter = Image.Resampling.BICUBIC if larger else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(shown)).resize(size, filter)


def map_panel(colors: NDArray[Any], size: Size) -> Image.Image:
    """Patches, (h, w, 3 or 4) uint8 or floats in [0, 1], as rectangles in a panel of the given size."""
    from PIL import Image

    patches = np.ascontiguousarray(colors)
    return Image.fromarray(patches if patches.dtype == np.uint8 else to_uint8(patches)).resize(
        size, Image.Resampling.NEAREST
    )


def mark(panel: Image.Image, x: float, y: float) -> Image.Image:
    """A panel with a ring and a dot at a position, given as shares of its width and height."""
    from PIL import Image, ImageDraw

    # Draw it four times as large and reduce it, so that it is smooth.
    radius = max(5.0, min(panel.size) / 36)
    half = int(radius * 1.6) + 2
    size = 8 * half
    ring = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    draw = ImageDraw.Draw(ring)
    for r, color in (
        (radius * 1.4, (0, 0, 0, 255)),
        (radius * 1.15, (255, 255, 255, 255)),
        (radius * 0.75, (0, 0, 0, 0)),
        (radius * 0.4, (255, 255, 255, 255)),
        (radius * 0.28, (213, 0, 50, 255)),
    ):
        draw.ellipse((size / 2 - 4 * r, size / 2 - 4 * r, size / 2 + 4 * r, size / 2 + 4 * r), fill=color)
    ring = ring.resize((2 * half, 2 * half), Image.Resampling.LANCZOS)
    panel = panel.copy()
    panel.paste(ring, (round(x * panel.width) - half, round(y * panel.height) - half), ring)
    return panel
