"""Resize the box of a photo that the network sees; recognise photos that show nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import PhotoError
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from patchprism.photos.plans import Plan

# Rows are resized in strips of about this many pixels, which stay in the processor's cache. Framing a photo of
# 12 megapixels then takes 40 % of the time of one call over the whole photo (65 ms instead of 160 ms on two cores).
_STRIP_PIXELS = 1 << 18


def check_photo(photo: object, name: str) -> None:
    """Refuse anything that is not an array (H, W, 3) of uint8."""
    if not isinstance(photo, np.ndarray) or photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3:
        shape, dtype = getattr(photo, "shape", None), getattr(photo, "dtype", type(photo).__name__)
        raise PhotoError(name, f"must be an array (H, W, 3) of uint8 to be framed, got {shape} of {dtype}")


def resize(photo: NDArray[np.uint8], plan: Plan, interpolation: str) -> torch.Tensor:
    """The box of the resized photo, (3, h, w) float32 in [0, 1].

    Equal, to the last bit, to ``interpolate`` on the whole photo, which also resizes rows first and columns second.
    Only the box is computed in the second step, and resizing to the same size is skipped.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = photo.shape[:2]
    # torch warns about read-only arrays, such as frames that belong to a decoder.
    source = torch.from_numpy(np.require(photo, requirements=["C", "W"]))
    columns = slice(plan.left, plan.left + plan.box_width)
    if (plan.height, plan.width) == (
        height,
        width,
    ):  # for example, a video that already has the network's size
        box = source[plan.top : plan.top + plan.box_height, columns].permute(2, 0, 1)
        return box.to(torch.float32, memory_format=torch.contiguous_format).div_(255)
    # One tensor per channel, each freed after its use, because together they take gigabytes for a large photo.
    across = [torch.empty((height, plan.box_width), dtype=torch.float32) for _ in range(3)]
    rows = max(1, _STRIP_PIXELS // max(width, plan.width))
    for start in range(0, height, rows):
        strip = source[start : start + rows].permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        resized = interpolate(
            strip[None],
            size=(strip.shape[1], plan.width),
            mode=interpolation,
            antialias=True,
            align_corners=False,
        )
        for channel in range(3):
            across[channel][start : start + rows] = resized[0, channel, :, columns]
    box = torch.empty((3, plan.box_height, plan.box_width), dtype=torch.float32)
    for channel in range(3):
        resized = interpolate(
            across.pop(0)[None, None],
            size=(plan.height, plan.box_width),
            mode=interpolation,
            antialias=True,
            align_corners=False,
        )
        box[channel] = resized[0, 0, plan.top : plan.top + plan.box_height]
    # Bicubic interpolation can exceed the range of the values.
    return box.clamp_(0.0, 1.0)


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
    grey = photo[top : top + 256, left : left + 256].mean(axis=2)
    if min(grey.shape) < 16:
        return False
    grey -= grey.mean()
    size = float((grey**2).mean())
    across, down = float((grey[:, 1:] * grey[:, :-1]).mean()), float((grey[1:] * grey[:-1]).mean())
    if max(abs(across), abs(down)) >= 0.1 * size:
        return False
    # Specks on a plain background, such as stars, have no correlation either, but noise is everywhere.
    return bool(np.median(np.abs(grey)) > 0.25 * size**0.5)
