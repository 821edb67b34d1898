"""Components -> colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def to_uint8(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Floats in [0, 1] to bytes: the one place where that rounding is done.

    Parameters
    ----------
    values : np.ndarray, any shape, floating
        Clipped to [0, 1], times 255, rounded half to even.

    Returns
    -------
    np.ndarray, the same shape, uint8

    Raises
    ------
    OptionError
        If a value is not a number.
    """
    if values.size and np.isnan(np.min(values)):
        raise OptionError("values must be numbers to become bytes, got NaN")
    scaled = np.clip(values, 0.0, 1.0)
    scaled = scaled * scaled.dtype.type(255.0)
    result: NDArray[np.uint8] = np.rint(scaled, out=scaled).astype(np.uint8)
    return result
