"""The options of :func:`~patchprism.render_video` that are about clips."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

from patchprism.pictures.options import UPSAMPLES
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import FIT, INPUT, OUTPUT, Checked, option

LAYOUTS = ("side", "overlay", "colors")
# Time bases are fractions of small numbers.
MIN_FPS, MAX_FPS = 0.001, 1000
# Longer times (31 years) do not fit into FFmpeg's integers.
MAX_SECONDS = 10**9

Seconds = int | float | Fraction


def parse_time(name: str, text: str) -> Fraction:
    """Seconds, from ``12.5``, ``1:30`` or ``1:02:03.5``.

    Raises
    ------
    OptionError
        If it is none of these.
    """
    parts = text.split(":")
    # Only digits: Fraction would also accept 1/0, and would compute for hours with 1e999999999.
    plain = all(re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}", part) for part in parts)
    times = [Fraction(part) for part in parts] if plain and len(parts) <= 3 else []
    if not times or any(time >= 60 for time in times[1:]):
        checks.refuse(name, "seconds, MM:SS or HH:MM:SS", text)
    return sum((time * 60**i for i, time in enumerate(reversed(times))), Fraction(0))


def _seconds(name: str, seconds: Any) -> Fraction:
    if isinstance(seconds, Fraction):
        return seconds
    # The exact decimal number, not the nearest binary one: at 10 frames per second, frame 1 is at 0.1.
    return Fraction(str(checks.number(name, seconds, low=0, high=MAX_SECONDS)))


@dataclass(frozen=True, kw_only=True)
class VideoOptions(Checked):
    """Which frames are read, and what is written; :func:`~patchprism.render_video` describes the options."""

    start: Seconds | None = option(
        None,
        check=optional(_seconds),
        metavar="TIME",
        help="Time of the first frame: seconds, MM:SS or HH:MM:SS.",
        panel=INPUT,
        parse=parse_time,
    )
    end: Seconds | None = option(
        None,
        check=optional(_seconds),
        metavar="TIME",
        help="Time to stop at: seconds, MM:SS or HH:MM:SS.",
        panel=INPUT,
        parse=parse_time,
    )
    every: int = option(
        1,
        check=partial(checks.integer, low=1, high=checks.MAX_COUNT),
        metavar="N",
        help="Keep every Nth frame.",
        panel=INPUT,
    )
    fps: float | None = option(
        None,
        check=optional(partial(checks.number, low=MIN_FPS, high=MAX_FPS)),
        metavar="FLOAT",
        help="Frame rate of a sequence of photos, in frames per second. Default: 25.",
        panel=INPUT,
    )
    fit_frames: int = option(
        32,
        check=partial(checks.integer, low=1, high=checks.MAX_COUNT),
        metavar="N",
        help="Number of frames to fit on, spread evenly over the clip.",
        panel=FIT,
    )
    save_prism: str | None = option(
        None,
        check=optional(checks.path),
        metavar="FILE",
        help="Also write the fitted prism to this file.",
        panel=FIT,
    )
    layout: str | None = option(
        None,
        check=optional(partial(checks.choice, allowed=LAYOUTS)),
        metavar="side|overlay|colors",
        help="Show the frame beside its colours (side, the default), under them (overlay), or not at "
        "all (colors).",
        panel=OUTPUT,
    )
    overlay: float | None = option(
        None,
        check=optional(partial(checks.number, low=0, high=1)),
        metavar="ALPHA",
        help="Opacity of the colours over the frame, from 0 to 1. Without --layout, this implies "
        "--layout overlay.",
        panel=OUTPUT,
    )
    upsample: str | None = option(
        None,
        check=optional(partial(checks.choice, allowed=UPSAMPLES)),
        metavar="nearest|bilinear|guided",
        help="How patches become pixels: as rectangles (nearest, the default), blended, or guided by "
        "the edges in the frame.",
        panel=OUTPUT,
    )
    steady: bool = option(
        True,
        check=checks.flag,
        flag="--steady/--no-steady",
        help="Keep patches still where nothing moves (the default), or treat each frame as a single photo.",
        panel=OUTPUT,
    )
    crf: int | None = option(
        None,
        check=optional(checks.integer),
        metavar="N",
        help="Quality of the video; lower is better. Default: 18 (H.264), 30 (VP9).",
        panel=OUTPUT,
    )
    sound: bool = option(
        True,
        check=checks.flag,
        flag="--sound/--no-sound",
        help="Keep the sound (the default), or leave it out.",
        panel=OUTPUT,
    )
