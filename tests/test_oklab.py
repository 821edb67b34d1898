"""OKLab against its author's numbers, and equal steps that look equal."""

from __future__ import annotations

import numpy as np
import pytest

from patchprism.errors import OptionError
from patchprism.prism.colors import lay_out
from patchprism.prism.estimator import Prism
from patchprism.prism.oklab import (
    _FROM_CONES,
    _FROM_LAB,
    _TO_CONES,
    _TO_LAB,
    CUBE_SIDE,
    fill_cube,
    linear_from_oklab,
    oklab_from_srgb,
    srgb_from_oklab,
)


@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        # From CSS Color 4 and Ottosson's page
        ((1, 1, 1), (1.0, 0.0, 0.0)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((1, 0, 0), (0.6280, 0.2249, 0.1258)),
        ((0, 1, 0), (0.8664, -0.2339, 0.1795)),
        ((0, 0, 1), (0.4520, -0.0325, -0.3115)),
    ],
)
def test_known_colours(rgb, lab):
    np.testing.assert_allclose(oklab_from_srgb(np.array(rgb, float)), lab, atol=2e-4)


def test_conversion_and_its_inverse():
    rgb = np.random.default_rng(0).random((500, 3))
    np.testing.assert_allclose(srgb_from_oklab(oklab_from_srgb(rgb)), rgb, atol=1e-6)


def test_the_whole_cube_is_in_gamut():
    steps = np.linspace(0, 1, 21)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    lab = oklab_from_srgb(fill_cube(cube).astype(float))
    # If anything had been clipped, the inverse would give another value.
    np.testing.assert_allclose(lab - lab[0], CUBE_SIDE * (cube - cube[0]), atol=1e-5)
    linear = linear_from_oklab(lab)
    assert linear.min() > -1e-6
    assert linear.max() < 1 + 1e-6


def test_gamma_coding_follows_the_standard():
    """IEC 61966-2-1's formula with a power function; and the inverses are inverses."""
    grey = np.linspace(0.02, 1, 5000)[:, None] * np.ones(3)
    lab = np.stack([grey[:, 0], 0 * grey[:, 0], 0 * grey[:, 0]], axis=-1)
    linear = np.clip(linear_from_oklab(lab), 0, 1)
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(srgb_from_oklab(lab), expected, rtol=1e-14, atol=1e-15)
    assert (linear <= 0.0031308).any()
    np.testing.assert_allclose(_FROM_CONES @ _TO_CONES, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(_FROM_LAB @ _TO_LAB, np.eye(3), atol=1e-14)


def test_equal_steps_look_equal_in_every_direction():
    rng = np.random.default_rng(1)
    start = rng.uniform(0.2, 0.8, (400, 3))
    step = rng.normal(size=(400, 3))
    step *= 0.1 / np.linalg.norm(step, axis=1, keepdims=True)
    seen = np.linalg.norm(
        oklab_from_srgb(fill_cube(start + step)) - oklab_from_srgb(fill_cube(start)), axis=1
    )
    np.testing.assert_allclose(seen, 0.1 * CUBE_SIDE, rtol=1e-3)
    plain = np.linalg.norm(oklab_from_srgb(start + step) - oklab_from_srgb(start), axis=1)
    assert plain.max() / plain.min() > 2  # for comparison, equal steps in RGB


def test_a_prism_with_oklab_colours_has_the_components_of_the_rgb_one(tmp_path):
    rng = np.random.default_rng(2)
    tokens = rng.normal(size=(2, 10, 12, 16)).astype(np.float32)
    tokens[:, 3:7, 3:9] += 4
    plain, lab = Prism().fit(tokens), Prism(space="oklab").fit(tokens)
    for a, b in zip(plain.transform(tokens), lab.transform(tokens), strict=True):
        mask = a.any(axis=-1)
        np.testing.assert_allclose(fill_cube(a[mask]), b[mask], atol=1e-6)
        assert not b[~mask].any()
    np.testing.assert_allclose(
        fill_cube(plain.split(tokens[0]).rgb_all), lab.split(tokens[0]).rgb_all, atol=1e-6
    )
    lab.save(tmp_path / "lab.safetensors")
    again = Prism.load(tmp_path / "lab.safetensors")
    assert again.space == "oklab"
    np.testing.assert_array_equal(again.split(tokens[0]).rgb, lab.split(tokens[0]).rgb)
    plain.save(tmp_path / "plain.safetensors")
    assert (
        b"space" not in (tmp_path / "plain.safetensors").read_bytes()
    )  # as in files from before this option existed
    assert Prism.load(tmp_path / "plain.safetensors").space == "rgb"


def test_an_unknown_space_is_named():
    with pytest.raises(OptionError, match="space must be one of rgb, oklab, got 'hsv'"):
        Prism(space="hsv").check_options()
    values = np.full((2, 3), 0.25, np.float32)
    assert lay_out(values, "rgb") is values
