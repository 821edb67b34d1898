"""Procrustes against SciPy, and colours that come back where they are the same and not where they are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from patchprism.backbones import Backbone
from patchprism.errors import ModelError, OptionError
from patchprism.features.patch_features import PatchFeatures
from patchprism.lenses.comparison import compare
from patchprism.lenses.comparison_figures import save_comparison
from patchprism.lenses.turning import align, fit_rotation, make_cell
from patchprism.prism.estimator import Prism

CROP = (0.0, 0.0, 160.0, 120.0)


def scene(rng, *, grid=(12, 16), n_photos=3, width=24):
    """Features of photos with an object on a ground; within the object three smooth parts of equal variance."""
    y, x = np.meshgrid(
        (np.arange(grid[0]) + 0.5) / grid[0], (np.arange(grid[1]) + 0.5) / grid[1], indexing="ij"
    )
    mask = (np.abs(y - 0.5) < 0.34) & (np.abs(x - 0.5) < 0.34)
    # The same for every grid: phases and directions are drawn before any array of the grid's shape.
    phases, basis = rng.uniform(0, 6, (n_photos, 3)), ortho_group.rvs(width, random_state=3)
    photos = []
    for phase in phases:
        latent = np.stack(
            [np.sin(5 * y + phase[0]), np.sin(6 * x + phase[1]), np.cos(4 * (x + y) + phase[2])], axis=-1
        )
        tokens = latent @ basis[:3] * mask[..., None] + np.where(mask, 3.0, -3.0)[..., None] * basis[3]
        photos.append(tokens)
    return PatchFeatures(photos)


def rotated(features, rng, noise=0.0):
    width = features.width
    turn = ortho_group.rvs(width, random_state=rng)
    return PatchFeatures([tokens @ turn + noise * rng.normal(size=tokens.shape) for tokens in features])


def cells_of(*feature_sets, **options):
    crops = [CROP] * len(feature_sets[0])
    cells = [
        make_cell(f"model-{i}", 0, features, crops, Prism(**options))
        for i, features in enumerate(feature_sets)
    ]
    align(cells)
    return cells


def difference(first, second, *, turned=True):
    ours = [
        c
        for c, part in zip(
            second.turned if turned else [p.rgb for p in second.parts], second.parts, strict=True
        )
    ]
    masks = [a.foreground & b.foreground for a, b in zip(first.parts, second.parts, strict=True)]
    pairs = zip(first.turned, ours, masks, strict=True)
    return float(np.mean(np.concatenate([np.abs(a - b)[mask].ravel() for a, b, mask in pairs])))


def test_the_rotation_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    rotation, residual = fit_rotation(a + 5, b - 2)
    expected, _ = orthogonal_procrustes(a, b)
    np.testing.assert_allclose(rotation, expected, atol=1e-10)
    left = ((a @ expected - b) ** 2).sum() / ((a**2).sum() + (b**2).sum())
    assert residual == pytest.approx(left)


@pytest.mark.parametrize("scaling", ["minmax", "percentile", "sigmoid"])
@pytest.mark.parametrize("space", ["rgb", "oklab"])
def test_a_rotated_copy_has_the_same_colours(scaling, space):
    rng = np.random.default_rng(1)
    features = scene(rng)
    first, second = cells_of(features, rotated(features, rng), scaling=scaling, space=space)
    assert all((a.foreground == b.foreground).all() for a, b in zip(first.parts, second.parts, strict=True))
    assert difference(first, second) < 1 / 255
    assert second.turn.residual < 1e-9
    assert second.clipped < 1e-3 or scaling == "percentile"


def test_components_that_change_places_are_turned_back():
    """Another weighting of the same three parts reorders the components; only turning makes the colours agree."""
    rng = np.random.default_rng(2)
    features = scene(rng)
    basis = ortho_group.rvs(features.width, random_state=3)
    weights = np.array([0.6, 1.0, 1.7])
    other = [tokens + (tokens @ basis[:3].T * (weights - 1)) @ basis[:3] for tokens in features]
    first, second = cells_of(features, rotated(PatchFeatures(other), rng))
    assert difference(first, second, turned=False) > 20 / 255
    assert difference(first, second) < 8 / 255
    assert second.turn.residual < 0.02


@pytest.mark.parametrize(("noise", "most"), [(0.01, 2 / 255), (0.1, 10 / 255)])
def test_noise_moves_colours_no_further_than_its_size(noise, most):
    rng = np.random.default_rng(3)
    features = scene(rng)
    first, second = cells_of(features, rotated(features, rng, noise))
    assert difference(first, second) < most
    assert 0 < second.turn.residual < 0.05


def test_another_grid_is_resampled():
    _first, second = cells_of(scene(np.random.default_rng(4)), scene(np.random.default_rng(4), grid=(18, 24)))
    assert second.turned[0].shape == (18, 24, 3)
    assert second.turn.residual < 0.03


def test_what_has_nothing_in_common_is_said_to_have_nothing_in_common():
    rng = np.random.default_rng(5)
    features = scene(rng)
    noise = [rng.normal(size=tokens.shape) for tokens in features]
    first, second = cells_of(features, PatchFeatures(noise), foreground="none", threshold=0.5)
    turn = second.turn
    assert turn.residual_shuffled > 0.85
    assert turn.residual > 0.6
    assert first.turn is None


def test_smooth_maps_agree_by_chance_and_the_shifted_level_shows_it():
    rng = np.random.default_rng(6)
    features = scene(rng)
    # The same kind of smooth maps with other phases: alike in kind, not in content.
    strangers = rotated(scene(np.random.default_rng(60)), rng)
    _, second = cells_of(features, strangers)
    _, twin = cells_of(features, rotated(features, rng))
    assert second.turn.residual_shifted is not None
    assert second.turn.residual_shifted < second.turn.residual_shuffled
    assert twin.turn.residual < second.turn.residual < second.turn.residual_shuffled


def test_two_foregrounds_that_do_not_meet_are_not_turned():
    tokens = np.zeros((1, 10, 10, 8))
    rng = np.random.default_rng(7)
    tokens += rng.normal(size=tokens.shape) * 0.1
    tokens[..., 7] += 3
    left, right = tokens.copy(), tokens.copy()
    left[:, 2:8, 1:4, :4] += 5
    right[:, 2:8, 6:9, :4] += 5
    _first, second = cells_of(PatchFeatures(left), PatchFeatures(right))
    assert second.turn is None
    np.testing.assert_array_equal(second.turned[0], second.parts[0].rgb)


def flat(pixels):
    """Patch means and a few products of them: a network of one's own that needs no weights."""
    patches = torch.nn.functional.avg_pool2d(pixels, 8).permute(0, 2, 3, 1)
    return torch.cat([patches, patches**2, patches.roll(1, dims=-1) * patches], dim=-1)


def backbone(name, turn=None, patch=8):
    def fn(pixels):
        tokens = flat(pixels)
        return tokens if turn is None else tokens @ torch.tensor(turn, dtype=torch.float32)

    return Backbone.from_callable(fn, patch_size=patch, mean=(0.5,) * 3, std=(0.5,) * 3, name=name)


@pytest.fixture
def photos():
    rng = np.random.default_rng(8)
    made = []
    for _ in range(2):
        photo = np.full((96, 128, 3), (40, 90, 50), np.uint8)
        photo[24:80, 32:96] = rng.integers(120, 255, (7, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        made.append(photo)
    return made


def test_from_photos_to_files(photos, tmp_path):
    turn = ortho_group.rvs(9, random_state=1)
    found = compare(photos, models=[backbone("plain"), backbone("turned", turn)], size=96)
    first, second = found.cells
    assert (first.label, second.label) == ("plain, layer 0", "turned, layer 0")
    assert difference(first, second) < 1 / 255
    written = save_comparison(found, tmp_path, arrays=True)
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert {"compare.png", "compare-as-fitted.png", "photo-1.compare.png", "photo-1.compare.npz"} <= {
        path.name for path in written
    }
    report = json.loads((tmp_path / "compare.json").read_text())
    assert report["cells"][0]["turned"] is False
    told = report["cells"][1]
    assert told["turned"] is True
    assert told["residual"] < 1e-3 < 0.5 < told["residual_shuffled_patches"]
    arrays = np.load(tmp_path / "photo-2.compare.npz")
    np.testing.assert_array_equal(arrays["turned_2"], second.turned[1])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": ["efficientnet_lite2"]}, OptionError, "at least two cells"),
        ({"models": []}, OptionError, "at least one model"),
        ({"models": ["nonesuch", "efficientnet_lite2"]}, ModelError, "unknown model 'nonesuch'"),
        ({"models": ["efficientnet_lite2"], "layers": [3, 99]}, ModelError, "no layer 99"),
        (
            {"models": ["efficientnet_lite2"], "layers": [3, 5], "facet": "query"},
            ModelError,
            "no facet 'query'",
        ),
        ({"models": ["efficientnet_lite2"], "layers": [3, 5], "space": "hsv"}, OptionError, "space must be"),
    ],
)
def test_refusals(photos, options, error, message):
    with pytest.raises(error, match=message):
        compare(photos, size=96, **options)


def test_layers_of_one_forward_are_the_layers(photos):
    found = compare(photos, models=["efficientnet_lite2"], layers=[9, -1, 13], size=96)
    assert [cell.layer for cell in found.cells] == [9, found.cells[1].layer, 13]
    import patchprism

    network = patchprism.load_backbone("efficientnet_lite2")
    framed = found.framing.apply(photos[1])
    tokens = network.patch_tokens(framed.pixels[None], layer=13)[0].numpy()
    expected = found.cells[2].prism.split(tokens)
    np.testing.assert_allclose(found.cells[2].parts[1].rgb, expected.rgb, atol=2e-3)
