"""The picture of a photo: its colours at the photo's own resolution and shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.render import overlay, paint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from patchprism.pictures.render import Crop
    from patchprism.prism.colors import PhotoColors

# Plain backgrounds, as grey values in [0, 1].
FILLS = {"black": 0.0, "grey": 0.5, "white": 1.0}


def without_photo(upsample: str, background: str) -> tuple[str, str]:
    """The options ``upsample`` and ``background``, changed to values that do not need the photo."""
    return (
        "bilinear" if upsample == "guided" else upsample,
        "black" if background == "photo" else background,
    )


def draw_picture(
    part: PhotoColors,
    read: Callable[[], NDArray[np.uint8]],
    *,
    crop: Crop,
    size: tuple[int, int],
    overlay_alpha: float | None = None,
    upsample: str = "auto",
    background: str = "black",
    basis: str = "object",
) -> NDArray[np.uint8]:
    """The picture of a photo, (H, W, 3) uint8; (H, W, 4) with a transparent background.

    Parameters
    ----------
    read : callable
        Returns the photo, (H, W, 3) uint8; called only if :func:`needs_photo` is true.
    crop : tuple of float
        Left, top, right and bottom of the area that the network saw, in the photo's pixels.
    size : tuple of int
        The photo's (H, W).
    overlay_alpha, upsample, background, basis
        As in :meth:`Visualization.picture <patchprism.Visualization.picture>`.
    """
    return draw_colors(
        part.rgb_all if basis == "all" else part.rgb,
        np.ones_like(part.foreground) if basis == "all" else part.foreground,
        read,
        crop=crop,
        size=size,
        overlay_alpha=overlay_alpha,
        upsample=upsample,
        background=background,
    )


def draw_colors(
    colors: NDArray[np.floating[Any]],
    colored: NDArray[np.bool_],
    read: Callable[[], NDArray[np.uint8]],
    *,
    crop: Crop,
    size: tuple[int, int],
    overlay_alpha: float | None = None,
    upsample: str = "auto",
    background: str = "black",
) -> NDArray[np.uint8]:
    """Like :func:`draw_picture`, from colours, (h, w, 3) in [0, 1], and the patches to colour, (h, w) bool."""
    if overlay_alpha is None and background == "photo":
        overlay_alpha = 1.0
    if upsample == "auto":
        upsample = "nearest" if overlay_alpha is None else "guided"
    if overlay_alpha is None:
        if background == "transparent":
            return _clear(colors, colored, crop, size, upsample, read() if upsample == "guided" else None)
        fill = FILLS[background]
        colors = np.where(colored[..., np.newaxis], colors, np.float32(fill))
        if upsample == "nearest":
            return paint(colors, crop=crop, size=size, fill=fill)
        from patchprism.pictures.upsample import paint_smooth

        guide = read() if upsample == "guided" else None
        return paint_smooth(colors, crop=crop, size=size, method=upsample, photo=guide, fill=fill)
    if upsample == "nearest":
        picture = paint(colors, crop=crop, size=size)
        return overlay(read(), picture, overlay_alpha, foreground=colored, crop=crop)
    from patchprism.pictures.upsample import overlay_smooth

    return overlay_smooth(read(), colors, colored, overlay_alpha, crop=crop, method=upsample)


def _clear(
    colors: NDArray[np.floating[Any]],
    colored: NDArray[np.bool_],
    crop: Crop,
    size: tuple[int, int],
    upsample: str,
    guide: NDArray[np.uint8] | None,
) -> NDArray[np.uint8]:
    """Colours with the foreground as their opacity, (H, W, 4) uint8; edges are as soft as the upsampling makes them."""
    from patchprism.pictures.upsample import upsampled_strips

    values = np.concatenate(
        [np.where(colored[..., None], colors, 0.0), colored[..., None]], axis=-1, dtype=np.float32
    )
    picture = np.zeros((*size, 4), np.uint8)
    for rows, columns, strip in upsampled_strips(values, crop=crop, size=size, method=upsample, photo=guide):
        # These colours are premultiplied with the foreground, but PNG stores straight alpha.
        strip[..., :3] /= np.maximum(strip[..., 3:], np.float32(1e-6))
        picture[rows, columns] = np.rint(255 * np.clip(strip, 0, 1)).astype(np.uint8)
    return picture
