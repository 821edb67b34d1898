"""Uploaded photos: reads them, and makes their names safe."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from patchprism.errors import PhotoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

MAX_UPLOAD_BYTES = 32 << 20
MAX_UPLOAD_PIXELS = 60_000_000
MAX_NAME = 120


def read_upload(content: bytes, name: str, *, range: Sequence[float] | None = None) -> NDArray[np.uint8]:
    """Read an uploaded photo, unless it has too many pixels."""
    from PIL import Image

    from patchprism.photos.images import read_photo

    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
    except Exception:
        width = height = 0  # read_photo reports what is wrong
    if width * height > MAX_UPLOAD_PIXELS:
        raise PhotoError(name, f"has {width * height:,} pixels, more than {MAX_UPLOAD_PIXELS:,}")
    return read_photo(content, name=name, range=range)


def clean_name(name: str) -> str:
    """The last part of an uploaded file's name, without control characters.

    Examples
    --------
    >>> clean_name("../../etc/pass\\x00wd.jpg"), clean_name("C:\\\\dogs\\\\rex.png"), clean_name("..")
    ('passwd.jpg', 'rex.png', 'photo')
    """
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    last = "".join(letter for letter in last if letter.isprintable()).strip(" .-")
    if len(last) > MAX_NAME:
        stem, dot, suffix = last.rpartition(".")
        last = f"{(stem or last)[: MAX_NAME - 10]}{dot}{suffix[:8]}"
    return last or "photo"
