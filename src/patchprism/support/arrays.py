"""The one conversion of floating-point values to bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as bytes: clipped, times 255, rounded half to even.

    Every picture and every page uses this function, so that equal colours are equal bytes.

    Parameters
    ----------
    values : ndarray, any shape, floating

    Returns
    -------
    ndarray, same shape, uint8

    Raises
    ------
    OptionError
        If a value is NaN.

    Examples
    --------
    >>> to_uint8(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    array([  0,   0, 128, 255, 255], dtype=uint8)
    """
    scaled = np.clip(values, 0.0, 1.0) * np.float32(255)
    if np.isnan(scaled).any():
        raise OptionError("values must be numbers in [0, 1], got NaN")
    rounded: NDArray[np.uint8] = np.rint(scaled).astype(np.uint8)
    return rounded
