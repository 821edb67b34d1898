"""Any photo file -> RGB. All photos are read with this module."""

from __future__ import annotations

import io
import os
import threading
import warnings
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.content import HEAD, check_content, check_jpeg_2000
from patchprism.photos.decoded import (
    check_size,
    from_sixteen,
    from_tiff,
    orientation_of,
    over_white,
    sixteen_bits,
    to_rgb,
    turned,
)
from patchprism.photos.framing import check_range
from patchprism.photos.numbers import eight_bits, note_if_dark, opacity
from patchprism.photos.paths import HEIF_ADVICE, HEIF_SUFFIXES, advice_on, is_stream, photo_name, reads_heif
from patchprism.photos.plans import MAX_PIXELS
from patchprism.photos.tiffs import open_tiff, unread

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.photos.numbers import Range

# Only photos. Formats whose reader starts another program or interprets a language (EPS, PDF, WMF) are excluded.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000", "AVIF", "HEIF")
_READABLE = "JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000 or AVIF"


def read_photo(
    source: str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | NDArray[Any],
    *,
    name: str | None = None,
    range: Sequence[float] | None = None,
) -> NDArray[np.uint8]:
    """Read any photo as an RGB array.

    The EXIF orientation is applied, an embedded colour profile is converted to sRGB, transparent parts become white,
    and 16 bits are scaled to 8. If there are several frames or pages, the first one is read. The function can be
    called from several threads at the same time.

    Parameters
    ----------
    source : path, bytes, binary file, PIL.Image.Image or np.ndarray
        A file, or its content: JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000, AVIF, and HEIC with the extra ``heif``. An
        array must have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), with red, green, blue and alpha in this
        order. Its dtype must be uint8, uint16, bool, or float with values in [0, 1]. With ``range``, other dtypes and
        values are allowed.
    name : str, optional
        Name of the photo in errors; by default its path.
    range : (low, high), optional
        The values that are black and white in a photo that does not have 8 bits: ``(0, 4095)`` for 12 bits in a
        16-bit file, ``(-160, 240)`` for Hounsfield units. Values outside this range are clipped. Photos with 8 bits
        are not changed.

    Returns
    -------
    np.ndarray, shape (H, W, 3), uint8
        RGB in sRGB; contiguous, and a copy of the source.

    Raises
    ------
    PhotoError
        If there is no such file, or it cannot be read as a photo; the message gives the reason.
    OptionError
        If the source has another type.
    """
    from PIL import Image

    label = photo_name(source) if name is None else name
    values = check_range("range", range)
    if isinstance(source, np.ndarray):
        return _read_array(source, label, values)
    with _named(label), _quiet():
        if isinstance(source, Image.Image):
            return to_rgb(source, label, values)
        if isinstance(source, (str, os.PathLike)):
            if Path(source).is_dir():
                raise PhotoError(label, "is a folder, not a photo")
            if Path(source).is_char_device() or Path(source).is_block_device():
                raise PhotoError(label, "is a device, not a file")
            if Path(source).is_fifo() and not is_stream(source):
                # Opening a pipe waits until a program writes to it, possibly forever. Pipes that the shell creates
                # with <(...) have a writer.
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
    """The alpha channel of a photo file, (H, W) uint8, upright as in :func:`read_photo`; None if there is none.

    Raises
    ------
    PhotoError
        If the file cannot be read.
    """
    from PIL import Image

    with _named(name), _quiet(), _opened(source) as file:
        _register_plugins()
        check_content(file.read(HEAD), name)
        file.seek(0)
        with Image.open(file, formats=[each for each in _FORMATS if each in Image.OPEN]) as image:
            check_size(*image.size, name)
            image.load()
            orientation = orientation_of(image)
            if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
                return None
            return turned(np.asarray(image.convert("RGBA").getchannel("A")), orientation)


# -- files ---------------------------------------------------------------------------------------------------


def _opened(source: str | os.PathLike[str] | IO[bytes]) -> AbstractContextManager[IO[bytes]]:
    return open(source, "rb") if isinstance(source, (str, os.PathLike)) else nullcontext(source)


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Turn any exception of a reader into a PhotoError: Pillow raises many kinds of exceptions on damaged files."""
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
        kinds = HEIF_ADVICE if label.lower().endswith(HEIF_SUFFIXES) and not reads_heif() else _READABLE
        raise PhotoError(label, f"not a readable image ({kinds}){advice_on(label)}") from error
    except OSError as error:
        reason = error.strerror.lower() if error.strerror else f"is damaged or cut short ({error})"
        raise PhotoError(label, reason) from error
    except Exception as error:
        raise PhotoError(label, f"is damaged ({type(error).__name__}: {error})") from error


class _Quiet:
    """Suppresses Pillow's warnings (large photos, damaged metadata) while any thread reads a photo.

    ``warnings.catch_warnings`` replaces the filters of the whole process, and is not thread-safe. So the first reader
    replaces the filters, and the last one restores them.
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
            return from_tiff(tiff, label, values)
        file.seek(0)
    try:
        with Image.open(file, formats=formats) as image:
            if image.format == "JPEG2000":
                check_jpeg_2000(file, label)
            if tiff is not None:
                image.seek(tiff.page)
                pixels = to_rgb(image, label, None if tiff.upper_bytes else values)
                if tiff.upper_bytes:
                    note_if_dark(int(pixels.max()) * 257, 65535)
                return pixels
            if image.format == "PNG" and (sixteen := sixteen_bits(image, label)) is not None:
                return from_sixteen(image, sixteen, label, values)
            return to_rgb(image, label, values)
    except UnidentifiedImageError as error:
        if tiff is not None:
            raise PhotoError(label, unread(tiff)) from error
        raise


def _register_plugins() -> None:
    # Otherwise Pillow imports all of its sixty plugins to find those that it does not load at first.
    from PIL import (  # noqa: F401
        BmpImagePlugin,
        GifImagePlugin,
        Jpeg2KImagePlugin,
        JpegImagePlugin,
        PngImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    with suppress(ImportError):  # Pillow before 11.3
        from PIL import AvifImagePlugin  # noqa: F401


def _read_array(array: NDArray[Any], label: str, wanted: Range | None) -> NDArray[np.uint8]:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise PhotoError(
            label, f"an array must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {array.shape}"
        )
    check_size(array.shape[1], array.shape[0], label)
    colors = array.shape[2] - (array.shape[2] == 4)
    pixels = eight_bits(array[..., :colors], label, wanted)
    if colors == 1:
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    if colors < array.shape[2]:
        from PIL import Image as PILImage

        alpha = PILImage.fromarray(np.ascontiguousarray(opacity(array[..., colors], label)))
        pixels = np.asarray(over_white(PILImage.fromarray(np.ascontiguousarray(pixels)), alpha))
    return np.array(pixels, order="C")
