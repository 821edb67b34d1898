"""Decoded pictures -> RGB: orientation, colour profile, transparency, and more than 8 bits per channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PhotoError
from patchprism.photos.numbers import RANGE_IGNORED, eight_bits, narrowed, opacity, scale_uint16
from patchprism.photos.plans import MAX_PIXELS
from patchprism.photos.profiles import gamma_of, gamma_table, straight, to_srgb
from patchprism.support.arrays import to_uint8
from patchprism.support.reading import BYTES_PER_PIXEL, claim, note

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.photos.numbers import Range
    from patchprism.photos.tiffs import Tiff

_ORIENTATION_TAG = 0x0112
# Pillow's raw modes for PNG with 16 bits. For three and four channels, the first mode gives the upper byte of each
# number and the second the lower byte. For two channels, the second mode gives all four bytes.
_SIXTEEN = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def to_rgb(image: Image.Image, label: str, values: Range | None) -> NDArray[np.uint8]:
    """An open Pillow image -> sRGB over white, upright."""
    check_size(*image.size, label)
    image.load()
    image = straight(image)
    # Read after loading: PNG may store the orientation after the pixels, and Pillow rotates TIFFs when it loads them.
    orientation = orientation_of(image)
    frames = _note_frames(image)
    if image.mode[0] in "IF":
        image = _from_wide(image, label, values)
    elif values is not None:
        note(RANGE_IGNORED)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    rgb = to_srgb(image)
    if gamma := gamma_of(image):
        rgb = rgb.point(gamma_table(gamma, 256).tolist() * 3)
    if alpha is not None:
        rgb = over_white(rgb, alpha)
    for text in frames:
        note(text)
    return turned(np.asarray(rgb), orientation)


def check_size(width: int, height: int, label: str) -> None:
    """Refuse a photo that is too large or empty, and claim the memory for it."""
    if width * height > MAX_PIXELS:
        raise PhotoError(label, f"has {width * height:,} pixels, more than {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise PhotoError(label, f"has no pixels ({width} x {height})")
    claim(width * height * BYTES_PER_PIXEL, label)


def _note_frames(image: Image.Image) -> list[str]:
    """The note that other frames of the file are not read. TIFF pages are counted when the file is opened."""
    try:
        count = int(getattr(image, "n_frames", 1))
        which = "one" if image.tell() else "the first"
    except Exception:  # a later frame is damaged, but the first one could be read
        return []
    what = "picture" if image.format in ("MPO", "HEIF") else "frame"
    return [f"only {which} of {count} {what}s is read"] if count > 1 and image.format != "TIFF" else []


def from_tiff(tiff: Tiff, label: str, wanted: Range | None) -> NDArray[np.uint8]:
    """The photo of a page that tifffile has read."""
    assert tiff.values is not None
    if not tiff.values.size:
        raise PhotoError(label, f"has no pixels ({tiff.values.shape[1]} x {tiff.values.shape[0]})")
    values = narrowed(tiff.values)
    top = tiff.top if values is tiff.values else None
    pixels = eight_bits(values, label, wanted, top=top, zero="white" if tiff.white_is_zero else "black")
    if tiff.white_is_zero:
        pixels = 255 - pixels
    alpha = None if tiff.alpha is None else opacity(tiff.alpha, label)
    if alpha is not None and tiff.premultiplied:
        pixels = _unmultiplied(pixels, alpha)
    return _finished(pixels, alpha, tiff.profile, tiff.orientation)


def _unmultiplied(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    unit = pixels.astype(np.float32) / np.maximum(alpha, 1)[..., None]
    return to_uint8(np.clip(unit, 0, 1, out=unit))


def _finished(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, profile: bytes | None, orientation: int
) -> NDArray[np.uint8]:
    """Grey or RGB pixels, (H, W, 1 or 3) -> sRGB over white, upright."""
    from PIL import Image as PILImage

    image = PILImage.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if profile:
        image.info["icc_profile"] = profile
    rgb = to_srgb(image)
    if alpha is not None:
        rgb = over_white(rgb, PILImage.fromarray(np.ascontiguousarray(alpha)))
    return turned(np.asarray(rgb), orientation)


def sixteen_bits(image: Image.Image, label: str) -> NDArray[np.uint16] | None:
    """All bits of a PNG with 16 bits per channel, (H, W, 2 to 4); None for other files. Pillow gives only 8 bits."""
    from PIL import Image as PILImage

    tiles: Any = getattr(image, "tile", ())
    if len(tiles) != 1 or tiles[0][3] not in _SIXTEEN:
        return None
    tile = tiles[0]
    check_size(*image.size, label)
    file: Any = image.fp  # type: ignore[attr-defined]
    two = tile[3] == "LA;16B"
    parts = []
    for raw in [_SIXTEEN[tile[3]]] if two else [tile[3], _SIXTEEN[tile[3]]]:
        file.seek(0)
        with PILImage.open(file, formats=["PNG"]) as part:
            first: Any = part
            first._mode = raw.partition(";")[0]
            first.tile = [(*first.tile[0][:3], raw)]
            part.load()
            parts.append(np.asarray(part).astype(np.uint16))
            image.info.update(part.info)
            if raw == tile[3] or two:  # it may be stored after the pixels
                image.info["orientation"] = orientation_of(part)
    upper, lower = (parts[0][..., ::2], parts[0][..., 1::2]) if two else parts
    return upper * np.uint16(256) + lower


def from_sixteen(
    image: Image.Image, values: NDArray[np.uint16], label: str, wanted: Range | None
) -> NDArray[np.uint8]:
    """The photo of a PNG with 16 bits per channel."""
    alpha = None
    colors = 1 if values.shape[2] == 2 else 3
    transparent = image.info.get("transparency")
    if values.shape[2] in (2, 4):
        alpha = scale_uint16(values[..., colors])
    elif isinstance(transparent, tuple) and len(transparent) == 3:
        alpha = np.where((values == np.array(transparent)).all(-1), 0, 255).astype(np.uint8)
    pixels = eight_bits(values[..., :colors], label, wanted, gamma=gamma_of(image))
    for text in _note_frames(image):
        note(text)
    return _finished(pixels, alpha, image.info.get("icc_profile"), image.info["orientation"])


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 if the metadata is damaged, on which Pillow raises many exceptions."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        return 1


def turned(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels turned upright. Orientations 5 to 8 are transposed; then rows or columns are reversed."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.array(pixels, order="C")


def _from_wide(image: Image.Image, label: str, wanted: Range | None) -> Image.Image:
    """A Pillow image with more than 8 bits -> one with 8 bits."""
    from PIL import Image as PILImage

    values = narrowed(np.asarray(image))
    grey = PILImage.fromarray(eight_bits(values, label, wanted, gamma=gamma_of(image)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(PILImage.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
    return grey


def over_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """The image over a white background."""
    from PIL import Image as PILImage

    white = PILImage.new("RGB", rgb.size, (255, 255, 255))
    white.paste(rgb, mask=alpha)
    return white
