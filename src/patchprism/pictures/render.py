"""From colours to pictures, and the files that contain them. Uses Pillow and NumPy, not Matplotlib."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, OutputError
from patchprism.pictures.png import shape_of, write_png
from patchprism.support.arrays import to_uint8
from patchprism.support.files import atomic_write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    Crop = tuple[float, float, float, float]

    from patchprism.prism.colors import PhotoColors


_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
# Rows are blended in strips that fit into the processor's cache.
_STRIP_ROWS = 64


def paint(
    colors: NDArray[np.floating[Any]], *, crop: Crop, size: tuple[int, int], fill: float = 0.0
) -> NDArray[np.uint8]:
    """The picture of a photo at its own resolution and shape: each patch is a rectangle of its colour.

    Parameters
    ----------
    colors : np.ndarray, shape (h, w, 3), floating
        Colours in [0, 1].
    crop : tuple of float
        The area that the patches cover: left, top, right and bottom in the photo's pixels
        (`patchprism.photos.framing.Framed.crop`). A pixel belongs to the patch that contains its centre.
    size : tuple of int
        Height and width of the photo.
    fill : float, default 0.0
        Grey value in [0, 1] outside the crop; by default black, like the background.

    Returns
    -------
    np.ndarray, shape (height, width, 3), uint8

    Raises
    ------
    OptionError
        If an argument is not as above.
    """
    colors = np.asarray(colors)
    if colors.ndim != 3 or colors.shape[2] != 3 or 0 in colors.shape or colors.dtype.kind != "f":
        raise OptionError(f"colors must be floats of shape (h, w, 3), got {colors.shape} of {colors.dtype}")
    patches: NDArray[np.uint8] = np.full(
        (colors.shape[0] + 1, colors.shape[1] + 1, 3), to_uint8(np.array([float(fill)])), dtype=np.uint8
    )
    patches[:-1, :-1] = to_uint8(colors)
    rows, columns = patch_of_pixels(colors.shape[:2], crop, size)
    return patches[:, columns][rows]


def overlay(
    photo: NDArray[np.uint8],
    picture: NDArray[np.uint8],
    alpha: float,
    *,
    foreground: NDArray[np.bool_] | None = None,
    crop: Crop | None = None,
) -> NDArray[np.uint8]:
    """Blend a photo with its colours.

    Only the foreground is coloured. The background and the area outside the crop show the photo.

    Parameters
    ----------
    photo, picture : np.ndarray, shape (H, W, 3), uint8
        The photo, and the result of `paint` for it.
    alpha : float
        In [0, 1]: 0 shows the photo, 1 the colours.
    foreground : np.ndarray, shape (h, w), bool, optional
        The patches to colour, by default all.
    crop : tuple of float, optional
        The area that the patches cover, as in `paint`; by default the whole photo.

    Returns
    -------
    np.ndarray, shape (H, W, 3), uint8
        Within 1/255 of the exact blend.

    Raises
    ------
    OptionError
        If an argument is not as above.
    """
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha must lie in [0, 1], got {alpha!r}")
    if (
        photo.ndim != 3
        or photo.shape != picture.shape
        or photo.dtype != np.uint8
        or picture.dtype != np.uint8
    ):
        raise OptionError(
            "photo and picture must be (H, W, 3) uint8 of one shape, "
            f"got {photo.shape} of {photo.dtype} and {picture.shape} of {picture.dtype}"
        )
    height, width = photo.shape[:2]
    mask = np.ones((1, 1), dtype=bool) if foreground is None else np.asarray(foreground)
    if mask.ndim != 2 or mask.dtype != np.bool_ or not mask.size:
        raise OptionError(f"foreground must be (h, w) bool, got {mask.shape} of {mask.dtype}")
    rows, columns = patch_of_pixels(
        mask.shape, crop or (0.0, 0.0, float(width), float(height)), (height, width)
    )
    # In units of 1/256, so that 16 bits are enough: 255 * 256 + 128 < 65536.
    share = np.uint16(round(alpha * 256))
    weights = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), dtype=np.uint16)
    weights[:-1, :-1][mask] = share
    weights = weights[:, columns]
    result = np.empty_like(photo)
    for start in range(0, height, _STRIP_ROWS):
        strip = slice(start, start + _STRIP_ROWS)
        weight = weights[rows[strip]][:, :, None]
        blend = np.multiply(picture[strip], weight, dtype=np.uint16)
        blend += np.multiply(photo[strip], np.uint16(256) - weight, dtype=np.uint16)
        blend += np.uint16(128)
        result[strip] = blend >> np.uint16(8)
    return result


def write_picture(
    path: str | os.PathLike[str],
    picture: NDArray[np.uint8] | Image.Image,
    *,
    quality: int = 95,
    dpi: int | None = None,
) -> None:
    """Write a picture, complete or not at all; the same picture always gives the same bytes.

    Parameters
    ----------
    path : path
        Ends in ``.png``, ``.jpg`` or ``.jpeg``, which sets the format.
    picture : np.ndarray, shape (H, W, 3) or (H, W, 4), uint8, or PIL.Image.Image of mode RGB or RGBA
        The fourth channel is opacity, which JPEG does not support.
    quality : int, default 95
        Quality of JPEG, 1 to 100. Colours are not subsampled, because patches have sharp edges.
    dpi : int, optional
        Pixels per inch, for programs that print the picture.

    Raises
    ------
    OptionError
        If the suffix, the array or the quality is not as above.
    OutputError
        If the file cannot be written.
    """
    name = os.fspath(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in _FORMATS:
        raise OptionError(f"a picture's name must end in {', '.join(_FORMATS)}, got {name!r}")
    channels = (3,) if _FORMATS[suffix] == "JPEG" else (3, 4)
    shape = shape_of(picture)
    kind = str(picture.dtype) if isinstance(picture, np.ndarray) else picture.mode
    if kind not in ("uint8", "RGB", "RGBA") or len(shape) != 3 or shape[2] not in channels or 0 in shape:
        raise OptionError(f"a picture must be (H, W, 3) uint8, got {shape} of {kind}")
    if not 1 <= quality <= 100:
        raise OptionError(f"quality must be 1 to 100, got {quality!r}")
    if _FORMATS[suffix] == "PNG":
        with atomic_write(path) as part, part.open("wb") as file:
            write_png(file, picture, dpi=dpi)
        return
    if max(shape) > 65535:
        raise OutputError(name, "JPEG holds at most 65,535 pixels per side; use PNG")
    options: dict[str, Any] = {"quality": quality, "subsampling": 0}
    if dpi is not None:
        options["dpi"] = (dpi, dpi)
    encoded = io.BytesIO()
    if isinstance(picture, np.ndarray):
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(picture))
    picture.save(encoded, "JPEG", **options)
    with atomic_write(path) as part:
        part.write_bytes(encoded.getbuffer())


def patch_of_pixels(
    grid: tuple[int, ...], crop: Crop, size: tuple[int, int]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the patches for each row and each column of pixels; outside the crop, the number of patches."""
    left, top, right, bottom = crop
    if not (np.isfinite(crop).all() and left < right and top < bottom):
        raise OptionError(
            f"crop must be (left, top, right, bottom) with left < right and top < bottom, got {crop}"
        )
    if min(size) < 1:
        raise OptionError(f"size must be a height and a width of at least 1, got {size}")
    return _along(size[0], grid[0], top, bottom), _along(size[1], grid[1], left, right)


def _along(pixels: int, patches: int, start: float, stop: float) -> NDArray[np.intp]:
    centers = np.arange(pixels) + 0.5
    inside = (centers >= start) & (centers < stop)
    # The product may round up to the number of patches just before the end.
    index = np.minimum(np.floor((centers - start) * (patches / (stop - start))), patches - 1)
    return np.where(inside, index, patches).astype(np.intp)


def write_arrays(part: PhotoColors, path: Path) -> None:
    with atomic_write(path) as temporary:
        np.savez_compressed(
            temporary, score=part.score, foreground=part.foreground, rgb=part.rgb, rgb_all=part.rgb_all
        )
