"""Components -> colours in [0, 1]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.prism.oklab import fill_cube

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Value of a channel without variance: medium, neither dark nor bright.
FLAT = 0.5


@dataclass(frozen=True)
class PhotoColors:
    """The scores, foreground and colours of one photo.

    Attributes
    ----------
    score : ndarray, shape (h, w), float32, in [0, 1]
    foreground : ndarray, shape (h, w), bool
    rgb : ndarray, shape (h, w, 3), float32, in [0, 1]
        Colours of the foreground; the background is 0.
    rgb_all : ndarray, shape (h, w, 3), float32, in [0, 1]
        The all-patch picture.
    """

    score: NDArray[np.float32]
    foreground: NDArray[np.bool_]
    rgb: NDArray[np.float32]
    rgb_all: NDArray[np.float32]


def scale_range(values: NDArray[np.floating[Any]], low: Any, high: Any) -> NDArray[np.float32]:
    """Values scaled so that ``low`` becomes 0 and ``high`` becomes 1, clipped.

    Parameters
    ----------
    values : ndarray, shape (..., k)
    low, high : float or ndarray, shape (k,)
        If both are equal, the channel is flat and becomes 0.5.

    Returns
    -------
    ndarray, shape (..., k), float32, in [0, 1]

    Examples
    --------
    >>> scale_range(np.array([[1.0, 7.0], [2.0, 7.0], [9.0, 7.0]]), np.array([1.0, 7.0]), np.array([3.0, 7.0]))
    array([[0. , 0.5],
           [0.5, 0.5],
           [1. , 0.5]], dtype=float32)
    """
    span = np.asarray(high, np.float64) - np.asarray(low, np.float64)
    flat = span <= 0
    scaled = (np.asarray(values, np.float64) - low) / np.where(flat, 1.0, span)
    return np.where(flat, FLAT, np.clip(scaled, 0.0, 1.0)).astype(np.float32)


def scale_sigmoid(values: NDArray[np.floating[Any]], deviation: Any) -> NDArray[np.float32]:
    """Values divided by their standard deviation and mapped by sigmoid(2x), as in DINOv3's notebook.

    Parameters
    ----------
    values : ndarray, shape (..., k)
    deviation : float or ndarray, shape (k,)
        If it is 0, the channel is flat and becomes 0.5.

    Returns
    -------
    ndarray, shape (..., k), float32, in [0, 1]
    """
    flat = np.asarray(deviation) <= 0
    whitened = np.where(flat, 0.0, np.asarray(values, np.float64) / np.where(flat, 1.0, deviation))
    # The form with tanh, because exp(-2x) would overflow for values far outside the fitted range.
    return (0.5 + 0.5 * np.tanh(whitened)).astype(np.float32)


def lay_out(values: NDArray[np.float32], space: str) -> NDArray[np.float32]:
    """Three values in [0, 1] as a colour: as red, green and blue, or as axes of a cube in OKLab.

    Parameters
    ----------
    values : ndarray, shape (..., 3), float32, in [0, 1]
    space : {"rgb", "oklab"}
        For ``"oklab"``, see :func:`~patchprism.prism.oklab.fill_cube`.

    Returns
    -------
    ndarray, shape (..., 3), float32, in [0, 1]
        Gamma-coded sRGB.
    """
    return values if space == "rgb" else fill_cube(values)
