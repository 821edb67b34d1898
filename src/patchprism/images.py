"""Any photo file -> RGB: the one reader of photos. Finding and framing are offered from here as well."""

from __future__ import annotations

import io
import os
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from patchprism.colors import to_uint8
from patchprism.errors import OptionError, PhotoError
from patchprism.framing import DEFAULT_SIZE, PRESETS, Framed, Framing
from patchprism.paths import PHOTO_SUFFIXES, advice_on, find_photos, photo_name, unique_stems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from PIL import Image, ImageCms

__all__ = [
    "DEFAULT_SIZE",
    "MAX_PIXELS",
    "PHOTO_SUFFIXES",
    "PRESETS",
    "Framed",
    "Framing",
    "find_photos",
    "photo_name",
    "read_photo",
    "unique_stems",
]

# Where Pillow calls a picture a decompression bomb. Pillow reads its own limit from a global that anyone may
# have changed, so it is held here too.
MAX_PIXELS = 178_956_970
# Photos only: no format whose reader starts another program or interprets a language (EPS, PDF, WMF).
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP")
_READABLE = "JPEG, PNG, WebP, TIFF, GIF or BMP"
_ORIENTATION_TAG = 0x0112


def read_photo(
    source: str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any],
    *,
    name: str | None = None,
) -> NDArray[np.uint8]:
    """Read a photo, whatever it is, into one form.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparency is laid over
    white, 16 bits are scaled to 8, and of several frames or pages the first is taken. Safe to call from
    several threads at once.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image or np.ndarray
        A file, or its content: JPEG, PNG, WebP, TIFF, GIF, BMP. An array must be (H, W), (H, W, 1),
        (H, W, 3) or (H, W, 4) with R, G, B and alpha in this order; uint8, uint16, bool, or floats in [0, 1].
    name : str, optional
        What to call the photo in errors; by default its path.

    Returns
    -------
    np.ndarray, shape (H, W, 3), uint8
        RGB in sRGB; contiguous, and no view of the source.

    Raises
    ------
    PhotoError
        If there is no such file, or it cannot be read as a photo, with the reason in a few words.
    OptionError
        If the source is of none of these types.
    """
    from PIL import Image

    label = photo_name(source) if name is None else name
    if isinstance(source, np.ndarray):
        return _read_array(source, label)
    with _named(label), _quiet():
        if isinstance(source, Image.Image):
            return _to_rgb(source, label)
        if isinstance(source, (str, os.PathLike)):
            if Path(source).is_dir():
                raise PhotoError(label, "is a folder, not a photo")
            if Path(source).is_fifo() and not os.fsdecode(source).startswith("/dev/"):
                # Opening it waits, for ever if nobody writes. The shell's own, of <(...), have their writer.
                raise PhotoError(label, "is a pipe, not a file")
            with open(source, "rb") as file:
                return _read_file(file, label)
        if isinstance(source, bytes):
            return _read_file(io.BytesIO(source), label)
        if callable(getattr(source, "read", None)):
            return _read_file(source, label)
    raise OptionError(
        f"a photo must be a path, bytes, a binary file, a PIL image or an array, got {type(source).__name__}"
    )


# -- files ---------------------------------------------------------------------------------------------------


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Whatever a reader raises becomes a PhotoError: on bad files, Pillow raises nearly everything."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except (PhotoError, OptionError):
        raise
    except FileNotFoundError as error:
        raise PhotoError(label, "no such file") from error
    except PermissionError as error:
        raise PhotoError(label, "permission denied") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(label, f"has more than {MAX_PIXELS:,} pixels") from error
    except MemoryError as error:
        raise PhotoError(label, "does not fit into memory") from error
    except UnidentifiedImageError as error:
        raise PhotoError(label, f"is no photo that can be read ({_READABLE}){advice_on(label)}") from error
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else f"is damaged or cut short ({error})"
        raise PhotoError(label, reason) from error
    except Exception as error:
        raise PhotoError(label, f"is damaged ({type(error).__name__}: {error})") from error


class _Quiet:
    """Pillow's warnings (large photos, odd metadata) kept off the terminal while any thread reads.

    ``warnings.catch_warnings`` swaps the process's filters and is not safe in threads by itself: the first
    reader to come swaps, the last to go swaps back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._filters: warnings.catch_warnings[None] | None = None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        from PIL import Image

        with self._lock:
            if self._readers == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
                warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
            self._readers += 1
        try:
            yield
        finally:
            with self._lock:
                self._readers -= 1
                if self._readers == 0 and self._filters is not None:
                    self._filters.__exit__(None, None, None)


_quiet = _Quiet().__call__


def _read_file(file: IO[bytes], label: str) -> NDArray[np.uint8]:
    from PIL import Image

    seekable = hasattr(file, "seekable") and file.seekable()
    if seekable:
        file.seek(0)
    head = file.read(16)
    if not isinstance(head, bytes):
        raise OptionError("a photo's file must be opened in binary mode ('rb')")
    if not head:
        raise PhotoError(label, "is empty")
    if not seekable:
        file = io.BytesIO(head + file.read())
    file.seek(0)
    _register_plugins()
    with Image.open(file, formats=_FORMATS) as image:
        return _to_rgb(image, label)


def _register_plugins() -> None:
    # Else Pillow imports all of its sixty plugins to find those that it does not load at first.
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )


# -- pixels --------------------------------------------------------------------------------------------------


def _to_rgb(image: Image.Image, label: str) -> NDArray[np.uint8]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PhotoError(label, f"has {width * height:,} pixels, more than {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise PhotoError(label, f"has no pixels ({width} x {height})")
    image.load()
    # Read after loading: PNG may store it behind the pixels, and Pillow turns TIFFs itself as it loads them.
    orientation = _orientation(image)
    if image.mode[0] in "IF":
        image = _eight_bits(image, label)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    rgb = _to_srgb(image)
    if alpha is not None:
        rgb = _over_white(rgb, alpha)
    return _turn(np.asarray(rgb), orientation)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:
        # Broken metadata comes in as many kinds as Pillow has exceptions; the pixels are fine.
        return 1


def _turn(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Upright, from the EXIF orientation: 5 to 8 are transposed; then rows or columns run backwards."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.array(pixels, order="C")


def _eight_bits(image: Image.Image, label: str) -> Image.Image:
    from PIL import Image as PILImage

    values = np.asarray(image)
    if image.mode == "F":
        return PILImage.fromarray(_float_to_uint8(values, label))
    # Mode I holds 32 bits, and is what some readers give 16 bits in.
    if values.min() < 0 or values.max() > 65535:
        raise PhotoError(
            label, f"has 32-bit values from {values.min()} to {values.max()}; allowed are 0 to 65535"
        )
    grey = PILImage.fromarray(_scale_uint16(values.astype(np.uint16)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(PILImage.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
    return grey


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB without alpha; by the embedded profile where there is one that is sound and not sRGB already."""
    from PIL import ImageCms

    image = _straight(image)
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return _by_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            # A broken profile, or one for another colour space, says nothing of the pixels.
            return image.convert("RGB")
    return image.convert("RGB")


def _by_profile(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    """Converted from ``source`` to sRGB.

    Raises
    ------
    PIL.ImageCms.PyCMSError, ValueError
        If the profile is not for such images.
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
        # Of grey, LittleCMS's shortcut is off by up to 10 in the darks, and going without it takes 2 s at 12
        # megapixels; for the 256 levels that there are it takes none.
        ramp = ImageCms.applyTransform(PILImage.fromarray(np.arange(256, dtype=np.uint8)[None]), transform)
        return PILImage.fromarray(np.asarray(ramp)[0][np.asarray(image.convert("L"))])
    if mode == "RGB":
        # Most profiles are sRGB under one of many names. Told by what it does to a few colours, such a
        # profile costs nothing and leaves the values as they are, where a conversion would round again.
        levels = np.arange(0, 256, 51, dtype=np.uint8)
        sample = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        converted = ImageCms.applyTransform(PILImage.fromarray(sample), transform)
        assert converted is not None  # None is for work in place
        if np.abs(np.asarray(converted).astype(int) - sample).max() <= 2:
            return image.convert("RGB")
    result = ImageCms.applyTransform(image.convert(mode), transform)
    assert result is not None
    return result


def _straight(image: Image.Image) -> Image.Image:
    """Premultiplied alpha undone: it must be before the alpha is dropped."""
    return image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode]) if image.mode in ("RGBa", "La") else image


def _over_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    from PIL import Image as PILImage

    white = PILImage.new("RGB", rgb.size, (255, 255, 255))
    white.paste(rgb, mask=alpha)
    return white


# -- arrays --------------------------------------------------------------------------------------------------


def _read_array(array: NDArray[Any], label: str) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise PhotoError(
            label, f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise PhotoError(label, f"has {array.shape[0] * array.shape[1]:,} pixels, more than {MAX_PIXELS:,}")
    if array.dtype == np.bool_:
        pixels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        pixels = array
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:
        pixels = _scale_uint16(array)
    elif array.dtype.kind == "f":
        pixels = _float_to_uint8(array, label)
    else:
        raise PhotoError(
            label, f"an array must be of uint8, uint16, bool or floats in [0, 1], got {array.dtype}"
        )
    if pixels.shape[2] == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if pixels.shape[2] == 4:
        from PIL import Image as PILImage

        image = PILImage.fromarray(np.ascontiguousarray(pixels))
        pixels = np.asarray(_over_white(image.convert("RGB"), image.getchannel("A")))
    return np.array(pixels, order="C")


def _scale_uint16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    # 65535 / 255 = 257 exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _float_to_uint8(values: NDArray[np.floating[Any]], label: str) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        raise PhotoError(label, f"floats must lie in [0, 1], got values from {low:g} to {high:g}")
    return to_uint8(values if values.dtype.itemsize >= 4 else values.astype(np.float32))
