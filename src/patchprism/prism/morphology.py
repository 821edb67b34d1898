"""Opening and closing of foreground masks, to drop specks and fill holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def erode(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask without the patches that touch, by a side, one that is not in it.

    Cells outside the grid are ignored, so that an object that the photo's edge cuts keeps its patches there.

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
    """A mask opened, then closed.

    Both with a cross of five patches, taken ``opening`` and ``closing`` times: opening drops what is
    thinner than that many patches on either side, closing fills holes and gaps of that size. After
    J. Serra, "Image Analysis and Mathematical Morphology" (1982).

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
