"""OKLab, a colour space in which equal distances look about equal, and a cube in it that contains all our colours.

OKLab is from Björn Ottosson, "A perceptual color space for image processing" (2020): a linear map from linear sRGB to
cone responses, cube roots, and a second linear map to lightness L and the opponents a (green to red) and b (blue to
yellow).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Linear sRGB -> cone responses, and their cube roots -> (L, a, b); Ottosson's numbers of 2021.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
# The inverses are literal numbers, because computing them could give other last bits on another machine.
_FROM_CONES = (
    (4.076741661347994, -3.3077115904081933, 0.2309699287294279),
    (-1.2684380040921763, 2.6097574006633715, -0.3413193963102196),
    (-0.004196086541837079, -0.7034186144594495, 1.7076147009309446),
)
_FROM_LAB = (
    (0.9999999984505197, 0.3963377921737678, 0.21580375806075877),
    (1.0000000088817607, -0.10556134232365633, -0.0638541747717059),
    (1.0000000546724108, -0.08948418209496574, -1.2914855378640917),
)

# The axes of the cube are those of L, a and b, so that the first component is lightness and the others are hue and
# chroma. The largest cube inside sRGB has the side 0.2197 and lies in purple. This one is 7 % smaller and has every hue
# around grey.
CUBE_CENTER = (0.60, 0.05, -0.01)
CUBE_SIDE = 0.205


def oklab_from_srgb(rgb: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Gamma-coded sRGB in [0, 1] to OKLab, both (..., 3).

    Examples
    --------
    >>> oklab_from_srgb(np.array([1.0, 1.0, 1.0])).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    values = np.asarray(rgb, np.float64)
    linear = np.where(values <= 0.04045, values / 12.92, ((np.maximum(values, 0) + 0.055) / 1.055) ** 2.4)
    lab: NDArray[np.float64] = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def linear_from_oklab(lab: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """OKLab to linear sRGB, both (..., 3); a colour is out of gamut if a value is outside [0, 1]."""
    roots = _applied(_FROM_LAB, np.asarray(lab, np.float64))
    return _applied(_FROM_CONES, roots * roots * roots)


def srgb_from_oklab(lab: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """OKLab to gamma-coded sRGB, both (..., 3); colours out of gamut are clipped to [0, 1]."""
    linear = np.clip(linear_from_oklab(lab), 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * _power_5_12(linear) - 0.055)


def _applied(matrix: tuple[tuple[float, ...], ...], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix times vectors (..., 3), added from left to right; ``@`` could use fused multiply-add.

    All steps to a colour use only + - * / and sqrt, which give the same result in every language. So the explorer's
    page (``page/oklab.js``) gives the same bytes.
    """
    x, y, z = values[..., 0], values[..., 1], values[..., 2]
    return np.stack([a * x + b * y + c * z for a, b, c in matrix], axis=-1)


def _power_5_12(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in [0.003, 1] to the power 5/12, from square roots and a cube root by Halley's method.

    A power function could give other last bits in another language. Smaller values are not used.
    """
    root = 0.3 + 0.7 * values
    for _ in range(
        5
    ):  # the start is at most twice too large, and every step triples the number of correct digits
        cube = root * root * root
        root = root * (cube + 2.0 * values) / (2.0 * cube + values)
    result: NDArray[np.float64] = np.sqrt(np.sqrt(values)) * np.sqrt(root)
    return result


def fill_cube(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Three values in [0, 1] as coordinates along L, a and b. Equal steps in any of them look equal.

    The map is a shift and one scale for all three axes, so distances between values are proportional to distances in
    OKLab. A step of 0.1 along any component is 0.0205 in OKLab, about the smallest difference that people see. Every
    result is in gamut.

    Parameters
    ----------
    values : ndarray, shape (..., 3), in [0, 1]

    Returns
    -------
    ndarray, shape (..., 3), float32, in [0, 1]
        Gamma-coded sRGB.
    """
    lab = CUBE_SIDE * (np.asarray(values, np.float64) - 0.5) + np.asarray(CUBE_CENTER)
    return srgb_from_oklab(lab).astype(np.float32)
