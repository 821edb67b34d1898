"""Patches to pixels, against torch, against filters written out in loops, and on composites with known masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchprism.errors import OptionError
from patchprism.pictures.render import overlay, paint
from patchprism.pictures.upsample import (
    box_mean,
    guided_coefficients,
    overlay_smooth,
    paint_smooth,
    upsample,
    upsampled_strips,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_bilinear_is_torchs(rng):
    values = rng.random((5, 7, 4)).astype(np.float32)
    ours = upsample(values, crop=(0, 0, 91, 45), size=(45, 91), method="bilinear")
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(values).permute(2, 0, 1)[None], size=(45, 91), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(ours, theirs[0].permute(1, 2, 0).numpy(), atol=1e-5)


@pytest.mark.parametrize("crop", [(0, 0, 40, 30), (3.5, 1.25, 36.5, 28.75), (0.2, 0, 39.9, 30)])
def test_nearest_paints_what_paint_paints(rng, crop):
    colors = rng.random((4, 6, 3)).astype(np.float32)
    ours = paint_smooth(colors, crop=crop, size=(30, 40), method="nearest")
    np.testing.assert_array_equal(ours, paint(colors, crop=crop, size=(30, 40)))


@pytest.mark.parametrize("radius", [0, 1, 3, 50])
def test_box_mean_is_the_mean_of_each_window(rng, radius):
    values = rng.random((9, 11, 2))
    expected = np.empty_like(values)
    for y in range(9):
        for x in range(11):
            window = values[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            expected[y, x] = window.mean(axis=(0, 1))
    np.testing.assert_allclose(box_mean(values, radius), expected, atol=1e-12)


def test_guided_coefficients_are_ridge_regressions_of_windows(rng):
    guide, values, radius, epsilon = rng.random((7, 8, 3)), rng.random((7, 8, 2)), 1, 1e-2
    slopes, offsets = np.zeros((7, 8, 3, 2)), np.zeros((7, 8, 2))
    for y in range(7):
        for x in range(8):
            ys, xs = slice(max(0, y - 1), y + 2), slice(max(0, x - 1), x + 2)
            g, v = guide[ys, xs].reshape(-1, 3), values[ys, xs].reshape(-1, 2)
            centered = g - g.mean(axis=0)
            a = np.linalg.solve(
                centered.T @ centered / len(g) + epsilon * np.eye(3),
                centered.T @ (v - v.mean(axis=0)) / len(g),
            )
            slopes[y, x], offsets[y, x] = a, v.mean(axis=0) - g.mean(axis=0) @ a
    ours = guided_coefficients(guide, values, radius, epsilon)
    np.testing.assert_allclose(ours[0], box_mean(slopes, 1), atol=1e-10)
    np.testing.assert_allclose(ours[1], box_mean(offsets, 1), atol=1e-10)


def test_what_is_linear_in_the_photo_comes_back_whole(rng):
    """Patch means of a linear function of the photo are all the filter sees; it must find the pixels."""
    smooth = (
        torch.nn.functional.interpolate(
            torch.from_numpy(rng.random((1, 3, 13, 17)).astype(np.float32)), size=(96, 128), mode="bicubic"
        )[0]
        .permute(1, 2, 0)
        .clamp(0, 1)
    )
    photo = (smooth.numpy() * 255).round().astype(np.uint8)
    truth = photo.astype(np.float32) / 255 @ np.array([[0.5], [0.3], [-0.2]], np.float32) + 0.1
    patches = truth.reshape(12, 8, 16, 8, 1).mean(axis=(1, 3))
    found = {
        method: upsample(patches, crop=(0, 0, 128, 96), size=(96, 128), method=method, photo=photo)
        for method in ("bilinear", "guided")
    }
    errors = {method: np.abs(values - truth).mean() for method, values in found.items()}
    assert errors["guided"] < 0.35 * errors["bilinear"]


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


def test_strips_are_the_whole(rng, monkeypatch):
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
