"""Photo files whose pixels are easily misread, and folders with files that are left out."""

from __future__ import annotations

import io
import json
import struct
import threading
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms
from roads import extract_features, fit_prism, render_photos
from toys import Toy

from patchprism import read_photo, visualize
from patchprism.errors import OptionError, PhotoError
from patchprism.explorer.build import _command
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.photos.images import alpha_of
from patchprism.photos.isolated import IsolatedReader
from patchprism.photos.paths import find_photos
from patchprism.photos.sources import SourceReader, read_source
from patchprism.support import reading

GREY = (np.add.outer(np.arange(48), np.arange(64)) * 2.2).astype(np.uint8)
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=-1)
GREY3 = np.repeat(GREY[..., None], 3, axis=-1)

KINDS = {
    "uint8": lambda values: values,
    "uint16": lambda values: values.astype(np.uint16) * np.uint16(257),
    "float16": lambda values: (values / 255).astype(np.float16),
    "float32": lambda values: (values / 255).astype(np.float32),
    "float64": lambda values: values / 255,
}


def heard(source, **options):
    with reading.reading() as listening:
        photo = read_photo(source, **options)
    return photo, listening.notes


def assert_near(photo, expected, most=1):
    assert photo.shape == expected.shape
    assert np.abs(photo.astype(int) - np.asarray(expected).astype(int)).max() <= most


# ---------------------------------------------------------------- TIFF


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", KINDS)
def test_tiffs_of_all_layouts(tmp_path, kind, planar, compression, tile, byteorder):
    path = tmp_path / "a.tif"
    values = KINDS[kind](RGB)
    values = np.ascontiguousarray(np.moveaxis(values, -1, 0)) if planar == "separate" else values
    tifffile.imwrite(
        path,
        values,
        photometric="rgb",
        planarconfig=planar,
        compression=compression,
        tile=tile,
        byteorder=byteorder,
    )
    assert_near(read_photo(path), RGB)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_tiffs_of_both_directions(tmp_path, kind, photometric):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, KINDS[kind](GREY if photometric == "minisblack" else 255 - GREY), photometric=photometric
    )
    assert_near(read_photo(path), GREY3)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("premultiplied", [False, True])
def test_alpha_of_tiffs(tmp_path, kind, premultiplied, planar):
    alpha = np.full(GREY.shape, 128, np.uint8)
    colors = np.rint(RGB * (128 / 255)).astype(np.uint8) if premultiplied else RGB
    values = KINDS[kind](np.dstack([colors, alpha]))
    values = np.ascontiguousarray(np.moveaxis(values, -1, 0)) if planar == "separate" else values
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        values,
        photometric="rgb",
        planarconfig=planar,
        extrasamples=["assocalpha" if premultiplied else "unassalpha"],
    )
    assert_near(read_photo(path), np.rint(RGB * (128 / 255) + 255 * (127 / 255)), 2)


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "int64"])
def test_signed_and_wide_numbers_are_named_or_mapped(tmp_path, kind):
    low, high = (-120, 100) if kind == "int8" else (0, 4_000_000_000) if kind == "uint32" else (-1000, 3000)
    values = (low + GREY / GREY.max() * (high - low)).astype(kind)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values)
    with pytest.raises(PhotoError, match=rf"{kind} values from {values.min()} to {values.max()}.*range="):
        read_photo(path)
    expected = np.rint((values.astype(float) - low) / (high - low) * 255)
    assert_near(read_photo(path, range=(low, high)), np.repeat(expected[..., None], 3, -1))
    assert_near(read_photo(values, range=(low, high)), np.repeat(expected[..., None], 3, -1))


def test_floats_beyond_the_unit_interval_need_a_range(tmp_path):
    hounsfield = (GREY * 8.0 - 1000).astype(np.float32)
    path = tmp_path / "ct.tif"
    tifffile.imwrite(path, hounsfield)
    with pytest.raises(PhotoError, match=r"\[0, 1\], got values from -1000 to .*range="):
        read_photo(path)
    expected = np.clip((hounsfield + 160) / 400, 0, 1) * 255
    assert_near(read_photo(path, range=(-160, 240)), np.repeat(expected[..., None], 3, -1))
    hounsfield[0, 0] = np.nan
    with pytest.raises(PhotoError, match="values that are not finite"):
        read_photo(hounsfield, range=(-160, 240))


def test_orientation_of_tiffs_that_pillow_does_not_read(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path,
        np.ascontiguousarray(np.moveaxis(KINDS["uint16"](RGB), -1, 0)),
        photometric="rgb",
        planarconfig="separate",
        extratags=[(274, "H", 1, 6, True)],
    )
    assert_near(read_photo(path), np.rot90(RGB, -1))


def test_profile_of_tiffs_that_pillow_does_not_read(tmp_path):
    profile = ImageCms.ImageCmsProfile(
        ImageCms.createProfile("XYZ")
    )  # not for this kind of image, so it is ignored
    path = tmp_path / "a.tif"
    options = {"photometric": "rgb", "planarconfig": "separate", "iccprofile": profile.tobytes()}
    tifffile.imwrite(path, np.ascontiguousarray(np.moveaxis(KINDS["uint16"](RGB), -1, 0)), **options)
    assert_near(read_photo(path), RGB)


def test_lab_tiff(tmp_path):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    grey = Image.fromarray(GREY3)  # in the middle of Lab, where 8 bits are enough
    ImageCms.applyTransform(grey, ImageCms.buildTransform(srgb, lab, "RGB", "LAB")).save(tmp_path / "lab.tif")
    assert_near(read_photo(tmp_path / "lab.tif"), GREY3, 3)


def test_pages_channels_and_depth_are_reported(tmp_path):
    for name, options in {
        "pages.tif": {"photometric": "minisblack"},
        "imagej.tif": {"imagej": True, "metadata": {"axes": "CYX"}},
        "ome.ome.tif": {"ome": True, "metadata": {"axes": "CYX"}},
    }.items():
        tifffile.imwrite(tmp_path / name, np.stack([GREY, GREY // 2, GREY // 3]), **options)
        photo, notes = heard(tmp_path / name)
        assert_near(photo, GREY3)
        assert len(notes) == 1
        assert "only the first of 3 pages was read" in notes[0]
        assert "channels" in notes[0]


def test_a_preview_is_not_the_photo(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(RGB[::8, ::8], photometric="rgb", subfiletype=1)
        tiff.write(RGB, photometric="rgb")
    photo, notes = heard(path)
    assert_near(photo, RGB)
    assert not notes
    tifffile.imwrite(
        path, RGB[::8, ::8], photometric="rgb", subfiletype=1
    )  # like the first image of a camera's raw file
    assert "only a preview was read" in heard(path)[1][0]


def test_channels_that_are_not_colours(tmp_path):
    path = tmp_path / "a.tif"
    for planar, count in (("contig", 8), ("separate", 3), ("contig", 2)):
        values = np.zeros((count, 48, 64) if planar == "separate" else (48, 64, count), np.uint16)
        tifffile.imwrite(path, values, photometric="minisblack", planarconfig=planar)
        with pytest.raises(PhotoError, match=f"has {count} channels and does not say which are red"):
            read_photo(path)
    tifffile.imwrite(path, np.dstack([RGB, GREY, GREY]), photometric="rgb", extrasamples=["unspecified"] * 2)
    photo, notes = heard(path)
    assert_near(photo, RGB)
    assert notes == ["only red, green and blue of 5 channels were read"]


def test_a_tiff_that_ends_early_is_not_black_below(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, KINDS["uint16"](RGB), photometric="rgb")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PhotoError, match=r"cut short|damaged"):
        read_photo(path)


def test_planes_of_cmyk(tmp_path):
    path = tmp_path / "a.tif"
    inks = np.asarray(Image.fromarray(RGB).convert("CMYK"))
    for values in (inks, KINDS["uint16"](inks)):
        tifffile.imwrite(path, values, photometric="separated")
        assert_near(read_photo(path), RGB)
        planes = np.ascontiguousarray(np.moveaxis(values, -1, 0))
        tifffile.imwrite(path, planes, photometric="separated", planarconfig="separate")
        if values.dtype == np.uint8:
            assert_near(read_photo(path), RGB)
        else:
            with pytest.raises(
                PhotoError, match=r"is a kind of TIFF that cannot be read .SEPARATED, 4 channels of 16 bits"
            ):
                read_photo(path)


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_a_strip_that_unpacks_to_more_than_its_pixels(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((2000, 2000, 3), np.uint16), photometric="rgb", compression=compression)
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(20)
        tiff.pages[0].tags["RowsPerStrip"].overwrite(20)
    with pytest.raises(PhotoError), reading.reading():
        read_photo(path, range=(0, 1))


def test_a_dark_file_where_zero_is_white(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY.astype(np.uint16), photometric="miniswhite")
    _, notes = heard(path)
    assert "nearly white for the network" in notes[0]


# ---------------------------------------------------------------- PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values, color, *chunks):
    """The bytes of a handmade PNG file: colour type 0, 2, 4 or 6 with 8 or 16 bits."""
    depth = 8 * values.dtype.itemsize
    rows = values.astype(values.dtype.newbyteorder(">"))
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


WIDE, WIDE_GREY = KINDS["uint16"](RGB), KINDS["uint16"](GREY)
ALPHA = np.full(GREY.shape, 0x8080, np.uint16)


@pytest.mark.parametrize(
    ("values", "color", "expected"),
    [
        (WIDE_GREY, 0, GREY3),
        (WIDE, 2, RGB),
        (np.dstack([WIDE_GREY, ALPHA]), 4, np.rint(GREY3 * (128 / 255) + 127)),
        (np.dstack([WIDE, ALPHA]), 6, np.rint(RGB * (128 / 255) + 127)),
    ],
)
def test_all_bits_of_sixteen(values, color, expected):
    assert_near(read_photo(png(values, color)), expected)
    colors = values.shape[2] - (color >= 4) if values.ndim == 3 else 1
    low = values.copy().reshape(*GREY.shape, -1)
    low[..., :colors] >>= 4  # 12 bits in 16; alpha is not a colour
    content = png(low.reshape(values.shape), color)
    assert_near(read_photo(content, range=(0, 4095)), expected)
    _, notes = heard(content)
    assert len(notes) == 1
    assert f"the largest value is {low[..., :colors].max():,} of 65,535" in notes[0]
    assert "range=(0, 4095)" in notes[0]
    assert not heard(png(values, color))[1]


def test_a_transparent_colour_of_sixteen_bits():
    values = WIDE.copy()
    values[:5] = 1000, 2000, 3000
    values[5:10] = 1000, 2000, 3001  # the same upper bytes
    expected = (values // 257).astype(np.uint8)
    expected[:5] = 255
    photo = read_photo(png(values, 2, chunk(b"tRNS", struct.pack(">HHH", 1000, 2000, 3000))))
    assert_near(photo, expected)


@pytest.mark.parametrize(("values", "color"), [(RGB, 2), (WIDE, 2), (WIDE_GREY, 0), (GREY, 0)])
def test_gamma_of_a_png(values, color):
    linear = RGB if color == 2 else GREY3
    unit = linear / 255
    encoded = np.where(unit <= 0.0031308, unit * 12.92, 1.055 * unit ** (1 / 2.4) - 0.055) * 255
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert_near(read_photo(png(values, color, gamma)), np.rint(encoded))
    assert_near(read_photo(png(values, color, chunk(b"gAMA", struct.pack(">I", 45455)))), linear)
    assert_near(read_photo(png(values, color, chunk(b"sRGB", b"\0"), gamma)), linear)


# ---------------------------------------------------------------- other files


def test_frames_that_are_not_read_are_reported(tmp_path):
    frames = [Image.fromarray(np.roll(RGB, i, 0)) for i in range(6)]
    for name, options in {
        "a.webp": {"lossless": True},
        "a.png": {},
        "a.apng": {"format": "PNG"},
        "a.gif": {},
        "a.tif": {},
        "a.mpo": {},
    }.items():
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        photo, notes = heard(tmp_path / name)
        assert photo.shape == RGB.shape
        assert len(notes) == 1
        assert notes[0].startswith("only the first of 6 ")
        frames[0].save(tmp_path / f"one-{name}", format=options.get("format"))
        assert not heard(tmp_path / f"one-{name}")[1]


def test_jpeg_2000_of_wide_colours_is_not_read_wrongly():
    sizes = struct.pack(">HH8I", 47, 0, 9, 9, 0, 0, 9, 9, 0, 0) + struct.pack(">H", 3) + bytes([15, 1, 1] * 3)
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG2000", irreversible=False)
    assert_near(read_photo(buffer.getvalue()), RGB)
    before, marker, rest = buffer.getvalue().partition(b"\xff\x4f\xff\x51")
    with pytest.raises(PhotoError, match="16 bits per channel, which cannot be read"):
        read_photo(before + marker + rest[:38] + bytes([15, 1, 1] * 3) + rest[47:])
    assert len(sizes) == 47


HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(200)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (HEIC, r"not a readable image \(HEIC: pip install 'patchprism\[heif\]'"),
        (b"\0\0\0\x18ftypisom\0\0\2\0isommp42" + bytes(200), "not a photo but a video"),
        (b"\x1aE\xdf\xa3" + bytes(200), "not a photo but a video"),
        (b"\xff\x0a" + bytes(200), "JPEG XL"),
        (b"8BPS" + bytes(200), "Photoshop"),
        (b"\x93NUMPY" + bytes(200), "NumPy array by its content"),
        (bytes(128) + b"DICM" + bytes(200), "DICOM"),
    ],
)
def test_other_files_are_named_by_their_content(tmp_path, content, reason):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        pass
    else:
        if content is HEIC:
            reason = "damaged|not a readable image"
    with pytest.raises(PhotoError, match=reason):
        read_photo(path)


def test_alpha_of_heic_is_read_before_any_photo(tmp_path, monkeypatch):
    """Pillow reads HEIC only after pillow-heif is registered, which each reader must do."""
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    pixels = np.full((32, 48, 4), 255, np.uint8)
    pixels[:, :24, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=-1)
    monkeypatch.delitem(Image.OPEN, "HEIF")
    assert np.array_equal(alpha_of(tmp_path / "a.heic", "a.heic"), pixels[..., 3])


def test_files_that_folders_leave_out_are_reported(tmp_path):
    for name in ("a.png", "b.jfif", "c.jpe", "d.jp2", "e.avif", "deep/f.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kind = {"jfif": "JPEG", "jpe": "JPEG"}.get(name[-4:].strip("."))
        Image.fromarray(RGB).save(tmp_path / name, format=kind)
    for name in (
        "x.npy",
        "y.heic",
        "deep/z.npy",
        "raw.CR2",
        "nothing",
        ".hidden.heic",
        "labels.txt",
        "r.json",
    ):
        (tmp_path / name).write_bytes(b"x")
    with reading.reading() as listening:
        found = find_photos([tmp_path])
    assert {path.name for path in found} >= {"a.png", "b.jfif", "c.jpe", "d.jp2", "e.avif", "f.PNG"}
    (note,) = listening.notes
    for part in ("2 .npy", "1 .cr2", "1 without a suffix", "left out of"):
        assert part in note
    assert ".txt" not in note
    assert ".json" not in note
    assert ("1 .heic" in note) == (len(found) == 6)


# ---------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    "given", [(1, 1), (2, 1), (0,), (0, 1, 2), "01", (0, np.nan), (0, np.inf), 5, ("a", "b")]
)
def test_wrong_ranges(given):
    with pytest.raises(OptionError, match="range must be two numbers"):
        read_photo(GREY, range=given)


def test_eight_bits_stay_as_they_are():
    photo, notes = heard(RGB, range=(0, 4095))
    assert_near(photo, RGB, 0)
    assert notes == ["has 8 bits per channel, so range does not apply"]


# ---------------------------------------------------------------- every kind of job

SETTINGS = Settings(model="toy", size=48, batch_size=4)


def test_a_frame_that_the_user_chose(tmp_path):
    frames = [Image.fromarray(np.roll(RGB, i, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(tmp_path / "a.webp") as image:
        image.seek(2)
        photo, notes = heard(image)
    assert_near(photo, np.roll(RGB, 2, 0))
    assert notes == ["only one of 3 frames is read"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        values = rng.integers(0, 4096, (48, 64, 3), dtype=np.uint16)
        (folder / f"p{i}.png").write_bytes(png(values, 2))
    (folder / "x.npy").write_bytes(b"x")
    return folder


def test_notes_and_ranges_in_every_job(folder, tmp_path):
    names = [str(folder / f"p{i}.png") for i in range(4)]
    view = visualize([folder], size=48, backbone=Toy())
    report = view.report()
    assert ["1 .npy" in note for note in report["notes"]] == [True]
    assert all("of 65,535, so the photo is nearly black" in photo["notes"][0] for photo in report["photos"])
    assert [note.name for note in view.all_notes()] == ["", *names]

    wide = visualize(names, size=48, backbone=Toy(), range=(0, 4095))
    assert not wide.all_notes()
    assert wide.origin["range"] == [0.0, 4095.0]
    assert not np.allclose(wide.features[0], view.features[0])
    direct = read_photo(names[0], range=(0, 4095))
    np.testing.assert_array_equal(wide.photos.read(0), direct)
    assert ["--range=0,4095"] in _command(wide, None)["options"]
    # A prism sets the range of its photos.
    again = visualize(names, size=48, backbone=Toy(), prism=wide.prism)
    np.testing.assert_array_equal(again.features[0], wide.features[0])

    with open_engine() as engine:
        run = {"engine": engine, "backbone": Toy()}
        done = render_photos([folder], tmp_path / "out", settings=SETTINGS, **run)
        written = json.loads((tmp_path / "out" / "report.json").read_text())
        assert written["notes"] == report["notes"]
        assert [p["notes"] for p in written["photos"]] == [p["notes"] for p in report["photos"]]
        assert done.notes == view.all_notes()
        assert fit_prism([folder], tmp_path / "a.prism", settings=SETTINGS, **run).notes == done.notes
        assert extract_features([folder], tmp_path / "a.zarr", settings=SETTINGS, **run).notes == done.notes
        assert StoredFeatures(tmp_path / "a.zarr").notes == done.notes
        assert (
            render_photos([tmp_path / "a.zarr"], tmp_path / "b", settings=Settings(), engine=engine).notes
            == done.notes
        )

        settings = Settings(model="toy", size=48, batch_size=4, range=(0, 4095))
        wider = extract_features(names, tmp_path / "b.zarr", settings=settings, tokens="float32", **run)
        assert not wider.notes
    store = StoredFeatures(tmp_path / "b.zarr")
    np.testing.assert_allclose(store[0], wide.features[0], rtol=1e-4, atol=1e-4)
    shown = visualize(tmp_path / "b.zarr")
    np.testing.assert_array_equal(shown.photos.read(0), direct)
    with pytest.raises(OptionError, match="range is fixed by the feature store"):
        visualize(tmp_path / "b.zarr", range=(0, 9))


def test_notes_are_sent_from_other_processes(folder):
    name = str(folder / "p0.png")
    with IsolatedReader(read_source) as reader, reading.reading() as listening:
        reader(name)
    assert len(listening.notes) == 1
    with IsolatedReader(SourceReader((0, 4095)).__call__) as reader, reading.reading() as listening:
        np.testing.assert_array_equal(reader(name), read_photo(name, range=(0, 4095)))
    assert not listening.notes


# ---------------------------------------------------------------- memory


def test_room_admits_photos_that_fit_together(monkeypatch):
    monkeypatch.setattr(reading, "ALWAYS", 0)
    room = reading.Room(lambda: 100)
    room.take(40)
    with pytest.raises(MemoryError, match="GB are free"):
        reading.Room(lambda: 100).take(101)
    came = []

    def second():
        room.take(40)
        came.append(2)

    thread = threading.Thread(target=second)
    thread.start()
    thread.join(0.2)
    assert not came  # 80 are more than half of 100
    room.give_back(40)
    thread.join(30)
    assert came == [2]
    room.take(1000, wait=False)  # a thread that holds memory must not wait for others that do


def test_a_photo_beyond_the_memory_is_one_line(folder, monkeypatch):
    monkeypatch.setattr(reading, "ALWAYS", 0)
    name = str(folder / "p0.png")
    with IsolatedReader(read_source) as reader:
        for read in (reader, read_source):
            with reading.reading() as listening:
                listening.room = reading.Room(lambda: 1000)
                with pytest.raises(PhotoError, match=r"p0\.png: needs 0\.0 GB of memory to be read"):
                    read(name)
        np.testing.assert_array_equal(reader(name), read_source(name))  # and the process can be used again
