"""Paint the pictures of a video from frames and colours, plane by plane, in the colour space of the clip.

A frame is written as it was decoded. Only the colours of the patches are converted: a few thousand values instead of a
few million pixels. Blending is linear, so the result in luma and chroma is the same as in RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.jobs.video.frames import rgb_to_planes
from patchprism.jobs.video.options import LAYOUTS
from patchprism.pictures.render import patch_of_pixels
from patchprism.pictures.upsample import overlay_smooth, paint_smooth
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.jobs.video.frames import Frame
    from patchprism.jobs.video.steady import PatchColors

    Crop = tuple[float, float, float, float]

Layout = Literal["side", "overlay", "colors"]
DEFAULT_OVERLAY = 0.6

# Shares of red and blue in luma: ITU-R BT.601 and BT.709.
_LUMA = {1: (0.2126, 0.0722)}
_LUMA_601 = (0.299, 0.114)


class Canvas:
    """Paints frames of one size and grid.

    Parameters
    ----------
    layout : {"side", "overlay", "colors"}
    alpha : float in [0, 1], optional
        Opacity of the colours over the frame. By default 0.6 for ``"overlay"``; the other layouts show the
        colours on black.
    upsample : {"nearest", "bilinear", "guided"}
        How patches become pixels.
    matrix : int
        Colour space of luma and chroma, in FFmpeg's numbers: 1 is BT.709, all others count as BT.601.
    """

    def __init__(self, *, layout: str, alpha: float | None, upsample: str, matrix: int) -> None:
        if layout not in LAYOUTS:
            raise OptionError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
        if alpha is not None and not 0 <= alpha <= 1:
            raise OptionError(f"overlay must lie in [0, 1], got {alpha}")
        self.layout, self.upsample, self.matrix = layout, upsample, matrix
        self.alpha = DEFAULT_OVERLAY if alpha is None and layout == "overlay" else alpha
        self._places: dict[tuple[Any, ...], tuple[Any, Any]] = {}

    def size(self, height: int, width: int, *, even: bool) -> tuple[int, int]:
        """Height and width of the picture of a frame; ``even`` cuts off the odd row or column of each panel."""
        if even:
            height, width = height // 2 * 2, width // 2 * 2
        return height, width * 2 if self.layout == "side" else width

    def paint_rgb(self, frame: Frame, patches: PatchColors, crop: Crop) -> NDArray[np.uint8]:
        """The picture in RGB, (H, W, 3) uint8."""
        height, width = frame.rgb.shape[:2]
        out = np.empty((*self.size(height, width, even=False), 3), np.uint8)
        if self.upsample == "guided":
            out[:, :width] = frame.rgb
            out[:, -width:] = self._guided(frame, patches, crop)
            return out
        self._panels([frame.rgb], [out], patches, crop, [patches.colors * np.float32(255)], [0])
        return out

    def paint_planes(
        self, frame: Frame, patches: PatchColors, crop: Crop, out: Sequence[NDArray[np.uint8]]
    ) -> None:
        """Paint the picture into luma and chroma planes of even size, uint8."""
        if frame.planes is None:
            raise OptionError("this frame was read without planes")
        if self.upsample == "guided":
            # Guided colours are computed for every pixel in RGB, and then converted.
            painted = rgb_to_planes(self._guided(frame, patches, crop), self.matrix)
            for plane, panel, target in zip(frame.planes, painted, out, strict=True):
                height, width = target.shape[0], target.shape[1] // (2 if self.layout == "side" else 1)
                target[:, :width] = plane[:height, :width]
                target[:, -width:] = panel[:height, :width]
            return
        values = self._to_yuv(patches.colors)
        channels = [values[..., i] for i in range(3)]
        self._panels(frame.planes, out, patches, crop, channels, [16, 128, 128])

    def _guided(self, frame: Frame, patches: PatchColors, crop: Crop) -> NDArray[np.uint8]:
        """The frame's colours, (H, W, 3) uint8, as ``render`` gives them with the same upsampling."""
        if self.alpha is None:
            return paint_smooth(
                patches.rgb, crop=crop, size=frame.rgb.shape[:2], method="guided", photo=frame.rgb
            )
        laid = (patches.rgb, patches.foreground, self.alpha)
        return overlay_smooth(frame.rgb, *laid, crop=crop, method="guided")

    def _panels(
        self,
        photo: Sequence[NDArray[np.uint8]],
        out: Sequence[NDArray[np.uint8]],
        patches: PatchColors,
        crop: Crop,
        values: Sequence[NDArray[np.float32]],
        blacks: Sequence[int],
    ) -> None:
        full = photo[0].shape[:2]
        for plane, target, value, black in zip(photo, out, values, blacks, strict=True):
            scale = round(full[0] / plane.shape[0]) if plane is not photo[0] else 1
            height = target.shape[0]
            width = target.shape[1] // (2 if self.layout == "side" else 1)
            plane = plane[:height, :width]
            if self.layout == "side":
                target[:, :width] = plane
            self._patches(plane, target[:, -width:], patches.foreground, crop, scale, value, black)

    def _patches(
        self,
        photo: NDArray[np.uint8],
        out: NDArray[np.uint8],
        foreground: NDArray[np.bool_],
        crop: Crop,
        scale: int,
        values: NDArray[np.float32],
        black: int,
    ) -> None:
        mask = foreground if values.ndim == 2 else foreground[..., None]
        if self.alpha is None and self.upsample == "nearest":
            table = np.full((values.shape[0] + 1, values.shape[1] + 1, *values.shape[2:]), black, np.uint8)
            table[:-1, :-1] = np.where(mask, np.rint(values), black)
            rows, columns = self._nearest(out.shape, foreground.shape, crop, scale)
            if out.flags.c_contiguous:
                np.take(table[:, columns], rows, axis=0, out=out)
            else:
                out[:] = table[:, columns][rows]
            return
        alpha = np.float32(1.0 if self.alpha is None else self.alpha)
        weight = mask.astype(np.float32) * alpha
        weight_up = self._up(weight, out.shape, crop, scale)
        blend = self._up(weight * values, out.shape, crop, scale)
        under: Any = black if self.alpha is None else photo
        blend += (1 - weight_up) * under
        np.rint(blend, out=blend)
        out[:] = blend.clip(0, 255, out=blend)

    def _up(
        self, values: NDArray[np.float32], shape: tuple[int, ...], crop: Crop, scale: int
    ) -> NDArray[np.float32]:
        """Values of patches for every pixel, (H, W, ...) float32; 0 outside of the crop."""
        if self.upsample == "nearest":
            rows, columns = self._nearest(shape, values.shape, crop, scale)
            padded = np.pad(values, ((0, 1), (0, 1), *((0, 0),) * (values.ndim - 2)))
            return padded[:, columns][rows]
        key = ("bilinear", shape[:2], values.shape[:2], crop, scale)
        if key not in self._places:
            left, top, right, bottom = (edge / scale for edge in crop)
            self._places[key] = (
                _linear(shape[0], values.shape[0], top, bottom),
                _linear(shape[1], values.shape[1], left, right),
            )
        down, across = self._places[key]
        flat = values.reshape(*values.shape[:2], -1)
        channels = [down @ flat[..., i] @ across.T for i in range(flat.shape[-1])]
        return channels[0] if values.ndim == 2 else np.stack(channels, axis=-1)

    def _nearest(
        self, shape: tuple[int, ...], grid: tuple[int, ...], crop: Crop, scale: int
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        key = ("nearest", shape[:2], grid[:2], crop, scale)
        if key not in self._places:
            left, top, right, bottom = (edge / scale for edge in crop)
            self._places[key] = patch_of_pixels(grid, (left, top, right, bottom), (shape[0], shape[1]))
        return self._places[key]

    def _to_yuv(self, rgb: NDArray[np.float32]) -> NDArray[np.float32]:
        """Colours in [0, 1] as luma and chroma of the clip, video range (16 to 235, 16 to 240)."""
        red, blue = _LUMA.get(self.matrix, _LUMA_601)
        # Rounded to bytes first, so that colours are the same as in pictures.
        r, g, b = np.moveaxis(to_uint8(rgb).astype(np.float32) / np.float32(255), -1, 0)
        y = red * r + (1 - red - blue) * g + blue * b
        u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
        return np.stack([16 + 219 * y, 128 + 224 * u, 128 + 224 * v], axis=-1).astype(np.float32)


def _linear(pixels: int, patches: int, start: float, stop: float) -> NDArray[np.float32]:
    """Weights of bilinear interpolation along one side, (pixels, patches); rows outside of the crop are 0."""
    centers = np.arange(pixels) + 0.5
    place = np.clip((centers - start) * (patches / (stop - start)) - 0.5, 0, patches - 1)
    below = np.minimum(place.astype(np.intp), max(patches - 2, 0))
    part = place - below
    weights = np.zeros((pixels, patches), np.float32)
    rows = np.arange(pixels)
    weights[rows, below] = 1 - part
    if patches > 1:
        weights[rows, below + 1] = part
    weights[(centers < start) | (centers >= stop)] = 0
    return weights
