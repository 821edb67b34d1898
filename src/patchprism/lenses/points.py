"""Points in photos, written as ``PHOTO:x,y``, and the patches at these points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.errors import OptionError
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.features.store.reader import PhotoRow

_FORM = re.compile(r"^(?P<photo>.+):(?P<x>[^:,]+),(?P<y>[^:,]+)$", re.DOTALL)


@dataclass(frozen=True)
class Point:
    """A point in a photo.

    Attributes
    ----------
    photo : int
        The photo's number, from 0.
    x, y : float
        In pixels of the photo, from its upper left corner.
    row, column : int
        The patch at this point.
    """

    photo: int
    x: float
    y: float
    row: int
    column: int


def parse_point(text: str) -> tuple[str, float, float]:
    """Split ``PHOTO:x,y`` into the photo, x and y.

    Raises
    ------
    OptionError
        If the text has another form.

    Examples
    --------
    >>> parse_point("dogs/1.jpg:640,212.5")
    ('dogs/1.jpg', 640.0, 212.5)
    """
    found = _FORM.match(text) if isinstance(text, str) else None
    try:
        if found:
            return found["photo"], float(found["x"]), float(found["y"])
    except ValueError:
        pass
    raise OptionError(
        f"at must be PHOTO:x,y with x and y in the photo's pixels, got {checks.short_repr(text)}", option="at"
    )


def find_photo(wanted: str, names: Sequence[str], *, option: str = "at") -> int:
    """Index of a photo that is given by path, file name or stem, or by its number from 1.

    Raises
    ------
    OptionError
        If no photo has this name or number, or if several have it.
    """
    for key in (lambda name: name, lambda name: Path(name).name, lambda name: Path(name).stem):
        matching = [i for i, name in enumerate(names) if key(name) == wanted]
        if len(matching) == 1:
            return matching[0]
        if matching:
            both = ", ".join(f"{i + 1} is {names[i]}" for i in matching[:3])
            raise OptionError(f"{option}: {len(matching)} photos are called {wanted!r}; use a number: {both}")
    # int() refuses numbers of more than 4,300 digits.
    if wanted.isdecimal() and len(wanted) < 10 and 1 <= int(wanted) <= len(names):
        return int(wanted) - 1
    known = ", ".join(Path(name).name for name in names[:5]) + (", ..." if len(names) > 5 else "")
    raise OptionError(
        f"{option}: no photo is called {checks.short_repr(wanted)}; choose from {known}, or a number from 1 "
        f"to {len(names)}"
    )


def point_in(row: PhotoRow, photo: int, x: float, y: float, *, text: str) -> Point:
    """The patch at a point of a photo.

    Parameters
    ----------
    photo : int
        The photo's number, from 0.
    x, y : float
        In pixels of the photo.
    text : str
        The point as the user wrote it, for the error message.

    Raises
    ------
    OptionError
        If the point is outside the photo, or outside the part that the network saw.
    """
    (height, width), name = row.size, Path(row.name).name
    if not (0 <= x < width and 0 <= y < height):
        raise OptionError(f"at: {text!r} is outside {name}, which has {width} x {height} pixels")
    left, top, right, bottom = row.crop
    h, w = row.grid
    across, down = int((x - left) / (right - left) * w // 1), int((y - top) / (bottom - top) * h // 1)
    if not (left <= x < right and top <= y < bottom):
        raise OptionError(
            f"at: {text!r} is outside the part of {name} that the network saw: x {left:.0f} to "
            f"{right:.0f}, y {top:.0f} to {bottom:.0f}"
        )
    return Point(photo, x, y, min(down, h - 1), min(across, w - 1))


def patch_center(photo: PhotoRow, row: float, column: float) -> tuple[float, float]:
    """Centre of a patch, (x, y) in pixels of the photo."""
    left, top, right, bottom = photo.crop
    h, w = photo.grid
    return left + (column + 0.5) * (right - left) / w, top + (row + 0.5) * (bottom - top) / h
