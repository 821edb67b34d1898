"""The reader of photos: every format, mode and orientation, and files that are not photos."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageCms

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.images import read_photo
from patchprism.photos.plans import MAX_PIXELS

if TYPE_CHECKING:
    from pathlib import Path


def encode(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


# -- formats -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "options", "tolerance"),
    [
        ("png", {}, 0),
        ("bmp", {}, 0),
        ("tiff", {}, 0),
        ("tif", {"compression": "tiff_lzw"}, 0),
        ("tif", {"compression": "tiff_adobe_deflate"}, 0),
        ("webp", {"lossless": True}, 0),
        ("webp", {"quality": 95}, 24),
        ("jpg", {"quality": 98, "subsampling": 0}, 4),
        ("jpeg", {"quality": 98, "subsampling": 0, "progressive": True}, 4),
    ],
)
def test_formats(tmp_path, photo, suffix, options, tolerance):
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(photo).save(path, **options)
    read = read_photo(path)
    assert read.shape == photo.shape
    assert read.dtype == np.uint8
    assert read.flags["C_CONTIGUOUS"]
    assert read.flags["WRITEABLE"]
    assert np.abs(read.astype(int) - photo).max() <= tolerance


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_of_several_frames(format):
    frames = [Image.new("RGB", (8, 6), color) for color in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(read_photo(data), np.full((6, 8, 3), (255, 0, 0)))


def test_all_kinds_of_source_agree(tmp_path, photo):
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    data = path.read_bytes()
    at_its_end = io.BytesIO()
    at_its_end.write(data)
    with open(path, "rb") as file, subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as pipe:
        for source in (path, str(path), data, io.BytesIO(data), at_its_end, file, pipe.stdout, photo):
            np.testing.assert_array_equal(read_photo(source), photo)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_photo(image), photo)


# -- modes ---------------------------------------------------------------------------------------------------

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
ALPHA = np.tile(np.array([0, 64, 128, 255], dtype=np.uint8), (16, 4))
COLOR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)


def grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def over_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def palette_image(transparency: bool) -> Image.Image:
    image = Image.fromarray((GREY % 4).astype(np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255, 10, 20, 30])
    if transparency:
        image.info["transparency"] = 2
    return image


PALETTE = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [10, 20, 30]])[GREY % 4]
PALETTE_ON_WHITE = np.where((GREY % 4 == 2)[..., None], 255, PALETTE)
CMYK = np.stack([GREY, GREY[::-1], GREY.T, GREY // 2], axis=-1)
SIXTEEN = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)


@pytest.mark.parametrize(
    ("image", "format", "expected"),
    [
        pytest.param(Image.fromarray(GREY > 99), "PNG", grey_to_rgb((GREY > 99) * 255), id="1"),
        pytest.param(Image.fromarray(GREY > 99), "TIFF", grey_to_rgb((GREY > 99) * 255), id="1-tiff"),
        pytest.param(Image.fromarray(GREY), "PNG", grey_to_rgb(GREY), id="L"),
        pytest.param(Image.fromarray(GREY), "BMP", grey_to_rgb(GREY), id="L-bmp"),
        pytest.param(
            Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA))),
            "PNG",
            over_white(grey_to_rgb(GREY), ALPHA),
            id="LA",
        ),
        pytest.param(palette_image(False), "PNG", PALETTE, id="P"),
        pytest.param(palette_image(False), "GIF", PALETTE, id="P-gif"),
        pytest.param(palette_image(False), "BMP", PALETTE, id="P-bmp"),
        pytest.param(palette_image(True), "PNG", PALETTE_ON_WHITE, id="P-transparent"),
        pytest.param(palette_image(True), "GIF", PALETTE_ON_WHITE, id="P-transparent-gif"),
        pytest.param(Image.fromarray(COLOR), "PNG", COLOR, id="RGB"),
        pytest.param(Image.fromarray(np.dstack([COLOR, ALPHA])), "PNG", over_white(COLOR, ALPHA), id="RGBA"),
        pytest.param(
            Image.fromarray(np.dstack([COLOR, ALPHA])), "TIFF", over_white(COLOR, ALPHA), id="RGBA-tiff"
        ),
        # The formula without a profile: (1 - C)(1 - K).
        pytest.param(
            Image.frombytes("CMYK", (16, 16), CMYK.tobytes()),
            "TIFF",
            (255 - CMYK[..., :3].astype(float)) * (255 - CMYK[..., 3:].astype(float)) / 255,
            id="CMYK",
        ),
        pytest.param(Image.fromarray(SIXTEEN), "PNG", grey_to_rgb(GREY), id="I;16"),
        pytest.param(Image.fromarray(SIXTEEN), "TIFF", grey_to_rgb(GREY), id="I;16-tiff"),
        pytest.param(Image.fromarray(SIXTEEN.astype(np.int32)), "TIFF", grey_to_rgb(GREY), id="I"),
        pytest.param(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF", grey_to_rgb(GREY), id="F"),
    ],
)
def test_modes(image, format, expected):
    for read in (read_photo(encode(image, format)), read_photo(image)):
        assert read.shape == (16, 16, 3)
        assert np.abs(read - np.asarray(expected, dtype=float)).max() <= 1.0


def test_cmyk_jpegs_are_not_negatives():
    # Adobe's CMYK JPEGs are inverted, which a marker declares.
    smooth = np.dstack(
        [np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))] * 2 + [np.full((48, 64), 30, np.uint8)] * 2
    )
    image = Image.frombytes("CMYK", (64, 48), smooth.tobytes())
    expected = (255 - smooth[..., :3].astype(float)) * (255 - 30) / 255
    assert np.abs(read_photo(encode(image, "JPEG", quality=98, subsampling=0)) - expected).max() <= 6


def test_modes_of_images_in_memory():
    rgb = Image.fromarray(COLOR)
    np.testing.assert_allclose(read_photo(rgb.convert("YCbCr")).astype(int), COLOR, atol=3)
    with_alpha = Image.fromarray(np.dstack([COLOR, ALPHA]))
    np.testing.assert_allclose(
        read_photo(with_alpha.convert("RGBa")), np.asarray(over_white(COLOR, ALPHA)), atol=4
    )
    big_endian = Image.frombytes("I;16B", (16, 16), SIXTEEN.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_photo(big_endian), grey_to_rgb(GREY))


@pytest.mark.parametrize(
    ("image", "key", "clear", "rgb"),
    [
        pytest.param(
            Image.fromarray(COLOR), (53, 197, 83), (COLOR == (53, 197, 83)).all(-1), COLOR, id="RGB"
        ),
        pytest.param(Image.fromarray(GREY), 7, GREY == 7, grey_to_rgb(GREY), id="L"),
        pytest.param(Image.fromarray(SIXTEEN), 7 * 257, GREY == 7, grey_to_rgb(GREY), id="I;16"),
    ],
)
def test_transparency_of_one_color(image, key, clear, rgb):
    assert clear.sum() == 1
    expected = np.where(clear[..., None], 255, rgb)
    np.testing.assert_array_equal(read_photo(encode(image, "PNG", transparency=key)), expected)


def test_sixteen_bits_are_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(values / 257.0)
    np.testing.assert_array_equal(read_photo(values)[..., 0], expected)
    np.testing.assert_array_equal(read_photo(encode(Image.fromarray(values), "PNG"))[..., 2], expected)


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan, np.inf, 255.0])
def test_floats_out_of_range_are_named(value):
    array = np.full((4, 5), 0.5, dtype=np.float32)
    array[1, 2] = value
    for source in (array, encode(Image.fromarray(array), "TIFF")):
        with pytest.raises(PhotoError, match=r"mine: floats must lie in \[0, 1\]"):
            read_photo(source, name="mine")


def test_wide_integers_are_named():
    image = Image.fromarray(np.array([[0, 70000]], dtype=np.int32))
    with pytest.raises(PhotoError, match=r"int32 values from 0 to 70000.*range=\(LOW, HIGH\)"):
        read_photo(image)


# -- orientation ---------------------------------------------------------------------------------------------

# Transformations that make the stored pixels upright, from the table in the EXIF standard (row 0, column 0).
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.transpose(a, (1, 0, 2)),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(np.transpose(a, (1, 0, 2)), 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientations(photo, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(format, {})
    data = encode(Image.fromarray(photo), format, exif=exif, **options)
    expected = UPRIGHT[orientation](photo).astype(int)
    for read in (read_photo(data), read_photo(Image.open(io.BytesIO(data)))):
        assert read.shape == expected.shape
        assert read.flags["C_CONTIGUOUS"]
        assert np.abs(read - expected).max() <= (4 if format == "JPEG" else 0)


def test_reading_does_not_change_an_image(photo):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encode(Image.fromarray(photo), "PNG", exif=exif)))
    first = read_photo(image)
    np.testing.assert_array_equal(read_photo(image), first)
    assert image.size == (64, 48)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"])
def test_photos_with_broken_exif_are_read(photo, exif, recwarn):
    read = read_photo(encode(Image.fromarray(photo), "JPEG", quality=98, subsampling=0, exif=exif))
    assert np.abs(read.astype(int) - photo).max() <= 4
    assert not recwarn.list


# -- colour profiles -----------------------------------------------------------------------------------------

SRGB_PRIMARIES = ((0.4360, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))


def icc_profile(space: str, primaries=SRGB_PRIMARIES) -> bytes:
    """A minimal ICC 2 display profile with linear light, written from the specification."""

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in values))

    linear = b"curv" + bytes(8)
    desc = b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + bytes(78)
    tags = {b"desc": desc, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz((0.9642, 1.0, 0.8249))}
    if space == "RGB ":
        for letter, primary in zip("rgb", primaries, strict=True):
            tags[f"{letter}XYZ".encode()] = xyz(primary)
            tags[f"{letter}TRC".encode()] = linear
    else:
        tags[b"kTRC"] = linear
    table, body, offset = b"", b"", 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">2I", offset + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    size = offset + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"mntr", space.encode(), b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    low = linear <= 0.0031308
    return 255 * np.where(low, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def test_profile_of_linear_light_is_converted():
    data = encode(Image.fromarray(COLOR), "PNG", icc_profile=icc_profile("RGB "))
    assert np.abs(read_photo(data) - encode_srgb(COLOR / 255)).max() <= 2.5


def test_profile_with_other_primaries_is_converted():
    swapped = icc_profile("RGB ", SRGB_PRIMARIES[::-1])
    data = encode(Image.fromarray(COLOR), "JPEG", quality=100, subsampling=0, icc_profile=swapped)
    assert np.abs(read_photo(data) - encode_srgb(COLOR[..., ::-1] / 255)).mean() <= 2.5


def test_profile_of_grey_and_of_transparent_photos():
    grey = read_photo(encode(Image.fromarray(GREY), "PNG", icc_profile=icc_profile("GRAY")))
    assert np.abs(grey - encode_srgb(grey_to_rgb(GREY) / 255)).max() <= 2.5
    image = Image.fromarray(np.dstack([COLOR, ALPHA]))
    read = read_photo(encode(image, "PNG", icc_profile=icc_profile("RGB ")))
    assert np.abs(read - over_white(encode_srgb(COLOR / 255), ALPHA)).max() <= 3
    sixteen = read_photo(encode(Image.fromarray(SIXTEEN), "PNG", icc_profile=icc_profile("GRAY")))
    assert np.abs(sixteen - encode_srgb(grey_to_rgb(GREY) / 255)).max() <= 2.5


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), id="sRGB"),
        pytest.param(b"no profile at all", id="garbage"),
        pytest.param(icc_profile("RGB ")[:200], id="cut"),
        pytest.param(icc_profile("GRAY"), id="of another space"),
    ],
)
def test_profiles_that_change_nothing(profile):
    data = encode(Image.fromarray(COLOR), "PNG", icc_profile=profile)
    np.testing.assert_array_equal(read_photo(data), COLOR)


def test_a_wrong_profile_of_cmyk_falls_back_to_the_plain_formula():
    image = Image.frombytes("CMYK", (16, 16), CMYK.tobytes())
    plain = read_photo(encode(image, "TIFF"))
    np.testing.assert_array_equal(read_photo(encode(image, "TIFF", icc_profile=icc_profile("RGB "))), plain)


# -- arrays --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        pytest.param(COLOR, COLOR, id="uint8"),
        pytest.param(COLOR[:, ::-1], COLOR[:, ::-1], id="a view"),
        pytest.param(GREY, grey_to_rgb(GREY), id="grey"),
        pytest.param(GREY[:, :, None], grey_to_rgb(GREY), id="one channel"),
        pytest.param(np.dstack([COLOR, ALPHA]), over_white(COLOR, ALPHA), id="alpha"),
        pytest.param(SIXTEEN, grey_to_rgb(GREY), id="uint16"),
        pytest.param(SIXTEEN.astype(">u2"), grey_to_rgb(GREY), id="uint16 big-endian"),
        pytest.param(GREY > 99, grey_to_rgb((GREY > 99) * 255), id="bool"),
        pytest.param(COLOR.astype(np.float64) / 255, COLOR, id="float64"),
        pytest.param(COLOR.astype(np.float32) / 255, COLOR, id="float32"),
        pytest.param((COLOR.astype(np.float32) / 255).astype(np.float16), COLOR, id="float16"),
        pytest.param(np.full((1, 1, 3), 7, np.uint8), np.full((1, 1, 3), 7), id="one pixel"),
    ],
)
def test_arrays(array, expected):
    before = array.copy()
    read = read_photo(array)
    assert read.dtype == np.uint8
    assert read.flags["C_CONTIGUOUS"]
    assert np.abs(read - np.asarray(expected, dtype=float)).max() <= (1 if array.shape[2:] == (4,) else 0.2)
    read[:] = 1
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"must be \(H, W\).*got \(3, 8, 8\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "got"),
        (np.zeros(8, np.uint8), "got"),
        (np.zeros((0, 8, 3), np.uint8), "got"),
        (np.zeros((8, 8, 2), np.uint8), "got"),
        (np.zeros((8, 8, 3), np.int64), "int64"),
        (np.zeros((8, 8, 3), complex), "complex128"),
        (np.zeros((8, 8, 3), object), "object"),
        (np.broadcast_to(np.uint8(0), (MAX_PIXELS + 1, 1)), "178,956,97"),
    ],
)
def test_arrays_that_are_not_photos(array, reason):
    with pytest.raises(PhotoError, match=f"frame 3: .*{reason}"):
        read_photo(array, name="frame 3")


@pytest.mark.parametrize("source", [None, 3, [[1, 2]], {"a": 1}, io.StringIO("text")])
def test_sources_that_are_not_photos(source):
    with pytest.raises(OptionError, match="photo"):
        read_photo(source)


# -- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1), (10, 10000), (10000, 10), (3000, 4000)])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_sizes(tmp_path, shape, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.new("RGB", shape[::-1], (200, 100, 50)).save(path, quality=98)
    read = read_photo(path)
    assert read.shape == (*shape, 3)
    assert np.abs(read[-1, -1].astype(int) - (200, 100, 50)).max() <= 3


def png_of_size(width: int, height: int) -> bytes:
    """A PNG header without pixels, like a decompression bomb."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize(("width", "height"), [(MAX_PIXELS // 2 + 1, 2), (2**31 - 1, 2**31 - 1)])
def test_decompression_bombs(monkeypatch, recwarn, pillows_limit, width, height):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    with pytest.raises(PhotoError, match=r"bomb: .*178,956,970"):
        read_photo(png_of_size(width, height), name="bomb")
    assert not recwarn.list
    assert pillows_limit == Image.MAX_IMAGE_PIXELS


def test_large_photos_are_read_without_a_warning(monkeypatch, recwarn):
    # The same multiple of Pillow's warning limit as a photo of 150 megapixels, but with less memory.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_photo(encode(Image.new("RGB", (10, 15)), "PNG")).shape == (15, 10, 3)
    assert not recwarn.list


# -- bad files -----------------------------------------------------------------------------------------------


def make_folder(path: Path) -> None:
    path.mkdir()


def make_unreadable(path: Path) -> None:
    path.write_bytes(b"x")
    path.chmod(0)


BAD_FILES = {
    "folder.jpg": (make_folder, "is a folder, not a photo"),
    "missing.jpg": (lambda path: None, "no such file"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "is empty"),
    "text.jpg": (
        lambda path: path.write_text("To be, or not to be, that is the question"),
        "not a readable image",
    ),
    "short.jpg": (lambda path: path.write_bytes(b"\xff"), "not a readable image"),
    "html.png": (lambda path: path.write_text("<!DOCTYPE html><p>404</p>"), "not a readable image"),
    "drawing.eps": (lambda path: Image.new("RGB", (9, 9)).save(path, "EPS"), "not a readable image"),
    "paper.pdf": (lambda path: Image.new("RGB", (9, 9)).save(path, "PDF"), "not a readable image"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named(tmp_path, name):
    make, reason = BAD_FILES[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(PhotoError) as caught:
        read_photo(path)
    assert caught.value.name == str(path)
    assert caught.value.reason.startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root can read every file")
def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.jpg"
    make_unreadable(path)
    with pytest.raises(PhotoError, match="permission denied"):
        read_photo(path)


def test_permission_error_of_any_origin(monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(PhotoError, match=r"x\.jpg: permission denied"):
        read_photo("x.jpg")


@pytest.mark.parametrize(
    "error",
    [
        OSError("x"),
        SyntaxError("x"),
        ValueError("x"),
        struct.error("x"),
        EOFError("x"),
        MemoryError(),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_pillow_becomes_a_photo_error(monkeypatch, photo, error):
    def fail(*args, **kwargs):
        raise error

    data = encode(Image.fromarray(photo), "PNG")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(PhotoError, match=r"\Athis one: ") as caught:
        read_photo(data, name="this one")
    assert caught.value.__cause__ is error


ENCODED = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {"compression": "tiff_lzw"},
    "GIF": {},
    "BMP": {},
}


@pytest.mark.parametrize("format", ENCODED)
def test_truncated_files_are_named(photo, format):
    noisy = photo ^ np.random.default_rng(0).integers(0, 64, photo.shape, dtype=np.uint8)
    data = encode(Image.fromarray(noisy), format, **ENCODED[format])
    for share in (0.02, 0.1, 0.3, 0.5, 0.7):
        with pytest.raises(PhotoError, match=r"\Acut: "):
            read_photo(data[: int(len(data) * share)], name="cut")


@pytest.mark.parametrize("format", ENCODED)
def test_damaged_files_give_a_photo_or_a_photo_error(photo, format, recwarn):
    rng = np.random.default_rng(1)
    data = encode(Image.fromarray(photo), format, **ENCODED[format])
    outcomes = {"read": 0, "refused": 0}
    for _ in range(60):
        damaged = bytearray(data)
        for place in rng.integers(0, min(len(data), 400), 4):
            damaged[place] = rng.integers(256)
        try:
            assert read_photo(bytes(damaged)).ndim == 3
            outcomes["read"] += 1
        except PhotoError:
            outcomes["refused"] += 1
    assert outcomes["refused"]
    assert not recwarn.list


# -- threads and imports -------------------------------------------------------------------------------------


def test_threads_read_the_same_and_keep_the_warning_filters(tmp_path, photo):
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    before = list(warnings.filters)
    wrong: list[object] = []

    def work():
        for _ in range(20):
            try:
                if not np.array_equal(read_photo(path), photo):
                    wrong.append("differs")
                read_photo(b"no photo")
                wrong.append("no error")
            except PhotoError:
                pass
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert warnings.filters == before


def test_importing_loads_neither_torch_nor_pillow():
    code = (
        "import sys, patchprism.photos.images, patchprism.pictures.render;"
        "print([m for m in ('torch', 'PIL', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_seeds_dogs(shared_dogs):
    shapes = [read_photo(shared_dogs / f"{number}.jpg").shape for number in (1, 2, 3, 4)]
    assert shapes == [(420, 630, 3), (600, 600, 3), (600, 960, 3), (1049, 1078, 3)]
    # Its profile is sRGB, so the values equal those of the seed, which ignored profiles.
    with Image.open(shared_dogs / "4.jpg") as image:
        np.testing.assert_array_equal(read_photo(shared_dogs / "4.jpg"), np.asarray(image.convert("RGB")))
