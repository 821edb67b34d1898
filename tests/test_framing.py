"""Framing against plain computations, and its guarantees for photos of any shape."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from patchprism.errors import OptionError, PhotoError
from patchprism.photos import resizing
from patchprism.photos.framing import DEFAULT_SIZE, Framing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def framing(preset="default", size=DEFAULT_SIZE, patch_size=14) -> Framing:
    return Framing.preset(preset, size=size, patch_size=patch_size, mean=MEAN, std=STD)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 7919 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain_seed(photo: np.ndarray, size: int) -> np.ndarray:
    """The seed's preprocessing, written from the design document, in one call over the whole photo."""
    image = torch.from_numpy(photo).permute(2, 0, 1).float() / 255
    edge = size + int(size * 0.01) * 10
    height, width = image.shape[1:]
    short, long = min(height, width), max(height, width)
    other = int(edge * long / short)
    resized = torch.nn.functional.interpolate(
        image[None], size=(edge, other) if height <= width else (other, edge), mode="bilinear", antialias=True
    )[0]
    top, left = int(round((resized.shape[1] - size) / 2.0)), int(round((resized.shape[2] - size) / 2.0))  # noqa: RUF046
    return ((resized[:, top : top + size, left : left + size] - 0.5) / 0.5).numpy()


@pytest.mark.parametrize(
    "shape", [(420, 630), (600, 600), (601, 333), (1, 1), (20, 300), (300, 20), (489, 488), (1200, 1000)]
)
@pytest.mark.parametrize("size", [448, 224, 14])
def test_seed_is_the_plain_computation(shape, size):
    photo = noise(*shape)
    framed = framing("seed", size).apply(photo)
    assert framed.pixels.shape == (3, size, size)
    assert framed.pixels.dtype == torch.float32
    assert framed.pixels.is_contiguous()
    assert framed.grid == (size // 14, size // 14) == framing("seed", size).grid(*shape)
    np.testing.assert_allclose(framed.pixels.numpy(), plain_seed(photo, size), atol=1e-5)


def test_seed_of_the_dogs_against_pillows_resize(shared_dogs):
    from patchprism.photos.images import read_photo

    photo = read_photo(shared_dogs / "3.jpg")
    # Pillow resizes bytes and rounds twice, but is an independent implementation.
    edge = 488
    resized = np.asarray(
        Image.fromarray(photo).resize((int(edge * 960 / 600), edge), Image.Resampling.BILINEAR)
    )
    top, left = 20, round((resized.shape[1] - 448) / 2.0)
    framed = framing("seed").apply(photo)
    difference = np.abs(framed.shown.astype(int) - resized[top : top + 448, left : left + 448])
    assert difference.max() <= 2
    assert difference.mean() < 0.3


def test_default_against_pillows_resize():
    y, x = np.mgrid[:500, :700]
    photo = np.stack([127 + 120 * np.sin(x / 37), 127 + 120 * np.cos(y / 23), (x + y) / 5], -1).astype(
        np.uint8
    )
    framed = framing().apply(photo)
    # 448 / 500 * 700 = 627.2 = 44.8 patches, so 45: 630 wide, which makes it 450 high, one row off each end.
    assert framed.grid == (32, 45)
    assert framed.crop == pytest.approx((0, 500 / 450, 700, 500 - 500 / 450))
    resized = np.asarray(Image.fromarray(photo).resize((630, 450), Image.Resampling.BICUBIC))[1:449]
    difference = np.abs(framed.shown.astype(int) - resized)
    assert difference.max() <= 2
    expected = (framed.shown / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(
        framed.pixels.permute(1, 2, 0).numpy(), expected, atol=0.5 / 255 / 0.224 + 1e-5
    )


@pytest.mark.parametrize("preset", ["seed", "default"])
@pytest.mark.parametrize("shape", [(2000, 900), (1080, 1920), (300, 400), (10, 12)])
def test_resizing_is_torchs_antialiased_interpolation(preset, shape):
    photo = noise(*shape)
    framed = framing(preset).apply(photo)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    mode = {"seed": "bilinear", "default": "bicubic"}[preset]
    plan = framing(preset)._plan(*shape, "photo")
    whole = torch.nn.functional.interpolate(image, size=(plan.height, plan.width), mode=mode, antialias=True)[
        0
    ].clamp(0, 1)
    rows, columns = framed.pixels.shape[1:]
    mean, std = ((0.5,) * 3, (0.5,) * 3) if preset == "seed" else (MEAN, STD)
    expected = (
        whole[:, plan.top : plan.top + rows, plan.left : plan.left + columns]
        - torch.tensor(mean)[:, None, None]
    ) / torch.tensor(std)[:, None, None]
    assert float((framed.pixels - expected).abs().max()) < 1e-5


def test_a_small_result_does_not_take_the_whole_photo_as_floats(monkeypatch):
    photo, small = noise(300, 400), framing(size=14)
    expected = small.apply(photo).pixels
    product, converted = torch.mm, []

    def mm(weights, values, **options):
        converted.append(values.numel())
        return product(weights, values, **options)

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(resizing, "_BAND_NUMBERS", 10_000)
    torch.testing.assert_close(small.apply(photo).pixels, expected, rtol=0, atol=1e-5)
    assert 0 < max(converted) <= 10_000


@pytest.mark.parametrize("shape", [(448, 448), (448, 784), (1, 1)])
def test_photos_of_the_right_size_give_the_same_as_resized_ones(shape):
    """The shortcut for photos that already have the right size is exact."""
    photo = noise(*shape)
    framed = Framing.preset(
        "default", size=shape[0], patch_size=shape[0] // 32 or 1, mean=MEAN, std=STD
    ).apply(photo)
    image = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    whole = torch.nn.functional.interpolate(image, size=shape, mode="bicubic", antialias=True)[0].clamp(0, 1)
    expected = (whole - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    assert torch.equal(framed.pixels, expected)
    assert framed.pixels.is_contiguous()
    np.testing.assert_array_equal(framed.shown, photo)


shapes = st.tuples(st.integers(1, 9000), st.integers(1, 9000)).filter(lambda s: max(s) <= 16 * min(s))


@given(shape=shapes, size=st.integers(1, 1600), patch=st.sampled_from([1, 8, 14, 16]))
def test_default_cuts_less_than_half_a_patch(shape, size, patch):
    framing_ = framing("default", size, patch)
    plan = framing_._plan(*shape, "photo")
    rows, columns = framing_.grid(*shape)
    shorter = max(1, int(size / patch + 0.5))
    assert min(rows, columns) == shorter
    # Each side is the nearest multiple of the patch size, so it is within half a patch of the exact length.
    exact = shorter * max(shape) / min(shape)
    assert abs(max(rows, columns) - exact) <= 0.5 + 1e-9
    assert (rows <= columns) if shape[0] <= shape[1] else (rows >= columns)
    assert 0 <= plan.height - rows * patch < patch / 2
    assert 0 <= plan.width - columns * patch < patch / 2
    # Both sides have the same scale, except for rounding to whole pixels.
    scale = max(rows * patch / shape[0], columns * patch / shape[1])
    assert abs(plan.height - shape[0] * scale) <= 1
    assert abs(plan.width - shape[1] * scale) <= 1


@given(shape=st.tuples(st.integers(1, 200_000), st.integers(1, 200_000)), short=st.integers(1, 64))
def test_default_never_has_more_patches_than_sixteen_to_one(shape, short):
    rows, columns = framing("default", short * 14).grid(*shape)
    assert 1 <= rows * columns <= 16 * short * short
    assert framing("default", short * 14).grid(*shape[::-1]) == (columns, rows)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [
        ((1, 1), (32, 32)),
        ((1, 7), (32, 224)),
        ((3000, 4000), (32, 43)),
        ((4000, 3000), (43, 32)),
        ((10, 160), (32, 512)),
        ((10, 10000), (4, 4000)),
        ((10000, 10), (4000, 4)),
        ((16384, 1), (16384, 1)),
        ((100_000, 1), (16384, 1)),
    ],
)
def test_default_grids(shape, grid):
    assert framing().grid(*shape) == grid


@pytest.mark.parametrize("shape", [(1, 1), (10, 10000), (10000, 10), (30000, 1), (448, 448), (3, 5)])
def test_default_applies_to_any_shape(shape):
    photo = np.full((*shape, 3), (255, 128, 0), dtype=np.uint8)
    framed = framing().apply(photo)
    rows, columns = framed.grid
    assert framed.pixels.shape == (3, rows * 14, columns * 14)
    assert framed.grid == framing().grid(*shape)
    assert np.abs(framed.shown.astype(int) - photo[0, 0]).max() == 0
    left, top, right, bottom = framed.crop
    assert 0 <= left < right <= shape[1] + 1e-6
    assert 0 <= top < bottom <= shape[0] + 1e-6
    assert (right - left) * (bottom - top) >= 0.9 * shape[0] * shape[1]


@pytest.mark.parametrize("preset", ["default", "seed"])
def test_crop_is_the_position_of_the_pixels(preset):
    # On a ramp from edge to edge, a pixel's value is its position.
    height, width = 900, 1400
    x = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    y = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    framed = framing(preset).apply(np.stack([x, y, x], -1).round().astype(np.uint8))
    left, top, right, bottom = framed.crop
    rows, columns = framed.shown.shape[:2]
    at_x = left + (np.arange(columns) + 0.5) * (right - left) / columns
    at_y = top + (np.arange(rows) + 0.5) * (bottom - top) / rows
    inner = slice(5, -5)
    assert np.abs(framed.shown[rows // 2, :, 0] - (at_x - 0.5) * 255 / (width - 1))[inner].max() < 1.01
    assert np.abs(framed.shown[:, columns // 2, 1] - (at_y - 0.5) * 255 / (height - 1))[inner].max() < 1.01


def test_bicubic_stays_in_range():
    photo = np.zeros((30, 30, 3), np.uint8)
    photo[:, 15:] = 255
    pixels = framing().apply(photo).pixels
    unit = pixels * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    assert unit.min() >= -1e-6
    assert unit.max() <= 1 + 1e-6


def test_read_only_photos_and_views():
    photo = noise(40, 60)
    expected = framing().apply(photo).pixels
    locked = photo.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(framing().apply(locked).pixels, expected)
    assert torch.equal(framing().apply(np.ascontiguousarray(photo[:, ::-1])[:, ::-1]).pixels, expected)


def test_the_number_of_torchs_threads_changes_nothing():
    photo = noise(1000, 1300)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = framing().apply(photo).pixels
        torch.set_num_threads(4)
        assert torch.equal(framing().apply(photo).pixels, one)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(10, 10000), (10000, 10), (1, 100_000)])
def test_seed_refuses_photos_that_would_become_too_large(shape):
    with pytest.raises(PhotoError, match=r"strip.png: .*resized to .*default preset"):
        framing("seed").apply(np.zeros((*shape, 3), np.uint8), name="strip.png")


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1]],
    ],
)
def test_arrays_that_cannot_be_framed(photo):
    with pytest.raises(PhotoError, match="x: "):
        framing().apply(photo, name="x")


# -- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["default", "seed"])
def test_round_trip_through_json(preset):
    original = framing(preset)
    again = Framing.from_dict(json.loads(json.dumps(original.to_dict())))
    assert again == original
    assert hash(again) == hash(original)
    assert framing("default") != framing("seed") != framing("seed", 224)


def test_seed_has_its_own_normalisation():
    assert framing("seed").mean == framing("seed").std == (0.5, 0.5, 0.5)
    assert framing("default").mean == MEAN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 450, "preset": "seed"},
            "multiple of the patch size 14 .* got 450: nearest are 448 and 462",
        ),
        ({"size": 9, "preset": "seed"}, "got 9: nearest is 14"),
        ({"size": 0}, "size must be a whole number from 1 to 13377, got 0"),
        ({"size": -14}, "got -14"),
        ({"size": 448.0}, "got 448.0"),
        ({"size": True}, "got True"),
        ({"patch_size": 0}, "patch_size must be"),
        ({"preset": "sead"}, "preset must be one of default, seed, got 'sead'"),
        ({"mean": (0.5, 0.5)}, "mean must be three numbers"),
        ({"mean": "abc"}, "mean must be three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean must be three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be three positive numbers"),
    ],
)
def test_options_that_are_not_allowed(options, message):
    given_options = {"preset": "default", "size": 448, "patch_size": 14, "mean": MEAN, "std": STD} | options
    with pytest.raises(OptionError, match=message):
        Framing.preset(given_options.pop("preset"), **given_options)


@pytest.mark.parametrize(
    "change", [{"crop": "top"}, {"interpolation": "nearest"}, {"extra": 1}, {"size": None}, {"std": 3}]
)
def test_dictionaries_that_are_not_a_framing(change):
    with pytest.raises(OptionError):
        Framing.from_dict(framing().to_dict() | change)
    with pytest.raises(OptionError):
        Framing.from_dict({})


def test_sizes_off_the_patch_are_rounded_in_the_default_preset():
    assert framing("default", 450).grid(100, 100) == (32, 32)
    assert framing("default", 455).grid(100, 100) == (33, 33)
    assert framing("default", 3).grid(100, 100) == (1, 1)
