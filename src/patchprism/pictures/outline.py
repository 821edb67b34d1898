"""The foreground's outline on a photo's panel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.prism.morphology import erode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

# Rare in photos, and not among the colours of scores.
COLOR = (255, 0, 255)


def outlined(panel: Image.Image, foreground: NDArray[Any]) -> Image.Image:
    """Draw a line along the inner edge of the foreground, but not along the edges of the panel.

    The line is 1 pixel wide per 300 pixels of the panel's shorter side.

    Parameters
    ----------
    foreground : ndarray, shape (h, w), bool
        One value per patch; enlarged in the same way as the colours beside the photo.
    """
    from PIL import Image

    patches = np.asarray(foreground, np.bool_)
    mask = np.asarray(Image.fromarray(patches).resize(panel.size, Image.Resampling.NEAREST), np.bool_)
    pixels = np.array(panel)
    inside = mask
    for _ in range(max(1, round(min(panel.size) / 300))):
        inside = erode(inside)
    pixels[mask & ~inside] = COLOR
    return Image.fromarray(pixels)
