"""Recognise files by their first bytes, so that files that are not photos get a clear error."""

from __future__ import annotations

from typing import IO

from patchprism.errors import PhotoError
from patchprism.photos.paths import HEIF_ADVICE


def check_jpeg_2000(file: IO[bytes], label: str) -> None:
    """Refuse colours with more than 8 bits: Pillow's rounding to 8 bits overflows, and white becomes black.

    Raises
    ------
    PhotoError
        If the colours have more than 8 bits per channel.
    """
    place = file.tell()
    file.seek(0)
    _, _, sizes = file.read(1 << 16).partition(b"\xff\x4f\xff\x51")
    file.seek(place)
    # The marker is followed by its length, capabilities and eight sizes, then by the number of channels and three
    # bytes per channel.
    channels = int.from_bytes(sizes[36:38], "big")
    bits = max(((each & 0x7F) + 1 for each in sizes[38 : 38 + 3 * channels : 3]), default=0)
    if channels > 2 and bits > 8:
        raise PhotoError(
            label,
            f"is a JPEG 2000 photo with {bits} bits per channel, which cannot be read; save it as PNG or "
            "TIFF",
        )


# Number of bytes at the start of a file that :func:`check_content` needs.
HEAD = 132
# Files that are not photos: position of the bytes that identify them, these bytes, and the error message.
_OTHERS = (
    (0, b"\xff\x0a", "not a readable image (JPEG XL: save it as JPEG or PNG)"),
    (4, b"JXL ", "not a readable image (JPEG XL: save it as JPEG or PNG)"),
    (0, b"8BPS", "is a Photoshop file by its content: save it as PNG or TIFF"),
    (
        0,
        b"\x93NUMPY",
        "is a NumPy array by its content: give it as an array from Python, or save it as PNG or TIFF",
    ),
    (128, b"DICM", "is a DICOM file by its content: save its picture as TIFF"),
    (0, b"v/1\x01", "is an OpenEXR picture by its content: save it as PNG or TIFF"),
    (0, b"\x1aE\xdf\xa3", "not a photo but a video"),
)


_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1", b"mif2"),
)


def check_content(head: bytes, label: str) -> None:
    """Refuse a file that is not a readable photo, naming what it is; load the HEIC reader if it is needed.

    Raises
    ------
    PhotoError
        If the file is not a photo, or the package that reads it is not installed.
    """
    from PIL import Image

    for at, sign, reason in _OTHERS:
        if head.startswith(sign, at):
            raise PhotoError(label, reason)
    if head[4:8] != b"ftyp":
        return
    # The brand of the file, and the brands that it is compatible with.
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}
    if brands.intersection(_AVIF_BRANDS):
        if "AVIF" not in Image.OPEN:
            raise PhotoError(label, "not a readable image (AVIF: install Pillow 11.3 or later)")
    elif brands.intersection(_HEIF_BRANDS):
        try:
            import pillow_heif
        except ImportError as error:
            raise PhotoError(
                label,
                f"not a readable image ({HEIF_ADVICE}, or save it as JPEG)",
            ) from error
        pillow_heif.register_heif_opener()
    elif head[8:12] == b"crx ":
        raise PhotoError(label, "not a readable image (a camera's raw file: save it as JPEG or TIFF)")
    else:
        raise PhotoError(label, "not a photo but a video")
