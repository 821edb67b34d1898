"""The histogram of the scores, as a picture."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.canvas import measure_at
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.figure_options import PLAIN
from patchprism.pictures.page import INK, MUTED, RULE, SCREEN, Box, Page, Text

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.pictures.figure_options import FigureOptions
    from patchprism.pictures.page import Color

_FOREGROUND, _BACKGROUND = (33, 131, 128), (196, 201, 208)

BARS = 100


def count_scores(scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """How many scores fall to each bar, (100,) int; those of several photos add up.

    Raises
    ------
    OptionError
        If a score is NaN.
    """
    flat = np.asarray(scores).reshape(-1)
    if np.isnan(flat).any():
        raise OptionError("scores must be numbers, got NaN")
    # Clipped before they are converted to bins, because casting numbers out of range gives arbitrary results.
    places = np.minimum(np.clip(flat, 0, 1) * BARS, BARS - 1).astype(np.intp)
    return np.bincount(places, minlength=BARS).astype(np.int64)


def histogram_drawing(
    counts: NDArray[np.int64],
    n_foreground: int,
    *,
    threshold: float | None,
    side: Literal["above", "below", "none"],
    options: FigureOptions = PLAIN,
) -> Drawing:
    """How the scores are spread, with the threshold drawn in: the first thing to see when a mask is wrong.

    Parameters
    ----------
    counts : ndarray, shape (100,), int
        As :func:`count_scores` gives them, added up over the photos.
    n_foreground : int
        Patches in the foreground.
    threshold : float or None
        What separates foreground from background; None where ``side`` is ``"none"``.
    options : FigureOptions
        The format; the figure is always 10 inches wide.
    """
    make = partial(_page, counts, n_foreground, threshold, side)
    return Drawing(make, options=options)


def _page(
    counts: NDArray[np.int64],
    n_foreground: int,
    threshold: float | None,
    side: Literal["above", "below", "none"],
) -> Page:
    n_patches = int(counts.sum())
    page = Page(720.0, 420.0)
    page.items.append(Text(60, 34, "Scores of all patches", 18, INK))
    _legend(page, n_patches, n_foreground, threshold, side)
    left, top, right, bottom = 60.0, 90.0, 695.0, 360.0
    ticks = _count_ticks(int(counts.max()))
    for tick in ticks:
        y = bottom - (bottom - top) * tick / ticks[-1]
        page.items.append(Box(left, y, right - left, 1, RULE if tick else MUTED))
        label = f"{tick:,}" if tick < 1e5 else f"{tick / 1e6:g}M"
        page.items.append(Text(left - 7, y + 4, label, 12, MUTED, "r"))
    cut = None if threshold is None else left + (right - left) * min(max(threshold, 0.0), 1.0)
    for index in np.flatnonzero(counts):
        start = left + (right - left) * index / BARS + 0.5
        stop = left + (right - left) * (index + 1) / BARS - 0.5
        # One patch among millions is still to be seen.
        height = max(1.5, (bottom - top) * counts[index] / ticks[-1])
        for low, high, color in _pieces(start, stop, cut, side):
            page.items.append(Box(low, bottom - height, high - low, height, color))
    page.items.append(Box(left, bottom, right - left, 1, MUTED))
    for step in range(11):
        x = left + (right - left) * step / 10
        page.items.append(Box(x - 0.5, bottom, 1, 4, MUTED))
        page.items.append(Text(x, bottom + 18, f"{step / 10:g}", 12, MUTED, "m"))
    page.items.append(Text((left + right) / 2, bottom + 40, "score", 13, INK, "m"))
    page.items.append(Text(left, top - 11, "patches", 12, MUTED))
    if cut is not None and threshold is not None:
        page.items.append(Box(cut - 0.75, top - 7, 1.5, bottom - top + 7, INK))
        near_right = cut > right - 110
        place = cut + (-5 if near_right else 5)
        page.items.append(
            Text(place, top - 11, f"threshold {threshold:.2f}", 12, INK, "r" if near_right else "l")
        )
    return page


def _pieces(start: float, stop: float, cut: float | None, side: str) -> list[tuple[float, float, Color]]:
    """A bar, divided at the threshold."""
    if cut is None:
        return [(start, stop, _FOREGROUND)]
    below, above = (_FOREGROUND, _BACKGROUND) if side == "below" else (_BACKGROUND, _FOREGROUND)
    if cut <= start:
        return [(start, stop, above)]
    if cut >= stop:
        return [(start, stop, below)]
    return [(start, cut, below), (cut, stop, above)]


def _legend(page: Page, n_patches: int, n_foreground: int, threshold: float | None, side: str) -> None:
    x, y = 60.0, 54.0
    patches = "1 patch" if n_patches == 1 else f"{n_patches:,} patches"
    if threshold is None:
        entries = [(_FOREGROUND, f"foreground: all of {patches}")]
    else:
        share = n_foreground / n_patches
        sign = "<" if side == "below" else ">"
        entries = [
            (
                _FOREGROUND,
                f"foreground: score {sign} {threshold:.2f} ({_percent(share)} of {patches})",
            ),
            (_BACKGROUND, f"background ({_percent(1 - share)})"),
        ]
    for color, text in entries:
        page.items.append(Box(x, y - 5.5, 11, 11, color))
        page.items.append(Text(x + 17, y + 4.5, text, 13, INK))
        x += 17 + measure_at(SCREEN)(text, 13) + 20


def _percent(share: float) -> str:
    # 0 % and 100 % are shown only if they are exact, because one patch in thousands can matter.
    if 0 < share < 0.005:
        return "under 1%"
    if 0.995 < share < 1:
        return "over 99%"
    return f"{share:.0%}"


def _count_ticks(highest: int) -> list[int]:
    """Round numbers from 0 to at least ``highest``, three to six of them."""
    for power in range(20):
        for digit in (1, 2, 5):
            step = digit * 10**power
            if highest <= 5 * step:
                return [step * index for index in range(max(2, -(-highest // step)) + 1)]
    raise AssertionError("counts are below 5e20")
