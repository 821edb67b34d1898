"""The part of a photo that the network saw, at the size of a figure's panel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.source import Source
    from patchprism.photos.framing import Framing

# Maximum enlargement of the framed photo; for larger panels, the photo itself is cropped.
_ENLARGED = 1.15


def crop_at(
    source: Source, row: PhotoRow, framing: Framing, size: tuple[int, int]
) -> tuple[NDArray[np.uint8] | None, str | None]:
    """A photo's crop, (H, W, 3) uint8, about as large as its panel; or None and the reason, as in ``Source.photo``.

    Parameters
    ----------
    source : Source
    row : PhotoRow
    framing : Framing
    size : tuple of int
        Width and height of the panel in pixels. The result is not larger than the photo.
    """
    from PIL import Image

    shown, reason = source.shown(row, framing)
    if shown is None:
        return None, reason
    left, top, right, bottom = row.crop
    inside = left >= 0 and top >= 0 and right <= row.size[1] and bottom <= row.size[0]
    high = min(size[1], round(bottom - top))
    if inside and high > shown.shape[0] * _ENLARGED:
        photo, _ = source.photo(row)
        if photo is not None and photo.shape[:2] == tuple(row.size):
            wide = max(1, round(high * (right - left) / (bottom - top)))
            image = Image.fromarray(photo)
            return np.asarray(image.resize((wide, high), Image.Resampling.LANCZOS, box=row.crop)), None
    # A figure may show 200 photos, and their whole crops would fill the memory.
    if shown.shape[0] <= size[1] * _ENLARGED:
        return shown, None
    return np.asarray(Image.fromarray(shown).resize(size, Image.Resampling.LANCZOS)), None
