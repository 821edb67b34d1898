"""Read TIFF files that Pillow does not read correctly: planes, signed and wide numbers, floats, several pages.

Pillow reads TIFF files with eight bits, palettes, CMYK and JPEG well. But it reads planes of 16 bits as interleaved
pixels, wraps signed bytes, inverts white-is-zero floats, and does not report further pages. tifffile is used to find
out what a file contains, and to read the pixels that Pillow cannot.
"""

from __future__ import annotations

import logging
import lzma
import zlib
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import PhotoError
from patchprism.support.reading import BYTES_PER_PIXEL, claim, note
from patchprism.support.words import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Maximum number of pages that are checked for previews. A file with more pages is not a photo with previews.
_MAX_CHECKED = 16
_MOST_CHANNELS = 16
_DEFLATE, _LZMA = (8, 32946), 34925
# Compressions that Pillow reads: those of the baseline, LZW, JPEG, Deflate, LZMA, PackBits, Zstandard and WebP.
_PILLOW_READS = (*range(1, 9), *_DEFLATE, _LZMA, 32773, 50000, 50001)
# Compressions that tifffile reads without imagecodecs; 1 means none, and 32773 is PackBits.
_TIFFFILE_READS = (1, *_DEFLATE, _LZMA, 32773)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_PREVIEW, _MASK = 1, 4
_ORIENTATION, _PROFILE = 274, 34675

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # otherwise Python prints its warnings


@dataclass
class Tiff:
    """Contents of a TIFF file, as far as they are read.

    Attributes
    ----------
    page : int
        Index of the page that is read.
    values : ndarray, shape (H, W, 1 or 3), or None
        Values of the colours; None if Pillow reads them correctly.
    alpha : ndarray, shape (H, W), or None
    premultiplied : bool
        Whether the colours are multiplied by alpha.
    top : int or None
        The largest number that the bits can represent, for unsigned integers.
    wants_imagecodecs : bool
        Whether tifffile needs imagecodecs to read the page, and it is not installed.
    upper_bytes : bool
        Whether Pillow reads the page, but keeps only the upper byte of 16 bits.
    kind : str
        Short description of the page, for errors.
    """

    page: int
    kind: str
    values: NDArray[Any] | None = None
    alpha: NDArray[Any] | None = None
    premultiplied: bool = False
    white_is_zero: bool = False
    top: int | None = None
    orientation: int = 1
    profile: bytes | None = field(default=None, repr=False)
    wants_imagecodecs: bool = False
    upper_bytes: bool = False


def open_tiff(file: IO[bytes], label: str, *, most_pixels: int, whole: bool) -> Tiff | None:
    """Contents of a TIFF file; None if tifffile cannot read it.

    Parameters
    ----------
    label : str
        Name of the photo in errors.
    most_pixels : int
        Maximum number of pixels of a photo.
    whole : bool
        Whether all bits of wide numbers are needed; otherwise the upper eight are enough.

    Raises
    ------
    PhotoError
        If the file is too large, or is a kind of TIFF that cannot be read.
    """
    from tifffile import TiffFile

    try:
        tiff = TiffFile(file)
        number, page, kind = _choose(tiff)
    except Exception:
        return None  # damaged, or a variant that tifffile does not know; Pillow's error tells what is wrong
    found = Tiff(number, kind)
    if page.imagewidth * page.imagelength > most_pixels:
        raise PhotoError(
            label, f"has {page.imagewidth * page.imagelength:,} pixels, more than {most_pixels:,}"
        )
    if page.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        _read(page, found, label, whole)
    elif page.dtype != np.uint8 and page.samplesperpixel > 1 and page.planarconfig != 1:
        raise PhotoError(label, unread(found))  # Pillow would read wide planes as interleaved pixels
    return found


def unread(tiff: Tiff) -> str:
    """The reason why neither library can read a TIFF correctly."""
    if tiff.wants_imagecodecs:
        return f"is a TIFF that needs imagecodecs to be read ({tiff.kind}): pip install 'patchprism[tiff]'"
    return f"is a kind of TIFF that cannot be read ({tiff.kind})"


def _choose(tiff: Any) -> tuple[int, Any, str]:
    """The index of the page to read, the page, and a short description of it."""
    pages = tiff.pages
    count = len(pages)
    checked = [pages[i] for i in range(min(count, _MAX_CHECKED))]
    photos = [i for i, page in enumerate(checked) if not int(page.subfiletype) & (_PREVIEW | _MASK)]
    number = photos[0] if photos else 0
    page = checked[number]
    kept = count - (len(checked) - len(photos)) if photos else count
    kept = max(kept, _stacked(tiff))
    if kept > 1:
        channels = " (channels that are stored as pages are not combined)" if 2 <= kept <= 4 else ""
        note(f"only the first of {kept} pages was read{channels}")
    if not photos:
        note(
            "only a preview was read; the photo itself is stored in a format that cannot be read, like a "
            "camera's raw file"
        )
    if page.imagedepth > 1:
        note(f"only the first of {page.imagedepth} planes in depth was read")
    photometric, compression = (
        getattr(each, "name", str(each)) for each in (page.photometric, page.compression)
    )
    kind = f"{photometric}, {counted(page.samplesperpixel, 'channel')} of {page.bitspersample} bits, {compression}"
    return number, page, kind


def _stacked(tiff: Any) -> int:
    """Number of pages according to a description by ImageJ or tifffile, which may list several pages as one."""
    try:
        if tiff.is_imagej and tiff.imagej_metadata:
            return int(tiff.imagej_metadata.get("images", 1))
        if tiff.is_shaped and tiff.shaped_metadata:
            shape = tiff.shaped_metadata[0].get("shape", ())
            return int(np.prod(shape) // max(1, np.prod(tiff.pages[0].shape)))
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        pass  # the description is invalid
    return 1


def _read(page: Any, found: Tiff, label: str, whole: bool) -> None:
    colors = 3 if page.photometric == _RGB else 1
    samples, bits = int(page.samplesperpixel), page.bitspersample
    extra = samples - colors
    if extra < 0 or samples > _MOST_CHANNELS:
        raise PhotoError(
            label, f"has {counted(samples, 'channel')}: this kind of TIFF cannot be read ({found.kind})"
        )
    kinds = [int(each) for each in np.ravel(page.extrasamples)] if page.extrasamples else []
    with_alpha = extra > 0 and bool(kinds) and kinds[0] in (1, 2)
    if colors == 1 and extra > with_alpha:
        raise PhotoError(
            label, f"has {samples} channels and does not say which are red, green and blue; save it as RGB"
        )
    if extra > with_alpha:
        read = "red, green, blue and alpha" if with_alpha else "red, green and blue"
        note(f"only {read} of {samples} channels were read")
    common = page.compression in _TIFFFILE_READS and page.predictor in (1, 2) and bits in (8, 16, 32, 64)
    found.wants_imagecodecs = not common and find_spec("imagecodecs") is None
    interleaved = samples == 1 or page.planarconfig == 1
    eight = page.dtype == np.uint8 and bits == 8
    plain = eight and (extra == 0 or (extra == 1 and colors == 3 and interleaved))
    if (isinstance(bits, int) and bits < 8) or (plain and page.compression in _PILLOW_READS):
        return  # Pillow reads these correctly, and faster
    # If tifffile fails, Pillow can read these, but it keeps eight bits of sixteen. It does not invert white-is-zero.
    sixteen = page.dtype == np.uint16 and bits == 16 and page.photometric != _WHITE_IS_ZERO
    spare = interleaved and (eight or (sixteen and (colors == 1 or not whole)))
    pixels = page.imagewidth * page.imagelength
    claim(pixels * (BYTES_PER_PIXEL + 2 * samples * (page.dtype.itemsize if page.dtype else 2)), label)
    try:
        _check_segments(page)
        values = page.asarray(maxworkers=1)
    except Exception as error:
        found.upper_bytes = sixteen and colors == 3
        if spare:
            return
        if found.wants_imagecodecs:
            raise PhotoError(label, unread(found)) from error
        raise PhotoError(
            label, f"is damaged, cut short, or a kind of TIFF that cannot be read ({found.kind})"
        ) from error
    axes = page.axes
    if page.imagedepth > 1:
        values, axes = values.take(0, axis=axes.index("Z")), axes.replace("Z", "")
    if samples == 1:
        values = values.reshape(page.imagelength, page.imagewidth, 1)
    elif axes == "SYX":
        values = np.moveaxis(values, 0, -1)
    found.values = values[..., :colors]
    if with_alpha:
        found.alpha = values[..., colors]
        found.premultiplied = kinds[0] == 1
    found.white_is_zero = page.photometric == _WHITE_IS_ZERO
    if isinstance(bits, int) and values.dtype.kind == "u":
        found.top = (1 << bits) - 1
    tags = page.tags
    try:
        found.orientation = int(tags.valueof(_ORIENTATION, 1))
    except (TypeError, ValueError):
        found.orientation = 1
    profile = tags.valueof(_PROFILE)
    found.profile = bytes(profile) if isinstance(profile, (bytes, bytearray)) else None


def _check_segments(page: Any) -> None:
    """Refuse a file that ends before its pixels do, or whose strips or tiles unpack to more than their pixels.

    tifffile would read missing pixels as black.

    Raises
    ------
    ValueError
        If the file is one of these.
    """
    file = page.parent.filehandle
    size = int(np.prod(page.chunks)) * (page.dtype.itemsize if page.dtype else 2)
    for start, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        if start + length > file.size:
            raise ValueError("cut short")
        # Python's decoders unpack everything, which can be a thousand times the size of a malicious file.
        unpack: Any = None
        if page.compression in _DEFLATE:
            unpack = zlib.decompressobj()
        elif page.compression == _LZMA:
            unpack = lzma.LZMADecompressor()
        if unpack is not None and length:
            file.seek(start)
            if len(unpack.decompress(file.read(length), size + 1)) > size:
                raise ValueError("a strip or tile unpacks to more than its pixels")
