"""Opening and closing of foreground masks, to remove specks and fill holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without the patches that share a side with a patch outside the mask.

    Cells outside the grid are ignored, so that an object that is cut by the edge of the photo keeps its patches there.

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool

    Returns
    -------
    ndarray, shape (h, w), bool
    """
    result = mask.copy()
    result[1:] &= mask[:-1]
    result[:-1] &= mask[1:]
    result[:, 1:] &= mask[:, :-1]
    result[:, :-1] &= mask[:, 1:]
    return result


def clean(mask: NDArray[np.bool_], *, opening: int = 0, closing: int = 0) -> NDArray[np.bool_]:
    """Morphological opening of a mask, then closing.

    Erosion and dilation with a cross of five patches are repeated ``opening`` and ``closing`` times. So opening
    removes parts that are too thin to contain a diamond of radius ``opening``, and closing fills holes and gaps that
    are too small to contain one of radius ``closing``. See J. Serra, "Image Analysis and Mathematical Morphology"
    (1982).

    Parameters
    ----------
    mask : ndarray, shape (h, w), bool
    opening, closing : int
        At least 0; 0 does not change the mask.

    Returns
    -------
    ndarray, shape (h, w), bool

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((5, 5), dtype=bool)
    >>> mask[1:4, 1:4] = True
    >>> mask[0, 0] = True  # a speck
    >>> int(clean(mask, opening=1).sum())
    5
    """
    for _ in range(opening):
        mask = erode(mask)
    for _ in range(opening):
        mask = ~erode(~mask)
    for _ in range(closing):
        mask = ~erode(~mask)
    for _ in range(closing):
        mask = erode(mask)
    return mask
