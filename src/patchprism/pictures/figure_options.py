"""Options of figures: their format, size, labels and arrangement. Importing it loads nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from patchprism.errors import OptionError
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import FIGURES, Checked, option

FIGURE_FORMATS = ("png", "jpg", "pdf", "svg")
ARRANGEMENTS = ("beside", "above")
PANELS = ("whole", "square")
# Pixels per inch: on screens two pixels per point; in print the value that journals require for photos.
SCREEN_DPI, PRINT_DPI = 144, 300
MAX_WIDTH = 100.0
_INCHES = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(in|cm|mm|pt)\s*")


def _width(name: str, value: object) -> float:
    """A length in inches, from a number of inches or a text with a unit."""
    if isinstance(value, str):
        found = _LENGTH.fullmatch(value)
        if not found:
            checks.refuse(name, "a length like 3.25in, 82mm, 8.2cm or 234pt", value)
        inches = float(found[1]) * _INCHES[found[2]]
        if not 0.5 <= inches <= MAX_WIDTH:
            checks.refuse(name, f"from 0.5in to {MAX_WIDTH:g}in", value)
        return inches
    return float(checks.number(name, value, low=0.5, high=MAX_WIDTH))


def _as_given(name: str, text: str) -> Any:
    """The text from the command line, unchanged; it is checked later."""
    return text


def _labels(name: str, value: object) -> tuple[str, ...]:
    found: tuple[str, ...] = checks.texts(name, value)
    if not found:
        checks.refuse(name, "none, names, or one text per photo", value)
    return found


@dataclass(frozen=True, kw_only=True)
class FigureOptions(Checked):
    """How figures are drawn: the options of :meth:`Visualization.save` with the same names."""

    figure_format: str | None = option(
        None,
        check=optional(partial(checks.choice, allowed=FIGURE_FORMATS)),
        metavar="png|jpg|pdf|svg",
        help="File format of the figures; in pdf and svg, text stays text. Default: same as --format.",
        panel=FIGURES,
    )
    dpi: int | None = option(
        None,
        check=optional(partial(checks.integer, low=36, high=2400)),
        metavar="N",
        help=f"Resolution of the figures in pixels per inch. Default: {SCREEN_DPI}, or {PRINT_DPI} "
        "with --width.",
        panel=FIGURES,
    )
    width: float | str | None = option(
        None,
        check=optional(_width),
        parse=_as_given,
        metavar="3.25in|82mm",
        help="Width of the figures in print, with its unit: in, mm, cm or pt. Text is then 7 to 14 points high. "
        "Default: as wide as the photos need.",
        panel=FIGURES,
    )
    columns: int | None = option(
        None,
        check=optional(partial(checks.integer, low=1, high=200)),
        metavar="N",
        help="Number of photos per row in figures. Default: chosen from the number and shapes of the photos.",
        panel=FIGURES,
    )
    labels: tuple[str, ...] = option(
        ("names",),
        check=_labels,
        metavar="none|names|TEXT",
        help="Labels of the photos in figures: none, their file names (names), or your own texts. "
        "For your own, repeat --labels once per photo, in order. Default: names.",
        panel=FIGURES,
    )
    arrange: str = option(
        "beside",
        check=partial(checks.choice, allowed=ARRANGEMENTS),
        metavar="beside|above",
        help="Where figures place a photo: beside its colours or above them.",
        panel=FIGURES,
    )
    panels: str = option(
        "whole",
        check=partial(checks.choice, allowed=PANELS),
        metavar="whole|square",
        help="Shape of the photos in figures: whole photos in rows of equal height, or the square in "
        "their middle.",
        panel=FIGURES,
    )

    @property
    def resolution(self) -> int:
        """Pixels per inch."""
        return self.dpi or (SCREEN_DPI if self.width is None else PRINT_DPI)

    @property
    def own_labels(self) -> tuple[str, ...]:
        """One text per photo; empty if labels are names or ``none``."""
        return () if self.labels in (("names",), ("none",)) else self.labels

    def check_labels(self, count: int) -> None:
        """Check that there is one label per photo, if there are own labels.

        Raises
        ------
        OptionError
            If there is another number of labels.
        """
        if self.own_labels and len(self.own_labels) != count:
            photos = "1 photo" if count == 1 else f"{count:,} photos"
            raise OptionError(
                f"labels must be none, names, or one text per photo, got {len(self.own_labels)} for {photos}",
                option="labels",
            )

    def label(self, number: int, name: str) -> str:
        """A photo's label, by its number from 0 and its name."""
        if self.labels == ("none",):
            return ""
        return self.own_labels[number] if self.own_labels else name


PLAIN = FigureOptions()
FIGURE_OPTIONS = tuple(each.name for each in fields(FigureOptions))
