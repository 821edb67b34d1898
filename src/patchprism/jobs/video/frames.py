"""Frames of clips: their contents, which of them are wanted, and conversion of decoded frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import ExtraError, OptionError
from patchprism.jobs.video.options import MAX_SECONDS
from patchprism.support import checks

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction

    from numpy.typing import NDArray

    Turn = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

# FFmpeg's numbers (AVColorSpace) for the meaning of luma and chroma in a stream.
BT709, BT601 = 1, (4, 5, 6)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One frame of a clip, upright and with square pixels.

    Attributes
    ----------
    index : int
        Number in the clip, from 0.
    time : Fraction
        When it appears, in seconds from the beginning of the clip.
    rgb : ndarray, shape (H, W, 3), uint8
    planes : tuple of three ndarray, uint8, optional
        The same as luma (H, W) and chroma (ceil(H / 2), ceil(W / 2)), as the decoder gave it.
    until : Fraction, optional
        When it disappears, in seconds from the beginning of the clip, if the clip contains this.
    """

    index: int
    time: Fraction
    rgb: NDArray[np.uint8]
    planes: Planes | None
    until: Fraction | None = None


@dataclass
class Problems:
    """Problems while reading: all are counted, and the first few are named."""

    count: int = 0
    named: list[str] = field(default_factory=list)

    def add(self, what: str) -> None:
        """Count a problem; the first ten are kept by name."""
        self.count += 1
        if len(self.named) < 10:
            self.named.append(what)


@dataclass(frozen=True, kw_only=True)
class Span:
    """Which frames of a clip are wanted.

    Parameters
    ----------
    start, end : Fraction, optional
        Seconds from the beginning of the clip: frames from ``start`` on and before ``end``.
    every : int
        Keep every Nth frame.
    """

    start: Fraction | None = None
    end: Fraction | None = None
    every: int = 1

    def __post_init__(self) -> None:
        """Refuse values that select nothing."""
        every = checks.integer("every", self.every, low=1, high=checks.MAX_COUNT)
        object.__setattr__(self, "every", every)
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None:
                checks.number(name, value, low=0, high=MAX_SECONDS)
        if self.end is not None and self.end <= (self.start or 0):
            raise OptionError(
                f"end must lie after start ({float(self.start or 0):g}), got {float(self.end):g}"
            )


def import_av() -> Any:
    """Import PyAV; if it is missing, raise an error that names the extra."""
    try:
        import av
    except ImportError as error:
        raise ExtraError.of(error, "video", "reading and writing videos", "av") from error
    return av


def planes_of(raw: Any) -> list[NDArray[np.uint8]]:
    """Views of a frame's planes, without the padding at the rows' ends."""
    views = []
    for plane in raw.planes:
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        if raw.format.name == "rgb24":
            views.append(rows[: raw.height, : 3 * raw.width].reshape(raw.height, raw.width, 3))
        else:
            views.append(rows[: plane.height, : plane.width])
    return views


def converted(
    raw: Any, matrix: int, resize: dict[str, int], *, planes: bool
) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
    """A decoded frame as RGB and, if wanted, as planes of 4:2:0."""
    source = matrix if raw.format.name.startswith(("yuv", "nv", "p0")) else None
    rgb = planes_of(raw.reformat(format="rgb24", src_colorspace=source, **resize))[0]
    if not planes:
        return rgb, []
    if raw.format.name == "yuv420p" and not resize and raw.color_range != 2:
        return rgb, planes_of(raw)
    options = {"src_colorspace": source, "dst_colorspace": source or BT709}
    return rgb, planes_of(raw.reformat(format="yuv420p", dst_color_range="MPEG", **options, **resize))


def rgb_to_planes(rgb: NDArray[np.uint8], matrix: int = BT709) -> Planes:
    """RGB as luma and chroma, BT.709 by default, video range, at half resolution for the chroma."""
    av = import_av()
    raw = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
    y, u, v = planes_of(raw.reformat(format="yuv420p", dst_colorspace=matrix, dst_color_range="MPEG"))
    return y, u, v


def turning(raw: Any) -> Turn:
    """A function that turns pictures upright (quarter turns, mirroring), from the frame's display matrix."""
    matrix = None
    for data in raw.side_data:
        if getattr(data, "type", None) is not None and data.type.name == "DISPLAYMATRIX":
            matrix = np.frombuffer(bytes(data), "=i4")[:9].reshape(3, 3)
    if matrix is None:
        return lambda picture: picture
    # A pixel (x, y) is shown at (a x + c y, b x + d y).
    (a, b), (c, d) = matrix[:2, :2].tolist()
    transposed = abs(b) > abs(a)
    flip_rows, flip_columns = (b < 0, c < 0) if transposed else (d < 0, a < 0)

    def turn(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        picture = picture.swapaxes(0, 1) if transposed else picture
        picture = picture[::-1] if flip_rows else picture
        picture = picture[:, ::-1] if flip_columns else picture
        return np.ascontiguousarray(picture)

    return turn
