"""From patches to pixels: upsample maps with a few values per patch to the photo's own resolution.

``nearest`` shows one value per patch. ``bilinear`` interpolates between patches. ``guided`` lets values change at the
edges in the photo: it uses joint bilateral upsampling to cells of one or two pixels (:mod:`patchprism.features.finer`)
and bilinear interpolation between these. It follows the edges in the photo, whether the features contain them or not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.features.finer import doublings_for, finer
from patchprism.pictures.options import UPSAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Crop = tuple[float, float, float, float]
    Float32 = NDArray[np.float32]

# Pixels are computed in strips of about this many values, which fit into the processor's cache.
_STRIP_VALUES = 1 << 19


def upsample(
    values: NDArray[np.floating[Any]],
    *,
    crop: Crop,
    size: tuple[int, int],
    method: str = "nearest",
    photo: NDArray[np.uint8] | None = None,
) -> Float32:
    """Values of patches at the resolution of the photo.

    Parameters
    ----------
    values : ndarray, shape (h, w, C), floating
        A few values per patch; any number C of them.
    crop : tuple of float
        Left, top, right and bottom of the area that the patches cover, in the photo's pixels.
    size : tuple of int
        Height and width of the photo.
    method : {"nearest", "bilinear", "guided"}
    photo : ndarray, shape (H, W, 3), uint8
        The guide; only ``"guided"`` needs it.

    Returns
    -------
    ndarray, shape (H, W, C), float32
        Within the range of ``values``; 0 outside the crop.

    Raises
    ------
    OptionError
        If an argument is not as above.

    Examples
    --------
    >>> upsample(np.array([[[0.0], [1.0]]]), crop=(0, 0, 4, 1), size=(1, 4), method="bilinear")[0, :, 0]
    array([0.  , 0.25, 0.75, 1.  ], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    out = np.zeros((*size, values.shape[-1] if values.ndim == 3 else 0), np.float32)
    for rows, columns, strip in upsampled_strips(values, crop=crop, size=size, method=method, photo=photo):
        out[rows, columns] = strip
    return out


def upsampled_strips(
    values: NDArray[np.floating[Any]],
    *,
    crop: Crop,
    size: tuple[int, int],
    method: str,
    photo: NDArray[np.uint8] | None = None,
) -> Iterator[tuple[slice, slice, Float32]]:
    """Yield the result of :func:`upsample` in strips of rows, ``(rows, columns, (n, m, C))``, only inside the crop.

    In this way, a map with many values does not need memory at full size.
    """
    values = np.asarray(values, np.float32)
    _check(values, crop, size, method, photo)
    rows, columns = _inside(crop[1], crop[3], size[0]), _inside(crop[0], crop[2], size[1])
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    if method == "guided":
        assert photo is not None
        values = finer(values, photo, crop, doublings=doublings_for(crop, values.shape[:2]))
    along = _nearest if method == "nearest" else _linear
    take_rows = along(values.shape[0], crop[1], crop[3], rows)
    wide = along(values.shape[1], crop[0], crop[2], columns)(values, 1)
    for strip in _strips(rows, wide[0].size):
        yield strip, columns, take_rows(wide, 0, strip.start - rows.start, strip.stop - rows.start)


def paint_smooth(
    colors: NDArray[np.floating[Any]],
    *,
    crop: Crop,
    size: tuple[int, int],
    method: str,
    photo: NDArray[np.uint8] | None = None,
    fill: float = 0.0,
) -> NDArray[np.uint8]:
    """The picture of a photo, (H, W, 3) uint8, from its colours, (h, w, 3) in [0, 1]; ``fill`` outside the crop."""
    picture = np.full((*size, 3), round(255 * fill), np.uint8)
    for rows, columns, strip in upsampled_strips(colors, crop=crop, size=size, method=method, photo=photo):
        strip *= np.float32(255)
        picture[rows, columns] = np.rint(strip, out=strip).astype(np.uint8)
    return picture


def overlay_smooth(
    photo: NDArray[np.uint8],
    colors: NDArray[np.floating[Any]],
    foreground: NDArray[np.bool_],
    alpha: float,
    *,
    crop: Crop,
    method: str,
) -> NDArray[np.uint8]:
    """The colours over the photo, (H, W, 3) uint8; the background shows the photo.

    The foreground is upsampled together with the colours, so that there is no dark or sharp seam along its border.
    """
    # Background colours are 0, so the upsampled colours are already weighted with the foreground.
    values = np.concatenate(
        [np.where(foreground[..., None], colors, 0.0), foreground[..., None]], axis=-1, dtype=np.float32
    )
    result = photo.copy()
    for rows, columns, strip in upsampled_strips(
        values, crop=crop, size=photo.shape[:2], method=method, photo=photo
    ):
        under = photo[rows, columns] * (1 - np.float32(alpha) * strip[..., 3:])
        under += np.float32(255 * alpha) * np.minimum(strip[..., :3], strip[..., 3:])
        result[rows, columns] = np.rint(under, out=under).astype(np.uint8)
    return result


def _inside(start: float, stop: float, pixels: int) -> slice:
    """The pixels whose centres lie between two edges."""
    first = max(0, int(np.ceil(start - 0.5)))
    return slice(first, min(pixels, int(np.ceil(stop - 0.5))))


def _nearest(cells: int, start: float, stop: float, pixels: slice) -> Callable[..., Float32]:
    centers = np.arange(pixels.start, pixels.stop) + 0.5
    index = np.clip(np.floor((centers - start) * (cells / (stop - start))), 0, cells - 1).astype(np.intp)

    def take(values: Float32, axis: int, first: int = 0, last: int | None = None) -> Float32:
        taken: Float32 = values.take(index[first:last], axis=axis)
        return taken

    return take


def _linear(cells: int, start: float, stop: float, pixels: slice) -> Callable[..., Float32]:
    """Interpolation between the centres of cells; pixels beyond the outermost centres get their values."""
    centers = np.arange(pixels.start, pixels.stop) + 0.5
    place = np.clip((centers - start) * (cells / (stop - start)) - 0.5, 0, cells - 1)
    before = np.minimum(place.astype(np.intp), max(cells - 2, 0))
    share = (place - before).astype(np.float32)
    after = np.minimum(before + 1, cells - 1)

    def take(values: Float32, axis: int, first: int = 0, last: int | None = None) -> Float32:
        weight = share[first:last].reshape(-1, *([1] * (values.ndim - 1 - axis)))
        result: Float32 = values.take(after[first:last], axis=axis)
        low = values.take(before[first:last], axis=axis)
        result -= low
        result *= weight
        result += low
        return result

    return take


def _strips(rows: slice, values_a_row: int) -> Iterator[slice]:
    step = max(1, _STRIP_VALUES // max(1, values_a_row))
    for start in range(rows.start, rows.stop, step):
        yield slice(start, min(start + step, rows.stop))


def _check(
    values: Float32, crop: Crop, size: tuple[int, int], method: str, photo: NDArray[np.uint8] | None
) -> None:
    if method not in UPSAMPLES:
        raise OptionError(f"upsample must be one of {', '.join(UPSAMPLES)}, got {method!r}")
    if values.ndim != 3 or 0 in values.shape:
        raise OptionError(f"values must be (h, w, C), got {values.shape}")
    if not np.isfinite(values).all():
        raise OptionError("values must be finite, got NaN or infinity")
    left, top, right, bottom = crop
    if not (np.isfinite(crop).all() and left < right and top < bottom):
        raise OptionError(
            f"crop must be (left, top, right, bottom) with left < right and top < bottom, got {crop}"
        )
    if min(size) < 1:
        raise OptionError(f"size must be a height and a width of at least 1, got {size}")
    if method == "guided" and (photo is None or photo.dtype != np.uint8 or photo.shape != (*size, 3)):
        got = None if photo is None else (photo.shape, str(photo.dtype))
        raise OptionError(
            f"guided upsampling needs the photo, (H, W, 3) uint8 of size {tuple(size)}, got {got}"
        )
