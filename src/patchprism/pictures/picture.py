"""One photo's picture: its colours at the photo's own resolution and shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchprism.pictures.render import overlay, paint

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from patchprism.pictures.render import Crop
    from patchprism.prism.colors import PhotoColors

GREY = 0.5


def without_photo(upsample: str, background: str) -> tuple[str, str]:
    """What a picture that asks for its photo is drawn with where the photo is gone, in place of these."""
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
    """One photo's picture, (H, W, 3) uint8.

    Parameters
    ----------
    part : PhotoColors
    read : callable
        Gives the photo, (H, W, 3) uint8; called only where :func:`needs_photo` says so.
    crop : tuple of float
        Left, top, right, bottom of what the network saw, in the photo's pixels.
    size : tuple of int
        The photo's (H, W).
    overlay_alpha, upsample, background, basis
        As in :meth:`Visualization.picture <patchprism.Visualization.picture>`.
    """
    colored = np.ones_like(part.foreground) if basis == "all" else part.foreground
    colors = part.rgb_all if basis == "all" else part.rgb
    if overlay_alpha is None and background == "photo":
        overlay_alpha = 1.0
    if upsample == "auto":
        upsample = "nearest" if overlay_alpha is None else "guided"
    if overlay_alpha is None:
        fill = GREY if background == "grey" else 0.0
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
