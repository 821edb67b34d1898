"""Numbers of any type -> 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PhotoError
from patchprism.photos.profiles import to_srgb_curve
from patchprism.support.arrays import to_uint8
from patchprism.support.reading import note

if TYPE_CHECKING:
    from numpy.typing import NDArray

    # The values that are black and white.
    Range = tuple[float, float]

# A photo of wide numbers that reaches less than this share of their range is nearly black to the network: what 14 bits
# or fewer make of 16.
_DARK = 1 / 4
AS_IT_IS = "holds 8 bits, which are read as they are: range is for other numbers"


def eight_bits(
    values: NDArray[Any],
    label: str,
    wanted: Range | None,
    *,
    top: int | None = None,
    gamma: float | None = None,
    zero: str = "black",
) -> NDArray[np.uint8]:
    """Numbers of any type -> uint8 of the same shape.

    Parameters
    ----------
    values : ndarray
    wanted : (low, high) or None
        The values that are black and white.
    top : int, optional
        The largest number that the bits of the file can represent, if it is smaller than that of their dtype.
    gamma : float, optional
        The exponent that the file is encoded with, if it is not sRGB.
    zero : str
        What zero means, for messages.

    Raises
    ------
    PhotoError
        If it is not known which numbers are black and white, and there is no range.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 1:
        if wanted is not None:
            note(AS_IT_IS)
        return values
    if kind not in "uif":
        raise PhotoError(label, f"an array must hold numbers, got {values.dtype}")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) and not (kind == "f" and wanted is None):
        raise PhotoError(label, "holds values that are not finite")
    if kind == "u" and size == 2:
        top = top or 65535
        if wanted is None:
            note_if_dark(int(high), top, zero)
        if wanted is None and gamma is None and top == 65535:
            return scale_uint16(values)
        first, last = wanted or (0, top)
        unit = np.clip((np.arange(65536) - first) / (last - first), 0, 1)
        table = to_uint8(to_srgb_curve(unit, gamma).astype(np.float32))
        return np.take(table, values)
    if wanted is None:
        if kind != "f":
            raise PhotoError(
                label,
                f"holds {values.dtype.name} values from {low} to {high}, and it is not clear which are black "
                f"and white: {_say_range()}",
            )
        if not (low >= 0 and high <= 1):
            raise PhotoError(
                label, f"floats must lie in [0, 1], got values from {low:g} to {high:g}: {_say_range()}"
            )
        note_if_dark(high, 1, zero)
        return to_uint8(values if size >= 4 else values.astype(np.float32))
    first, last = wanted
    # float64 where float32 would round the numbers themselves.
    unit = values.astype(np.float32 if size <= 2 else np.float64)
    unit -= first
    unit /= last - first
    return to_uint8(np.clip(unit, 0, 1, out=unit))


def note_if_dark(high: float, top: float, zero: str = "black") -> None:
    """Say so where a photo would be nearly black: its numbers use a small part of their range."""
    if 0 < high < top * _DARK:
        likely = next((2**bits - 1 for bits in (8, 10, 12, 14) if high < 2**bits), None)
        how = _say_range(likely if top > 1 else None)
        note(
            f"the largest value is {high:,.6g} of {top:,}, so the photo is nearly {zero} for the network; "
            f"{how}"
        )


def _say_range(high: int | None = None) -> str:
    given = "(LOW, HIGH)" if high is None else f"(0, {high})"
    return f"give the values for black and white with range={given}"


def opacity(values: NDArray[Any], label: str) -> NDArray[np.uint8]:
    """Opacity of any type -> uint8."""
    if values.dtype.kind in "ui":
        unit = values / np.float32(np.iinfo(values.dtype).max)
        return to_uint8(np.clip(unit, 0, 1).astype(np.float32))
    return eight_bits(values, label, (0, 1))


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers that fit into 16 bits, as such: many programs write them as wider or signed ones."""
    wide = values.dtype.kind in "ui" and values.dtype.itemsize in (2, 4) and values.dtype != np.uint16
    if wide and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.uint16)
    return values


def scale_uint16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16 bits -> 8, rounded."""
    # 65535 / 255 = 257 exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
