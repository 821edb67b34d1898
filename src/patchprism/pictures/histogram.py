"""The histogram of the scores, as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.captions import load_font
from patchprism.pictures.sheet import MUTED, WHITE

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import ImageDraw

_INK, _RULE = (28, 32, 38), (224, 227, 231)
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
    # Clipped before they are multiplied and become places: a cast of what does not fit may give any number.
    places = np.minimum(np.clip(flat, 0, 1) * BARS, BARS - 1).astype(np.intp)
    return np.bincount(places, minlength=BARS).astype(np.int64)


def counted_histogram(
    counts: NDArray[np.int64],
    n_foreground: int,
    *,
    threshold: float | None,
    side: Literal["above", "below", "none"],
) -> NDArray[np.uint8]:
    """How the scores are spread, with the threshold drawn in: the first thing to see when a mask is wrong.

    Parameters
    ----------
    counts : np.ndarray, shape (100,), int
        Of `count_scores`.
    n_foreground : int
        Patches in the foreground.
    threshold : float or None
        What separates foreground from background; None where ``side`` is ``"none"``.

    Returns
    -------
    np.ndarray, shape (840, 1440, 3), uint8
        Drawn for screens of two pixels a point.
    """
    from PIL import Image as PILImage
    from PIL import ImageDraw as PILImageDraw

    bins, n_patches = BARS, int(counts.sum())
    sheet = PILImage.new("RGB", (1440, 840), WHITE)
    draw = PILImageDraw.Draw(sheet)
    draw.text((120, 40), "Scores of all patches", font=load_font(36), fill=_INK)
    _legend(draw, n_patches, n_foreground, threshold, side)
    left, top, right, bottom = 120, 180, 1390, 720
    ticks = _count_ticks(int(counts.max()))
    for tick in ticks:
        y = bottom - (bottom - top) * tick / ticks[-1]
        draw.line((left, y, right, y), fill=_RULE if tick else MUTED, width=2)
        draw.text(
            (left - 14, y),
            f"{tick:,}" if tick < 1e5 else f"{tick / 1e6:g}M",
            font=load_font(24),
            fill=MUTED,
            anchor="rm",
        )
    cut = None if threshold is None else left + (right - left) * min(max(threshold, 0.0), 1.0)
    for index in np.flatnonzero(counts):
        start = left + (right - left) * index / bins + 1
        stop = left + (right - left) * (index + 1) / bins - 2
        # One patch among millions is still to be seen.
        height = max(3.0, (bottom - top) * counts[index] / ticks[-1])
        for low, high, color in _pieces(start, stop, cut, side):
            draw.rectangle((low, bottom - height, high, bottom), fill=color)
    draw.line((left, bottom, right, bottom), fill=MUTED, width=2)
    for step in range(11):
        x = left + (right - left) * step / 10
        draw.line((x, bottom, x, bottom + 8), fill=MUTED, width=2)
        draw.text((x, bottom + 16), f"{step / 10:g}", font=load_font(24), fill=MUTED, anchor="ma")
    draw.text(((left + right) / 2, bottom + 60), "score", font=load_font(26), fill=_INK, anchor="ma")
    draw.text((left, top - 22), "patches", font=load_font(24), fill=MUTED, anchor="ls")
    if cut is not None and threshold is not None:
        draw.line((cut, top - 14, cut, bottom), fill=_INK, width=3)
        near_right = cut > right - 220
        draw.text(
            (cut + (-10 if near_right else 10), top - 22),
            f"threshold {threshold:.2f}",
            font=load_font(24),
            fill=_INK,
            anchor="rs" if near_right else "ls",
        )
    return np.array(sheet)


def _pieces(
    start: float, stop: float, cut: float | None, side: str
) -> list[tuple[float, float, tuple[int, int, int]]]:
    """A bar, split where the threshold goes through it."""
    if cut is None:
        return [(start, stop, _FOREGROUND)]
    below, above = (_FOREGROUND, _BACKGROUND) if side == "below" else (_BACKGROUND, _FOREGROUND)
    if cut <= start:
        return [(start, stop, above)]
    if cut >= stop:
        return [(start, stop, below)]
    return [(start, cut, below), (cut, stop, above)]


def _legend(
    draw: ImageDraw.ImageDraw, n_patches: int, n_foreground: int, threshold: float | None, side: str
) -> None:
    x, y = 120.0, 108.0
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
        draw.rectangle((x, y - 11, x + 22, y + 11), fill=color)
        draw.text((x + 34, y), text, font=load_font(26), fill=_INK, anchor="lm")
        x += 34 + draw.textlength(text, font=load_font(26)) + 40


def _percent(share: float) -> str:
    # 0 % and 100 % are said only where they are exact: one patch in thousands is news.
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
