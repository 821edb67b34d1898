"""Figures as arrays, for tests."""

from __future__ import annotations

from functools import partial

from patchprism.pictures.drawing import Drawing
from patchprism.pictures.figure_options import PLAIN


def figure_of(make, *arguments, **options):
    """The pixels, (height, width, 3) uint8, of the sheet that a function of pictures/figures.py makes."""
    return Drawing(partial(make, *arguments, **options))(PLAIN)
