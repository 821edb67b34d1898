"""From patches to pixels, compared with torch and with loops, and on composites with known masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from figures_drawn import figure_of
from PIL import Image

from patchprism.errors import OptionError
from patchprism.features.finer import COLOR, DISTANCE, doublings_for, finer
from patchprism.pictures.figures import Style, colors_panel, results_sheet
from patchprism.pictures.render import overlay, paint
from patchprism.pictures.upsample import overlay_smooth, paint_smooth, upsample, upsampled_strips


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_bilinear_equals_torchs(rng):
    values = rng.random((5, 7, 4)).astype(np.float32)
    ours = upsample(values, crop=(0, 0, 91, 45), size=(45, 91), method="bilinear")
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None], size=(45, 91), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize("crop", [(0, 0, 40, 30), (3.5, 1.25, 36.5, 28.75), (0.2, 0, 39.9, 30)])
def test_nearest_equals_paint(rng, crop):
    colors = rng.random((4, 6, 3)).astype(np.float32)
    ours = paint_smooth(colors, crop=crop, size=(30, 40), method="nearest")
    np.testing.assert_array_equal(ours, paint(colors, crop=crop, size=(30, 40)))


def doubled_in_loops(values, coarse, fine):
    """Joint bilateral upsampling as in the paper, cell by cell, over the 3 x 3 nearest cells."""
    h, w, channels = values.shape
    found = np.empty((2 * h, 2 * w, channels))
    for y in range(2 * h):
        for x in range(2 * w):
            total, weights = np.zeros(channels), 0.0
            for down in (-1, 0, 1):
                for across in (-1, 0, 1):
                    near = min(max(y // 2 + down, 0), h - 1), min(max(x // 2 + across, 0), w - 1)
                    far = (down - (y % 2 - 0.5) / 2) ** 2 + (across - (x % 2 - 0.5) / 2) ** 2
                    unlike = ((fine[y, x] - coarse[near]) ** 2).sum()
                    weight = np.exp(-far / (2 * DISTANCE**2) - unlike / (2 * COLOR**2))
                    total, weights = total + weight * values[near], weights + weight
            found[y, x] = total / weights
    return found


def test_finer_is_joint_bilateral_upsampling(rng, monkeypatch):
    photo = (120 + rng.integers(0, 40, (24, 20, 3))).astype(np.uint8)
    values = rng.normal(size=(6, 5, 7)).astype(np.float32)
    guides = [photo / 255.0]  # a cell of the finest grid is one pixel
    for _ in range(2):
        h, w = guides[-1].shape[:2]
        guides.append(guides[-1].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3)))
    expected = values
    for coarse, fine in ((guides[2], guides[1]), (guides[1], guides[0])):
        expected = doubled_in_loops(expected, coarse, fine)
    found = finer(values, photo, (0, 0, 20, 24), doublings=2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    monkeypatch.setattr("patchprism.features.finer._STRIP_VALUES", 1)
    np.testing.assert_array_equal(finer(values, photo, (0, 0, 20, 24), doublings=2), found)
    np.testing.assert_array_equal(finer(values, photo, (0, 0, 20, 24), doublings=0), values)


@pytest.mark.parametrize(
    ("crop", "expected"),
    [
        ((0, 0, 448, 448), 3),
        ((0, 0, 448, 100), 1),
        ((0, 0, 30, 448), 0),
        ((0, 0, 10, 10), 0),
        ((0, 0, 9e3, 9e3), 3),
    ],
)
def test_cells_are_not_smaller_than_pixels(crop, expected):
    assert doublings_for(crop, (32, 32)) == expected


@pytest.mark.parametrize("edge", [61, 64, 70])
def test_a_guided_border_lies_where_the_photo_has_it(edge):
    """Patches of 16 pixels with known shares of foreground; the border within a patch is found to a pixel."""
    photo = np.full((96, 128, 3), 40, np.uint8)
    photo[:, edge:] = 210
    truth = (np.arange(128) >= edge).astype(np.float32)
    patches = np.tile(truth.reshape(1, 8, 16).mean(axis=2)[..., None], (6, 1, 1))
    found = upsample(patches, crop=(0, 0, 128, 96), size=(96, 128), method="guided", photo=photo)[..., 0]
    assert (np.abs(np.argmax(found > 0.5, axis=1) - edge) <= 1).all()


def composite(rng, shape=(320, 320)):
    """A textured star on another texture, and its mask."""
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    mask = np.hypot(x, y) < 0.55 + 0.15 * np.cos(5 * np.arctan2(y, x))
    inside = np.array([190, 120, 60]) + rng.normal(0, 12, (*shape, 3))
    outside = np.array([60, 110, 80]) + rng.normal(0, 12, (*shape, 3))
    return np.where(mask[..., None], inside, outside).clip(0, 255).astype(np.uint8), mask


def test_guided_borders_are_sharper_than_bilinear_ones(rng):
    photo, mask = composite(rng)
    patches = mask.reshape(20, 16, 20, 16).mean(axis=(1, 3))[..., None].astype(np.float32)
    errors = {}
    for method in ("nearest", "bilinear", "guided"):
        found = upsample(patches, crop=(0, 0, 320, 320), size=(320, 320), method=method, photo=photo)[..., 0]
        errors[method] = np.abs(found - mask).mean()
    assert errors["guided"] < 0.5 * min(errors["bilinear"], errors["nearest"])


def test_strips_equal_the_whole(rng, monkeypatch):
    photo, _ = composite(rng, (90, 70))
    values = rng.random((5, 4, 3)).astype(np.float32)
    crop = (1.5, 2.0, 68.5, 89.0)
    whole = upsample(values, crop=crop, size=(90, 70), method="guided", photo=photo)
    monkeypatch.setattr("patchprism.pictures.upsample._STRIP_VALUES", 1)
    strips = list(upsampled_strips(values, crop=crop, size=(90, 70), method="guided", photo=photo))
    assert len(strips) == 87
    for rows, columns, strip in strips:
        np.testing.assert_allclose(whole[rows, columns], strip, atol=1e-6)
    assert not whole[0].any()
    assert not whole[:, 69].any()


def test_results_stay_within_the_patches_values(rng):
    photo, _ = composite(rng)
    values = rng.random((20, 20, 3)).astype(np.float32)
    found = upsample(values, crop=(0, 0, 320, 320), size=(320, 320), method="guided", photo=photo)
    assert found.min() >= values.min()
    assert found.max() <= values.max()
    constant = np.full((3, 3, 3), 0.4, np.float32)
    found = upsample(constant, crop=(0, 0, 320, 320), size=(320, 320), method="guided", photo=photo)
    np.testing.assert_allclose(found, 0.4, atol=1e-6)


def test_an_overlay_leaves_the_background_and_blends_the_rest(rng):
    photo = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    colors = rng.random((4, 6, 3)).astype(np.float32)
    foreground = np.zeros((4, 6), bool)
    foreground[1:3, 2:5] = True
    colors[~foreground] = 0
    crop = (0.0, 0.0, 60.0, 40.0)
    ours = overlay_smooth(photo, colors, foreground, 0.6, crop=crop, method="nearest")
    theirs = overlay(photo, paint(colors, crop=crop, size=(40, 60)), 0.6, foreground=foreground, crop=crop)
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    smooth = overlay_smooth(photo, colors, foreground, 0.6, crop=crop, method="guided")
    assert smooth.shape == photo.shape


def test_figures_are_guided_by_their_photos_on_request():
    photo = np.full((128, 128, 3), 40, np.uint8)
    photo[:, 70:] = 210
    colors = np.zeros((8, 8, 3), np.float32)
    colors[:, 5:] = 1
    colors[:, 4] = 58 / 64  # share of these patches to the right of the photo's edge, which is at 4.375
    panel = Image.fromarray(photo)
    plain, guided = (
        np.asarray(colors_panel(colors, None, panel.size, lambda: panel, upsample=way))
        for way in ("nearest", "guided")
    )
    assert (plain == plain[:1]).all()
    assert (np.argmax(plain[:, :, 0] > 127, axis=1) == 64).all()
    assert (np.abs(np.argmax(guided[:, :, 0] > 127, axis=1) - 70) <= 2).all()
    figures = [
        figure_of(results_sheet, [photo], [colors], Style(upsample=upsample)).astype(int)
        for upsample in ("nearest", "guided", "guided")
    ]
    assert np.abs(figures[0] - figures[1]).max() > 100
    np.testing.assert_array_equal(figures[1], figures[2])


PHOTO = np.zeros((6, 8, 3), np.uint8)


@pytest.mark.parametrize("method", ["nearest", "bilinear", "guided"])
@pytest.mark.parametrize(
    ("grid", "size"), [((1, 1), (6, 8)), ((1, 4), (6, 8)), ((6, 8), (6, 8)), ((3, 3), (1, 1))]
)
def test_degenerate_shapes(method, grid, size):
    values = np.full((*grid, 3), 0.25, np.float32)
    photo = np.zeros((*size, 3), np.uint8)
    found = upsample(values, crop=(0, 0, size[1], size[0]), size=size, method=method, photo=photo)
    np.testing.assert_allclose(found, 0.25, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "lanczos"}, "upsample must be one of nearest, bilinear, guided, got 'lanczos'"),
        ({"crop": (4, 0, 4, 6)}, "crop must be"),
        ({"size": (0, 8)}, "size must be"),
        ({"values": np.zeros((2, 3))}, r"values must be \(h, w, C\), got \(2, 3\)"),
        ({"values": np.full((2, 2, 1), np.nan)}, "values must be finite"),
        ({"photo": None}, "guided upsampling needs the photo"),
        ({"photo": np.zeros((5, 8, 3), np.uint8)}, "guided upsampling needs the photo"),
    ],
)
def test_refusals(change, message):
    arguments = {
        "values": np.zeros((2, 2, 1)),
        "crop": (0, 0, 8, 6),
        "size": (6, 8),
        "method": "guided",
        "photo": PHOTO,
    }
    arguments |= change
    with pytest.raises(OptionError, match=message):
        upsample(arguments.pop("values"), **arguments)
