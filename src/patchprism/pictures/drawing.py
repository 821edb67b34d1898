"""Drawings: figures that are drawn on demand, in any format. All figures are drawn through this class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.canvas import measure_at, page_size, paint_page
from patchprism.pictures.figure_options import PLAIN, FigureOptions
from patchprism.pictures.layout import lay_out
from patchprism.pictures.png import shape_of, strips_of
from patchprism.pictures.sheet import Sheet
from patchprism.support.files import atomic_write
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.pictures.layout import Measure
    from patchprism.pictures.page import Page

# Largest picture that Pillow opens without a warning; largest side that Matplotlib and JPEG allow, in pixels; largest
# side that PDF allows, in points.
MAX_PIXELS, MAX_SIDE, MAX_POINTS = 89_478_485, 65_500, 14_400


@dataclass(frozen=True)
class Drawing:
    """A figure that is drawn on demand; drawing reads the photos again.

    Attributes
    ----------
    make : callable
        Returns the contents of the figure. A page that is already laid out keeps its size.
    clear : bool
        Whether the background is transparent.
    options : FigureOptions
        Default options of the drawing.
    notes : tuple of str
        Caption of a page; a sheet has its own notes.
    """

    make: Callable[[], Sheet | Page]
    clear: bool = False
    options: FigureOptions = PLAIN
    notes: tuple[str, ...] = ()

    def __call__(self, options: FigureOptions | None = None) -> NDArray[np.uint8]:
        """The figure as an array, (H, W, 3) uint8, or (H, W, 4) if its background is transparent.

        Raises
        ------
        OptionError
            If the number of labels differs from the number of photos, or the figure would be too large.
        """
        image = self._image(options or self.options)
        array = np.empty(shape_of(image), np.uint8)
        # Convert in strips, because Pillow's own conversion makes a second copy.
        for top, strip in zip(range(0, image.height, 256), strips_of(image, 256), strict=True):
            array[top : top + 256] = strip
        return array

    def _image(self, options: FigureOptions) -> Image.Image:
        scale = options.resolution / 72
        return paint_page(self._page(options, measure_at(scale)), scale, clear=self.clear)

    def figure(self, options: FigureOptions | None = None) -> Figure:
        """The figure as a Matplotlib figure, in Matplotlib's font."""
        from patchprism.pictures.vector import figure_of, measure_in_points

        options = options or self.options
        return figure_of(self._page(options, measure_in_points), options.resolution, clear=self.clear)

    def save(self, path: Path, options: FigureOptions | None = None) -> None:
        """Write the figure, complete or not at all; the suffix sets the format.

        Parameters
        ----------
        path : Path
            Ends in ``.png``, ``.jpg``, ``.pdf`` or ``.svg``.
        options : FigureOptions, optional
        """
        from patchprism.pictures.render import write_picture

        options = options or self.options
        format = path.suffix.lower().lstrip(".")
        if format not in ("pdf", "svg"):
            write_picture(path, self._image(options), dpi=options.resolution)
            return
        from patchprism.pictures.vector import one_at_a_time, write_vector

        with one_at_a_time, atomic_write(path) as part:
            write_vector(self.figure(options), part, format, clear=self.clear)

    def _page(self, options: FigureOptions, measure: Measure) -> Page:
        made = self.make()
        if isinstance(made, Sheet):
            if any(group.number is not None for group in made.groups):
                options.check_labels(made.photos)
            made = lay_out(made, options, measure, clear=self.clear)
        check_size(made, options)
        return made

    def caption(self) -> str:
        """The caption: the notes of the sheet and its colour bars, in one paragraph."""
        made = self.make()
        if not isinstance(made, Sheet):
            return " ".join(self.notes)
        scales = [f"Colour bar: {bar.name}, from {bar.low} to {bar.high}." for bar in made.bars if bar.name]
        return " ".join([*made.notes, *scales])


def check_size(page: Page, options: FigureOptions) -> None:
    """Refuse a page that is too large to be drawn or opened.

    Raises
    ------
    OptionError
        If it is too large.
    """
    width, height = page_size(page, options.resolution / 72)
    free = free_memory() // 12  # bytes per pixel: an image, its copy as an array, and memory for encoding
    if width * height > min(MAX_PIXELS, free) or max(width, height) > MAX_SIDE:
        most = "memory has room for" if free < MAX_PIXELS else "other programs open"
        columns = "fewer" if options.columns and width > height else "more"
        raise OptionError(
            f"dpi must be smaller: a figure would have {width:,} x {height:,} pixels, more than {most}; lower "
            f"dpi or width, or use {columns} columns",
            option="dpi",
        )
    if max(page.width, page.height) > MAX_POINTS:
        raise OptionError(
            f"width must be smaller: a figure would be {page.width / 72:,.0f} x {page.height / 72:,.0f} "
            "inches, and the maximum is 200",
            option="width",
        )
