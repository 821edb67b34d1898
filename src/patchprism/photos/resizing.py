"""Resize the box of a photo that the network sees; recognise photos that show nothing."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import PhotoError
from patchprism.support.arrays import to_uint8
from patchprism.support.threads import few_threads

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from patchprism.photos.plans import Plan

# Photos are processed in strips of about this many pixels, which stay in the processor's cache.
_STRIP_PIXELS = 1 << 17
# Each output pixel depends on a few input pixels, so its row of weights is mostly zero. Products of so many output rows
# or columns at a time leave out most of the zeros, and are still large enough for a fast matrix product.
_ROWS, _COLUMNS = 8, 16
# At most so many numbers of a photo are converted to float32 at once.
_BAND_NUMBERS = 1 << 20


def check_photo(photo: object, name: str) -> None:
    """Refuse anything that is not an array (H, W, 3) of uint8."""
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        shape, dtype = getattr(photo, "shape", None), getattr(photo, "dtype", type(photo).__name__)
        raise PhotoError(name, f"must be an array (H, W, 3) of uint8 to be framed, got {shape} of {dtype}")


def resize(photo: NDArray[np.uint8], plan: Plan, interpolation: str) -> torch.Tensor:
    """The box of the resized photo, (3, h, w) float32 in [0, 1].

    It equals ``torch.nn.functional.interpolate(antialias=True)`` on floats within 1e-5, and takes a third to two thirds
    of the time. Both steps, rows first and columns second, are products with the weights of the interpolation. Only the
    box is computed, and resizing to the same size is skipped.
    """
    import torch

    height, width = photo.shape[:2]
    # torch warns about read-only arrays, such as frames that belong to a decoder.
    source = torch.from_numpy(np.require(photo, requirements=["C", "W"]))
    columns = slice(plan.left, plan.left + plan.box_width)
    # For example a frame of a video that already has the network's size.
    if (plan.height, plan.width) == (height, width):
        box = source[plan.top : plan.top + plan.box_height, columns].permute(2, 0, 1)
        return box.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    down = _bands(height, plan.height, plan.top, plan.box_height, interpolation, _ROWS)
    across = _bands(width, plan.width, plan.left, plan.box_width, interpolation, _COLUMNS)
    rows = source.view(height, width * 3)
    box = torch.empty((3, plan.box_height, plan.box_width), dtype=torch.float32)
    bands_per_strip = max(1, _STRIP_PIXELS // (width * _ROWS))
    with few_threads(0):
        for first in range(0, len(down), bands_per_strip):
            bands = down[first : first + bands_per_strip]
            top = first * _ROWS
            bottom = min(top + len(bands) * _ROWS, plan.box_height)
            strip = torch.empty((bottom - top, width * 3), dtype=torch.float32)
            for i, (start, stop, weights) in enumerate(bands):
                _combine(rows[start:stop], weights, out=strip[i * _ROWS : (i + 1) * _ROWS])
            # Channels first, so that the columns of a row are contiguous.
            channels = strip.view(-1, width, 3).permute(2, 0, 1).contiguous()
            for i, (start, stop, weights) in enumerate(across):
                left = i * _COLUMNS
                box[:, top:bottom, left : left + len(weights)] = channels[..., start:stop] @ weights.T
    # Bicubic interpolation can exceed the range of the values.
    return box.clamp_(0, 255).div_(255)


def _combine(rows: torch.Tensor, weights: torch.Tensor, *, out: torch.Tensor) -> None:
    """Weighted sums of rows of uint8, (rows, numbers), into ``out``, (weights, numbers) float32.

    They are computed in pieces, because a few rows of a small result depend on much of a large photo, which takes
    gigabytes as floats.
    """
    import torch

    at_once = max(1, _BAND_NUMBERS // len(rows))
    for left in range(0, rows.shape[1], at_once):
        piece = slice(left, left + at_once)
        torch.mm(weights, rows[:, piece].to(torch.float32), out=out[:, piece])


@lru_cache(maxsize=32)
def _bands(
    pixels: int, resized: int, start: int, count: int, interpolation: str, size: int
) -> list[tuple[int, int, torch.Tensor]]:
    """Weights of an antialiased interpolation along one side, ``size`` output pixels at a time.

    The kernels are the triangle and the cubic one with a = -0.5 (Keys, "Cubic Convolution Interpolation for Digital
    Image Processing", 1981). If the photo is reduced, they are stretched by the factor of the reduction.

    Parameters
    ----------
    pixels, resized : int
        Length of the side before and after resizing.
    start, count : int
        The first output pixel and the number of output pixels.
    interpolation : {"bicubic", "bilinear"}
    size : int
        Number of output pixels of a band; the last may have fewer.

    Returns
    -------
    list of tuple
        For each band the range of input pixels that it depends on, as start and stop, and its weights,
        (``size``, stop - start) float32.
    """
    import torch

    # In float32, as torch computes them: in float64, some photos would differ from torch's by 5e-5.
    step = np.float32(pixels) / np.float32(resized)
    stretch = max(step, np.float32(1))
    reach = np.float32(2 if interpolation == "bicubic" else 1) * stretch
    bands = []
    for first in range(start, start + count, size):
        centers = step * (
            np.arange(first, min(first + size, start + count), dtype=np.float32) + np.float32(0.5)
        )
        begins = np.maximum((centers - reach + np.float32(0.5)).astype(np.int64), 0)[:, None]
        ends = np.minimum((centers + reach + np.float32(0.5)).astype(np.int64), pixels)[:, None]
        places = np.arange(begins[0, 0], ends[-1, 0])
        distances: NDArray[np.float32] = np.abs(
            places.astype(np.float32) - centers[:, None] + np.float32(0.5)
        )
        distances /= stretch
        weights = _cubic(distances) if interpolation == "bicubic" else np.maximum(1 - distances, 0)
        weights[(places < begins) | (places >= ends)] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append((int(places[0]), int(places[-1]) + 1, torch.from_numpy(weights)))
    return bands


def _cubic(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keys's cubic kernel with a = -0.5 at distances from 0 on."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))


def to_bytes(unit: torch.Tensor) -> NDArray[np.uint8]:
    """(3, h, w) float32 in [0, 1] -> (h, w, 3) uint8, in strips, because copies of a large photo take gigabytes."""
    _, height, width = unit.shape
    found = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // width)
    for start in range(0, height, rows):
        strip = unit[:, start : start + rows].permute(1, 2, 0).contiguous().numpy()
        found[start : start + rows] = to_uint8(strip)
    return found


def overlapping(pixels: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
    """Place overlapping patches side by side: (3, H, W) -> (3, H / stride * patch, W / stride * patch).

    Pixels beyond the borders are mirrored.
    """
    from torch.nn.functional import pad

    rows, columns = pixels.shape[1] // stride, pixels.shape[2] // stride
    around, odd = divmod(patch - stride, 2)
    reach = around + 2 * odd
    mode = "reflect" if reach < min(pixels.shape[1:]) else "replicate"
    pixels = pad(pixels[None], (reach, reach, reach, reach), mode=mode)[0]
    if odd:
        # The centre of a patch is half a pixel away from the centre of its cell, so pixels are interpolated halfway
        # between their neighbours (cubic).
        for axis in (1, 2):
            count = pixels.shape[axis] - 3
            taps = [pixels.narrow(axis, i, count) for i in range(4)]
            pixels = (taps[1] + taps[2]) * (9 / 16) - (taps[0] + taps[3]) / 16
    patches = pixels.unfold(1, patch, stride)[:, :rows].unfold(2, patch, stride)[:, :, :columns]
    return patches.permute(0, 1, 3, 2, 4).reshape(3, rows * patch, columns * patch)  # (3, h, P, w, P)


def is_plain(photo: NDArray[np.uint8]) -> bool:
    """Whether a photo, (H, W, 3) uint8, shows nothing: no channel varies by more than 2, or the photo is noise.

    In noise, neighbouring pixels are independent: in the central 256 x 256 pixels, their brightness has a correlation
    below 0.1. In photos it is 0.8 or more; only a few photos of sharp textures have less than 0.5.
    """
    height, width = photo.shape[:2]
    # A few pixels are enough to recognise that nearly all photos have more than one colour.
    some = photo[:: max(1, height // 16), :: max(1, width // 16)]
    if all(int((part.max((0, 1)) - part.min((0, 1))).max()) <= 2 for part in (some, photo)):
        return True
    top, left = max(0, height - 256) // 2, max(0, width - 256) // 2
    red, green, blue = np.moveaxis(photo[top : top + 256, left : left + 256].astype(np.float64), 2, 0)
    grey = (red + green + blue) / 3
    if min(grey.shape) < 16:
        return False
    grey -= grey.mean()
    size = float((grey**2).mean())
    across, down = float((grey[:, 1:] * grey[:, :-1]).mean()), float((grey[1:] * grey[:-1]).mean())
    if max(abs(across), abs(down)) >= 0.1 * size:
        return False
    # Specks on a plain background, such as stars, have no correlation either, but noise is everywhere.
    return bool(np.median(np.abs(grey)) > 0.25 * size**0.5)
