"""Convert colours to sRGB, from a colour profile or a gamma."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image, ImageCms


def gamma_of(image: Image.Image) -> float | None:
    """The exponent that the values of a PNG are encoded with, if there is no better information about them."""
    gamma = image.info.get("gamma")
    if image.format != "PNG" or not isinstance(gamma, float) or {"srgb", "icc_profile"} & set(image.info):
        return None
    # Programs write 0.45455 for sRGB. Values outside these bounds are not plausible.
    return gamma if 0.1 <= gamma <= 2 and abs(gamma - 1 / 2.2) > 0.01 else None


def to_srgb_curve(unit: NDArray[np.float64], gamma: float | None) -> NDArray[np.float64]:
    """Values in [0, 1] that are encoded with an exponent -> sRGB; without an exponent, the values unchanged."""
    if gamma is None:
        return unit
    linear = unit ** (1 / gamma)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def gamma_table(gamma: float, levels: int) -> NDArray[np.uint8]:
    """The sRGB value, (levels,) uint8, of each of so many evenly spaced values from 0 to 1."""
    return to_uint8(to_srgb_curve(np.linspace(0, 1, levels), gamma).astype(np.float32))


def to_srgb(image: Image.Image) -> Image.Image:
    """RGB without alpha, converted with the embedded profile if it is valid and not already sRGB."""
    from PIL import ImageCms

    image = straight(image)
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(
            ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
        )
        converted = ImageCms.applyTransform(image, lab)
        assert converted is not None  # it is None only if the image is converted in place
        return converted
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return _by_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # A broken profile, or one for another colour space, is ignored.
            return image.convert("RGB")
    return image.convert("RGB")


def _by_profile(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """Convert an image from the profile ``source`` to sRGB.

    Raises
    ------
    PIL.ImageCms.PyCMSError, ValueError
        If the profile is for another kind of image.
    """
    from PIL import Image as PILImage
    from PIL import ImageCms

    mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(source.profile.xcolor_space.strip(), "")
    if (
        not mode
        or (mode == "CMYK") != (image.mode == "CMYK")
        or (mode == "L") > (image.mode in ("1", "L", "LA"))
    ):
        raise ValueError("a profile for another kind of image")
    transform = ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0),
    )
    if mode == "L":
        # For grey, the fast path of LittleCMS is wrong by up to 10 in dark parts, and the exact path takes 2 s for 12
        # megapixels. Converting only the 256 levels takes no time.
        ramp = ImageCms.applyTransform(PILImage.fromarray(np.arange(256, dtype=np.uint8)[None]), transform)
        return PILImage.fromarray(np.asarray(ramp)[0][np.asarray(image.convert("L"))])
    if mode == "RGB":
        # Most profiles are sRGB under one of many names. Such a profile is recognised by converting a few colours.
        # The photo is then not converted, which saves time and avoids rounding the values again.
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        sample = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        converted = ImageCms.applyTransform(PILImage.fromarray(sample), transform)
        assert converted is not None  # it is None only if the image is converted in place
        if np.abs(np.asarray(converted).astype(int) - sample).max() <= 2:
            return image.convert("RGB")
    result = ImageCms.applyTransform(image.convert(mode), transform)
    assert result is not None
    return result


def straight(image: Image.Image) -> Image.Image:
    """The image without premultiplied alpha; this must happen before the alpha channel is removed."""
    return image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode]) if image.mode in ("RGBa", "La") else image
