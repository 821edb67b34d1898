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

    Range = tuple[float, float]  # the values that are black and white

# A photo whose largest value is below this share of the possible range looks nearly black to the network. This happens
# if 14 bits or fewer are stored as 16.
_DARK = 1 / 4
RANGE_IGNORED = "has 8 bits per channel, so range does not apply"


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
        The largest number that the bits of the file can represent, if it is smaller than the maximum of the dtype.
    gamma : float, optional
        The exponent that the file is encoded with, if it is not sRGB.
    zero : str
        The colour that zero stands for, for messages.

    Raises
    ------
    PhotoError
        If ``wanted`` is None and it is unknown which numbers are black and white, or if the values are not finite
        numbers.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 1:
        if wanted is not None:
            note(RANGE_IGNORED)
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
                f"and white: {_range_advice()}",
            )
        if not (low >= 0 and high <= 1):
            raise PhotoError(
                label, f"floats must lie in [0, 1], got values from {low:g} to {high:g}: {_range_advice()}"
            )
        note_if_dark(high, 1, zero)
        return to_uint8(values if size >= 4 else values.astype(np.float32))
    first, last = wanted
    # Wider numbers are converted to float64, because float32 would round them.
    unit = values.astype(np.float32 if size <= 2 else np.float64)
    unit -= first
    unit /= last - first
    return to_uint8(np.clip(unit, 0, 1, out=unit))


def note_if_dark(high: float, top: float, zero: str = "black") -> None:
    """Add a note if a photo is nearly black because its values use only a small part of their range."""
    if 0 < high < top * _DARK:
        likely = next((2**bits - 1 for bits in (8, 10, 12, 14) if high < 2**bits), None)
        how = _range_advice(likely if top > 1 else None)
        note(
            f"the largest value is {high:,.6g} of {top:,}, so the photo is nearly {zero} for the network; "
            f"{how}"
        )


def _range_advice(high: int | None = None) -> str:
    given = "(LOW, HIGH)" if high is None else f"(0, {high})"
    return f"give the values for black and white with range={given}"


def opacity(values: NDArray[Any], label: str) -> NDArray[np.uint8]:
    """An alpha channel of any dtype -> uint8."""
    if values.dtype.kind in "ui":
        unit = values / np.float32(np.iinfo(values.dtype).max)
        return to_uint8(np.clip(unit, 0, 1).astype(np.float32))
    return eight_bits(values, label, (0, 1))


def narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Convert integers to uint16 if their values fit: many programs write 16 bits as wider or signed integers."""
    wide = values.dtype.kind in "ui" and values.dtype.itemsize in (2, 4) and values.dtype != np.uint16
    if wide and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.uint16)
    return values


def scale_uint16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16 bits -> 8 bits, rounded."""
    # 65535 / 255 is exactly 257.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
