"""The figure with the histogram of the scores."""

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
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.pictures.figure_options import FigureOptions
    from patchprism.pictures.page import Color

_FOREGROUND, _BACKGROUND = (33, 131, 128), (196, 201, 208)

BARS = 100
LABEL_BARS = 128  # divides the number of bins of labelled scores
_LEFT, _TOP, _RIGHT, _BOTTOM = 60.0, 90.0, 695.0, 360.0


def count_scores(scores: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Number of scores in each bar, (100,) int; the results of several photos can be added.

    Raises
    ------
    OptionError
        If a score is NaN.
    """
    flat = np.asarray(scores).reshape(-1)
    if np.isnan(flat).any():
        raise OptionError("scores must be numbers, got NaN")
    # Clip first, because casting numbers out of range to integers gives arbitrary results.
    places = np.minimum(np.clip(flat, 0, 1) * BARS, BARS - 1).astype(np.intp)
    return np.bincount(places, minlength=BARS).astype(np.int64)


def histogram_drawing(
    counts: NDArray[np.int64],
    n_foreground: int,
    *,
    threshold: float | None,
    side: Literal["above", "below", "none"],
    labels: NDArray[np.int64] | None = None,
    options: FigureOptions = PLAIN,
) -> Drawing:
    """The distribution of the scores with the threshold. Look at it first if a mask is wrong.

    With labels, the bars show patches that their photos labelled as object and as background, so that one sees how
    well the threshold separates them. Without labels, they show the foreground and background of the threshold.

    Parameters
    ----------
    counts : ndarray, shape (100,), int
        Sum of the results of :func:`count_scores` over the photos.
    n_foreground : int
        Number of foreground patches.
    threshold : float or None
        Score that separates foreground from background; None if ``side`` is ``"none"``.
    labels : ndarray, shape (2, 128 m), int, optional
        Histograms of the scores of patches labelled as background and as object, which are drawn instead of
        ``counts``.
    options : FigureOptions
        Format and resolution; the figure is always 10 inches wide.
    """
    if labels is not None and threshold is not None:
        classes = labels.reshape(2, LABEL_BARS, -1).sum(axis=-1)
        note = (
            "Number of patches per score. Patches that their photo labelled as object are below those that it labelled "
            f"as background. {_percent(n_foreground / int(counts.sum()))} of all patches are foreground."
        )
        return Drawing(partial(_label_page, classes, threshold), options=options, notes=(note,))
    make = partial(_page, counts, n_foreground, threshold, side)
    return Drawing(make, options=options, notes=("Number of patches per score.",))


def _page(
    counts: NDArray[np.int64],
    n_foreground: int,
    threshold: float | None,
    side: Literal["above", "below", "none"],
) -> Page:
    cut = None if threshold is None else _place(threshold)
    bars = []
    for index, start, stop in _bars(counts):
        height = _height(counts, int(counts[index]))
        for low, high, color in _pieces(start, stop, cut, side):
            bars.append(Box(low, _BOTTOM - height, high - low, height, color))
    page = _chart("Scores of all patches", counts, bars, threshold)
    _legend(page, _foreground_entries(int(counts.sum()), n_foreground, threshold, side))
    return page


def _label_page(classes: NDArray[np.int64], threshold: float) -> Page:
    """Stacked bars of labelled patches, (2, LABEL_BARS): object below, background on top."""
    counts = classes.sum(axis=0)
    background, object_ = classes
    share = int(object_.sum()) / max(int(counts.sum()), 1)
    bars = []
    for index, start, stop in _bars(counts):
        bottom = _BOTTOM
        for color, count in ((_FOREGROUND, int(object_[index])), (_BACKGROUND, int(background[index]))):
            if count:
                height = _height(counts, count)
                bottom -= height
                bars.append(Box(start, bottom, stop - start, height, color))
    page = _chart("Scores of labelled patches", counts, bars, threshold)
    entries = [
        (_FOREGROUND, f"labelled as object ({_percent(share)} of {_patches(int(counts.sum()))})"),
        (_BACKGROUND, f"labelled as background ({_percent(1 - share)})"),
    ]
    _legend(page, entries)
    return page


def _bars(counts: NDArray[np.int64]) -> Iterator[tuple[int, float, float]]:
    """Index, left edge and right edge of each bar that is not empty."""
    width = (_RIGHT - _LEFT) / len(counts)
    for index in np.flatnonzero(counts):
        yield int(index), _LEFT + width * index + 0.5, _LEFT + width * (index + 1) - 0.5


def _height(counts: NDArray[np.int64], count: int) -> float:
    # At least this high, so that one patch among millions is visible.
    return max(1.5, (_BOTTOM - _TOP) * count / _count_ticks(int(counts.max()))[-1])


def _place(threshold: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * min(max(threshold, 0.0), 1.0)


def _chart(title: str, counts: NDArray[np.int64], bars: Sequence[Box], threshold: float | None) -> Page:
    """A page with bars, axes, title and threshold, without the legend."""
    page = Page(720.0, 420.0)
    page.items.append(Text(60, 34, title, 18, INK))
    ticks = _count_ticks(int(counts.max()))
    for tick in ticks:
        y = _BOTTOM - (_BOTTOM - _TOP) * tick / ticks[-1]
        page.items.append(Box(_LEFT, y, _RIGHT - _LEFT, 1, RULE if tick else MUTED))
        label = f"{tick:,}" if tick < 1e5 else f"{tick / 1e6:g}M"
        page.items.append(Text(_LEFT - 7, y + 4, label, 12, MUTED, "r"))
    page.items += bars
    page.items.append(Box(_LEFT, _BOTTOM, _RIGHT - _LEFT, 1, MUTED))
    for step in range(11):
        x = _LEFT + (_RIGHT - _LEFT) * step / 10
        page.items.append(Box(x - 0.5, _BOTTOM, 1, 4, MUTED))
        page.items.append(Text(x, _BOTTOM + 18, f"{step / 10:g}", 12, MUTED, "m"))
    page.items.append(Text((_LEFT + _RIGHT) / 2, _BOTTOM + 40, "score", 13, INK, "m"))
    page.items.append(Text(_LEFT, _TOP - 11, "patches", 12, MUTED))
    if threshold is not None:
        cut = _place(threshold)
        page.items.append(Box(cut - 0.75, _TOP - 7, 1.5, _BOTTOM - _TOP + 7, INK))
        near_right = cut > _RIGHT - 110
        place = cut + (-5 if near_right else 5)
        label = f"threshold {threshold:.2f}"
        page.items.append(Text(place, _TOP - 11, label, 12, INK, "r" if near_right else "l"))
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


def _foreground_entries(
    n_patches: int, n_foreground: int, threshold: float | None, side: str
) -> list[tuple[Color, str]]:
    if threshold is None:
        return [(_FOREGROUND, f"foreground: all of {_patches(n_patches)}")]
    share = n_foreground / n_patches
    sign = "<" if side == "below" else ">"
    return [
        (
            _FOREGROUND,
            f"foreground: score {sign} {threshold:.2f} ({_percent(share)} of {_patches(n_patches)})",
        ),
        (_BACKGROUND, f"background ({_percent(1 - share)})"),
    ]


def _legend(page: Page, entries: Sequence[tuple[Color, str]]) -> None:
    x, y = _LEFT, 54.0
    for color, text in entries:
        page.items.append(Box(x, y - 5.5, 11, 11, color))
        page.items.append(Text(x + 17, y + 4.5, text, 13, INK))
        x += 17 + measure_at(SCREEN)(text, 13) + 20


def _patches(count: int) -> str:
    return "1 patch" if count == 1 else f"{count:,} patches"


def _percent(share: float) -> str:
    # Write 0% and 100% only if they are exact, because one patch in thousands can matter.
    if 0 < share < 0.005:
        return "under 1%"
    if 0.995 < share < 1:
        return "over 99%"
    return f"{share:.0%}"


def _count_ticks(highest: int) -> list[int]:
    """Three to six round numbers from 0 to at least ``highest``."""
    for power in range(20):
        for digit in (1, 2, 5):
            step = digit * 10**power
            if highest <= 5 * step:
                return [step * index for index in range(max(2, -(-highest // step)) + 1)]
    raise AssertionError("counts are below 5e20")
