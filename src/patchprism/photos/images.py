"""Any photo file -> RGB: the one reader of photos. Finding and framing are offered from here as well."""

from __future__ import annotations

import io
import os
import threading
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.content import HEAD, check_content, check_jpeg_2000
from patchprism.photos.framing import DEFAULT_SIZE, PRESETS, Framed, Framing, check_range
from patchprism.photos.paths import (
    PHOTO_SUFFIXES,
    advice_on,
    find_photos,
    is_stream,
    photo_name,
    unique_stems,
)
from patchprism.photos.profiles import gamma_of, gamma_table, straight, to_srgb, to_srgb_curve
from patchprism.photos.tiffs import Tiff, open_tiff, unread
from patchprism.support.arrays import to_uint8
from patchprism.support.reading import BYTES_A_PIXEL, claim, note

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    # The values that are black and white.
    Range = tuple[float, float]

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
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF", "HEIF")
_READABLE = "JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000 or AVIF"
_ORIENTATION_TAG = 0x0112
# A photo of wide numbers that reaches less than this share of their range is nearly black to the network: what 14 bits
# or fewer make of 16.
_DARK = 1 / 4
# PNG's raw modes of 16 bits: Pillow keeps the upper byte of each number under the first name, the lower under the
# second. A third is for two channels, whose four bytes are read as they are.
_SIXTEEN = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}


def read_photo(
    source: str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any],
    *,
    name: str | None = None,
    range: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Read a photo, whatever it is, into one form.

    EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparency is laid over
    white, 16 bits are scaled to 8, and of several frames or pages the first is taken. Safe to call from
    several threads at once.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image or np.ndarray
        A file, or its content: JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000, AVIF, and HEIC with the extra ``heif``.
        An array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with R, G, B and alpha in this order; uint8,
        uint16, bool, or floats in [0, 1], and with ``range`` any other numbers.
    name : str, optional
        What to call the photo in errors; by default its path.
    range : (low, high), optional
        The values that are black and white where a photo does not hold 8 bits: ``(0, 4095)`` for the 12 bits of
        a camera in 16, ``(-160, 240)`` for Hounsfield units. Values beyond are clipped. Photos of 8 bits are read
        as they are.

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
    values = check_range("range", range)
    if isinstance(source, np.ndarray):
        return _read_array(source, label, values)
    with _named(label), _quiet():
        if isinstance(source, Image.Image):
            return _to_rgb(source, label, values)
        if isinstance(source, (str, os.PathLike)):
            if Path(source).is_dir():
                raise PhotoError(label, "is a folder, not a photo")
            if Path(source).is_char_device() or Path(source).is_block_device():
                raise PhotoError(label, "is a device, not a file")
            if Path(source).is_fifo() and not is_stream(source):
                # Opening it waits, for ever if nobody writes. The shell's own, of <(...), have their writer.
                raise PhotoError(label, "is a pipe, not a file")
            with open(source, "rb") as file:
                return _read_file(file, label, values)
        if isinstance(source, bytes):
            return _read_file(io.BytesIO(source), label, values)
        if callable(getattr(source, "read", None)):
            return _read_file(source, label, values)
    raise OptionError(
        f"a photo must be a path, bytes, a binary file, a PIL image or an array, got {type(source).__name__}"
    )


def alpha_of(source: str | os.PathLike[str] | IO[bytes], name: str) -> NDArray[np.uint8] | None:
    """The alpha channel of a photo's file, (H, W) uint8, turned as :func:`read_photo` turns it; None without one.

    Raises
    ------
    PhotoError
        If the file cannot be read.
    """
    from PIL import Image

    with _named(name), _quiet():
        _register_plugins()
        with Image.open(source, formats=[each for each in _FORMATS if each in Image.OPEN]) as image:
            _check_size(*image.size, name)
            image.load()
            orientation = _orientation(image)
            if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
                return None
            return _turn(np.asarray(image.convert("RGBA").getchannel("A")), orientation)


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


def _read_file(file: IO[bytes], label: str, values: Range | None) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    seekable = hasattr(file, "seekable") and file.seekable()
    if seekable:
        file.seek(0)
    head = file.read(HEAD)
    if not isinstance(head, bytes):
        raise OptionError("a photo's file must be opened in binary mode ('rb')")
    if not head:
        raise PhotoError(label, "is empty")
    if not seekable:
        file = io.BytesIO(head + file.read())
    file.seek(0)
    _register_plugins()
    check_content(head, label)
    formats = [each for each in _FORMATS if each in Image.OPEN]
    tiff = None
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        tiff = open_tiff(file, label, most_pixels=MAX_PIXELS, whole=values is not None)
        if tiff is not None and tiff.values is not None:
            return _from_tiff(tiff, label, values)
        file.seek(0)
    try:
        with Image.open(file, formats=formats) as image:
            if image.format == "JPEG2000":
                check_jpeg_2000(file, label)
            if tiff is not None:
                image.seek(tiff.page)
                pixels = _to_rgb(image, label, None if tiff.upper_bytes else values)
                if tiff.upper_bytes:
                    _note_if_dark(int(pixels.max()) * 257, 65535)
                return pixels
            if image.format == "PNG" and (sixteen := _sixteen_bits(image, label)) is not None:
                return _from_sixteen(image, sixteen, label, values)
            return _to_rgb(image, label, values)
    except UnidentifiedImageError as error:
        if tiff is not None:
            raise PhotoError(label, unread(tiff)) from error
        raise


def _register_plugins() -> None:
    # Else Pillow imports all of its sixty plugins to find those that it does not load at first.
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    with suppress(ImportError):  # of Pillow below 11.3
        from PIL import AvifImagePlugin  # noqa: F401


# -- pixels --------------------------------------------------------------------------------------------------


def _to_rgb(image: Image.Image, label: str, values: Range | None) -> NDArray[np.uint8]:
    _check_size(*image.size, label)
    image.load()
    image = straight(image)
    # Read after loading: PNG may store it behind the pixels, and Pillow turns TIFFs itself as it loads them.
    orientation = _orientation(image)
    frames = _note_frames(image)
    if image.mode[0] in "IF":
        image = _from_wide(image, label, values)
    elif values is not None:
        note(_AS_IT_IS)
    alpha = None
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
    rgb = to_srgb(image)
    if gamma := gamma_of(image):
        rgb = rgb.point(gamma_table(gamma, 256).tolist() * 3)
    if alpha is not None:
        rgb = _over_white(rgb, alpha)
    for text in frames:
        note(text)
    return _turn(np.asarray(rgb), orientation)


def _check_size(width: int, height: int, label: str) -> None:
    if width * height > MAX_PIXELS:
        raise PhotoError(label, f"has {width * height:,} pixels, more than {MAX_PIXELS:,}")
    if width < 1 or height < 1:
        raise PhotoError(label, f"has no pixels ({width} x {height})")
    claim(width * height * BYTES_A_PIXEL, label)


def _note_frames(image: Image.Image) -> list[str]:
    """What to say of a file's other frames. Pages of TIFFs are counted where their file is opened."""
    try:
        count = int(getattr(image, "n_frames", 1))
        which = "one" if image.tell() else "the first"
    except Exception:  # damaged further on; the first frame is fine
        return []
    what = "picture" if image.format in ("MPO", "HEIF") else "frame"
    return [f"only {which} of {count} {what}s is read"] if count > 1 and image.format != "TIFF" else []


# -- wide numbers ----------------------------------------------------------------------------------------------

_AS_IT_IS = "holds 8 bits, which are read as they are: range is for other numbers"


def _eight_bits(
    values: NDArray[Any],
    label: str,
    wanted: Range | None,
    *,
    top: int | None = None,
    gamma: float | None = None,
    zero: str = "black",
) -> NDArray[np.uint8]:
    """Numbers of any type -> uint8 of the same shape.

    Parameters
    ----------
    values : ndarray
    label : str
    wanted : (low, high) or None
        The values that are black and white.
    top : int, optional
        The largest number that the file's bits can hold, where that is not their type's.
    gamma : float, optional
        The file's exponent of encoding, where it is not sRGB's.
    zero : str
        What zero means, for what is said.

    Raises
    ------
    PhotoError
        If the numbers cannot be told black from white without a range.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and size == 1:
        if wanted is not None:
            note(_AS_IT_IS)
        return values
    if kind not in "uif":
        raise PhotoError(label, f"an array must hold numbers, got {values.dtype}")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)) and not (kind == "f" and wanted is None):
        raise PhotoError(label, "holds values that are no finite numbers")
    if kind == "u" and size == 2:
        top = top or 65535
        if wanted is None:
            _note_if_dark(int(high), top, zero)
        if wanted is None and gamma is None and top == 65535:
            return _scale_uint16(values)
        first, last = wanted or (0, top)
        unit = np.clip((np.arange(65536) - first) / (last - first), 0, 1)
        table = to_uint8(to_srgb_curve(unit, gamma).astype(np.float32))
        return np.take(table, values)
    if wanted is None:
        if kind != "f":
            raise PhotoError(
                label,
                f"holds {values.dtype.name} values from {low} to {high}, which are not read as they are: "
                f"{_say_range()}",
            )
        if not (low >= 0 and high <= 1):
            raise PhotoError(
                label,
                f"floats must lie in [0, 1], got values from {low:g} to {high:g}: {_say_range()}",
            )
        _note_if_dark(high, 1, zero)
        return to_uint8(values if size >= 4 else values.astype(np.float32))
    first, last = wanted
    # float64 where float32 would round the numbers themselves.
    unit = values.astype(np.float32 if size <= 2 else np.float64)
    unit -= first
    unit /= last - first
    return to_uint8(np.clip(unit, 0, 1, out=unit))


def _note_if_dark(high: float, top: float, zero: str = "black") -> None:
    if 0 < high < top * _DARK:
        likely = next((2**bits - 1 for bits in (8, 10, 12, 14) if high < 2**bits), None)
        how = _say_range(likely if top > 1 else None)
        note(f"the largest value is {high:,.6g} of {top:,}: nearly {zero} to the network; {how}")


def _say_range(high: int | None = None) -> str:
    given = ("LOW,HIGH", "(low, high)") if high is None else (f"0,{high}", f"(0, {high})")
    return f"say with --range {given[0]} (in Python: range={given[1]}) which values are black and white"


def _from_tiff(tiff: Tiff, label: str, wanted: Range | None) -> NDArray[np.uint8]:
    """The photo of a page that tifffile has read."""
    assert tiff.values is not None
    if not tiff.values.size:
        raise PhotoError(label, f"has no pixels ({tiff.values.shape[1]} x {tiff.values.shape[0]})")
    values = _narrowed(tiff.values)
    top = tiff.top if values is tiff.values else None
    pixels = _eight_bits(values, label, wanted, top=top, zero="white" if tiff.white_is_zero else "black")
    if tiff.white_is_zero:
        pixels = 255 - pixels
    alpha = None if tiff.alpha is None else _alpha(tiff.alpha, label)
    if alpha is not None and tiff.premultiplied:
        pixels = _unmultiplied(pixels, alpha)
    return _finished(pixels, alpha, tiff.profile, tiff.orientation)


def _alpha(values: NDArray[Any], label: str) -> NDArray[np.uint8]:
    if values.dtype.kind in "ui":
        unit = values / np.float32(np.iinfo(values.dtype).max)
        return to_uint8(np.clip(unit, 0, 1).astype(np.float32))
    return _eight_bits(values, label, (0, 1))


def _unmultiplied(pixels: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    unit = pixels.astype(np.float32) / np.maximum(alpha, 1)[..., None]
    return to_uint8(np.clip(unit, 0, 1, out=unit))


def _finished(
    pixels: NDArray[np.uint8], alpha: NDArray[np.uint8] | None, profile: bytes | None, orientation: int
) -> NDArray[np.uint8]:
    """Grey or RGB, (H, W, 1 or 3), -> sRGB over white, upright."""
    from PIL import Image as PILImage

    image = PILImage.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    if profile:
        image.info["icc_profile"] = profile
    rgb = to_srgb(image)
    if alpha is not None:
        rgb = _over_white(rgb, PILImage.fromarray(np.ascontiguousarray(alpha)))
    return _turn(np.asarray(rgb), orientation)


def _sixteen_bits(image: Image.Image, label: str) -> NDArray[np.uint16] | None:
    """All bits of a PNG with 16 a channel, (H, W, 2 to 4); None for another one. Pillow gives the upper eight."""
    from PIL import Image as PILImage

    tiles: Any = getattr(image, "tile", ())
    if len(tiles) != 1 or tiles[0][3] not in _SIXTEEN:
        return None
    tile = tiles[0]
    _check_size(*image.size, label)
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
            if raw == tile[3] or two:  # it may be stored behind the pixels
                image.info["orientation"] = _orientation(part)
    upper, lower = (parts[0][..., ::2], parts[0][..., 1::2]) if two else parts
    return upper * np.uint16(256) + lower


def _from_sixteen(
    image: Image.Image, values: NDArray[np.uint16], label: str, wanted: Range | None
) -> NDArray[np.uint8]:
    """The photo of a PNG with 16 bits a channel."""
    alpha = None
    colors = 1 if values.shape[2] == 2 else 3
    transparent = image.info.get("transparency")
    if values.shape[2] in (2, 4):
        alpha = _scale_uint16(values[..., colors])
    elif isinstance(transparent, tuple) and len(transparent) == 3:
        alpha = np.where((values == np.array(transparent)).all(-1), 0, 255).astype(np.uint8)
    pixels = _eight_bits(values[..., :colors], label, wanted, gamma=gamma_of(image))
    for text in _note_frames(image):
        note(text)
    return _finished(pixels, alpha, image.info.get("icc_profile"), image.info["orientation"])


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


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers that fit into 16 bits, as such: many programs write them as wider or signed ones."""
    wide = values.dtype.kind in "ui" and values.dtype.itemsize in (2, 4) and values.dtype != np.uint16
    if wide and values.min() >= 0 and values.max() <= 65535:
        return values.astype(np.uint16)
    return values


def _from_wide(image: Image.Image, label: str, wanted: Range | None) -> Image.Image:
    """An image of Pillow's modes for more than 8 bits, in 8."""
    from PIL import Image as PILImage

    values = _narrowed(np.asarray(image))
    grey = PILImage.fromarray(_eight_bits(values, label, wanted, gamma=gamma_of(image)))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(PILImage.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if "icc_profile" in image.info:
        grey.info["icc_profile"] = image.info["icc_profile"]
    return grey


def _over_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    from PIL import Image as PILImage

    white = PILImage.new("RGB", rgb.size, (255, 255, 255))
    white.paste(rgb, mask=alpha)
    return white


# -- arrays --------------------------------------------------------------------------------------------------


def _read_array(array: NDArray[Any], label: str, wanted: Range | None) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise PhotoError(
            label, f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    _check_size(array.shape[1], array.shape[0], label)
    colors = array.shape[2] - (array.shape[2] == 4)
    pixels = _eight_bits(array[..., :colors], label, wanted)
    if colors == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if colors < array.shape[2]:
        from PIL import Image as PILImage

        alpha = PILImage.fromarray(np.ascontiguousarray(_alpha(array[..., colors], label)))
        pixels = np.asarray(_over_white(PILImage.fromarray(np.ascontiguousarray(pixels)), alpha))
    return np.array(pixels, order="C")


def _scale_uint16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    # 65535 / 255 = 257 exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
