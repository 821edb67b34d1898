"""The Python interface, as in notebooks: from photos to tokens, own features, and lenses as methods."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from toys import PATCH, WIDTH, Toy

import patchprism
from patchprism.errors import FeaturesError, OptionError, PhotoError, PrismError, StoreError
from patchprism.photos.framing import Framing

PNG = b"\x89PNG\r\n\x1a\n"


def disc(height: int, width: int, seed: int) -> np.ndarray:
    """A photo with a disc on a noisy background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2) ** 2 + (x - width / 2) ** 2 < (min(height, width) / 3) ** 2
    ground = np.stack([60 + x / width * 40, 80 + y / height * 40, np.full((height, width), 90)], -1)
    photo = np.where(inside[..., None], [200, 60 + seed, 40], ground) + rng.normal(0, 4, (height, width, 3))
    return photo.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos():
    return [disc(64, 96, 0), disc(96, 64, 1), disc(64, 64, 2)]


@pytest.fixture(scope="module")
def view(photos):
    return patchprism.visualize(photos, backbone=Toy(), size=64)


# ---------------------------------------------------------------- photos -> tokens


def test_extract_gives_the_tokens_that_visualize_uses(photos, view):
    features = patchprism.extract(photos, Toy(), size=64)
    assert features.grids == [(8, 12), (12, 8), (8, 8)]
    assert features.width == WIDTH
    for ours, theirs in zip(features, view.features, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert features.names == ["photo-1", "photo-2", "photo-3"]
    assert features.origin == view.origin == view.prism.origin
    assert features[1:].origin == features.origin
    # Independent computation: call the framing and the network directly.
    framing = Framing(size=64, patch_size=PATCH, mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = framing.apply(photos[1]).pixels[None]
    np.testing.assert_allclose(features[1], Toy().patch_tokens(pixels)[0].numpy(), atol=1e-6)


def test_extract_takes_a_framing_paths_and_options(photos, tmp_path):
    paths = []
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    framing = Framing(size=32, patch_size=PATCH, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = patchprism.extract([tmp_path], Toy(), framing=framing, token_norm="l2", batch_size=2)
    assert found.names == paths
    assert found.grids == [(4, 6), (6, 4), (4, 4)]
    np.testing.assert_allclose(np.linalg.norm(found[2], axis=-1), 1, rtol=1e-5)
    assert found.origin["framing"]["size"] == 32
    assert found.origin["token_norm"] == "l2"


def test_extract_reports_photos_that_cannot_be_read(photos, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no photo")
    given = [photos[0], tmp_path / "bad.png", photos[2]]
    with pytest.raises(PhotoError, match=r"bad\.png"):
        patchprism.extract(given, Toy(), size=64)
    told = []
    features = patchprism.extract(
        given, Toy(), size=64, errors="report", progress=lambda *at: told.append(at)
    )
    assert features.names == ["photo-1", "photo-3"]
    assert [each["photo"] for each in features.failures] == [str(tmp_path / "bad.png")]
    assert told[-1] == ("photos", 3, 3)
    seen = patchprism.visualize([photos[0], photos[2]], features=features)
    assert [each.photo for each in seen.failures] == [str(tmp_path / "bad.png")]
    with pytest.raises(PhotoError, match="bad"):
        patchprism.extract([tmp_path / "bad.png"], Toy(), errors="report")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": 5}, "backbone must be a Backbone or the name of a model, got 5"),
        ({"framing": "seed"}, "framing must be a Framing, or None, got 'seed'"),
        ({"size": 0}, "size must be a whole number"),
        ({"errors": "skip"}, "errors must be one of raise, report, got 'skip'"),
        ({"photos": 5}, "photos must be paths, images or arrays, got int"),
        ({"layer": "last"}, "layer must be"),
        (
            {"framing": Framing(size=64, patch_size=14, mean=(0, 0, 0), std=(1, 1, 1))},
            "framing must have the patch size of toy, 8, got 14",
        ),
        (
            {"size": 64, "framing": Framing(size=64, patch_size=8, mean=(0, 0, 0), std=(1, 1, 1))},
            "size is part of framing",
        ),
    ],
)
def test_extract_names_what_is_wrong(photos, options, words):
    with pytest.raises(OptionError, match=words):
        patchprism.extract(**{"photos": photos, "backbone": Toy(), **options})


# ---------------------------------------------------------------- own features


def test_own_features_have_the_colors_of_the_same_tokens(photos, view, tmp_path):
    tokens = [torch.from_numpy(np.array(each)).requires_grad_() for each in view.features]
    own = patchprism.visualize(photos, features=tokens)
    for ours, theirs in zip(own.colors, view.colors, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert own.sizes == view.sizes
    np.testing.assert_allclose(own.crops, view.crops, atol=1)
    assert own.names == view.names
    assert repr(own).startswith("Visualization(3 photos, own features, score ")
    report = own.report()
    assert report["model"]["name"] == "own features"
    assert report["model"]["width"] == WIDTH
    assert report["model"]["weights"]["source"] == "own features"
    assert report["settings"]["device"] is None
    assert report["prism"]["fitted_here"] is True
    assert own.prism.origin == {}
    # The prism of own features colours photos of the same network, and vice versa.
    assert len(patchprism.visualize(photos, backbone=Toy(), size=64, prism=own.prism)) == 3
    again = patchprism.visualize(features=tokens, prism=view.prism)
    np.testing.assert_array_equal(again.colors[0], view.colors[0])
    written = {path.name for path in own.save(tmp_path / "out", overlay_alpha=0.5, arrays=True)}
    assert {"results.png", "photo-1.overlay.png", "photo-3.npz", "prism.safetensors"} <= written
    assert own.explore().html.startswith("<!")
    own.figure().canvas.draw()


def test_without_photos_pictures_show_plain_grey(tmp_path):
    tokens = np.random.default_rng(0).normal(size=(2, 6, 9, 32)).astype(np.float32)
    view = patchprism.visualize(features=tokens, foreground="none", model="my network")
    assert view.record.name == "my network"
    assert view.origin == view.prism.origin == {"model": "my network"}
    assert view.sizes == [(84, 126)] * 2
    assert view.crops[0] == (0, 0, 126, 84)
    assert (view.photos.read(0) == 128).all()
    assert view.picture(0, overlay_alpha=0.0).tolist() == np.full((84, 126, 3), 128).tolist()
    assert view.names == ["photo-1", "photo-2"]
    assert view.gone == []
    view.save(tmp_path / "out", overlay_alpha=0.6, upsample="guided")
    assert patchprism.Prism.load(tmp_path / "out" / "prism.safetensors").origin == {"model": "my network"}
    page = view.explore(title="mine")
    assert page.message.header["model"]["name"] == "my network"
    assert page.message.header["command"]["files"] is False
    assert page.message.header["command"]["options"] == []
    assert view._repr_png_().startswith(PNG)


def test_grids_may_differ_and_patch_features_keep_their_names():
    rng = np.random.default_rng(0)
    features = patchprism.PatchFeatures(
        [rng.normal(size=shape) for shape in ((5, 40, 16), (12, 8, 16), (3, 3, 16))], ["a", "b", "c"]
    )
    view = patchprism.visualize(features=features, foreground="none")
    assert view.names == ["a", "b", "c"]
    assert [color.shape[:2] for color in view.colors] == features.grids
    view.figure().canvas.draw()
    assert view._repr_png_().startswith(PNG)


def test_extracted_features_know_their_network(photos, view):
    features = patchprism.extract(photos, Toy(), size=64)
    again = patchprism.visualize(photos, features=features)
    assert again.record.name == "toy"
    assert again.origin == view.origin
    assert again.framing == view.framing
    assert again.crops == view.crops
    assert again.report()["model"]["weights"]["sha256"] == "0" * 64
    other = patchprism.visualize(photos, backbone=Toy(), size=32).prism
    with pytest.raises(PrismError, match=r"another framing \(size\)"):
        patchprism.visualize(photos, features=features, prism=other)
    assert len(patchprism.visualize(photos, features=features, prism=other, force=True)) == 3


def _channels_first(module, count=4):
    return module.zeros((count, 384, 16, 16))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (
            _channels_first(torch),
            r"\(N, h, w, D\), got \(4, 384, 16, 16\).*give features\.permute\(0, 2, 3, 1\)",
        ),
        (_channels_first(np), r"give features\.transpose\(0, 2, 3, 1\)"),
        (list(_channels_first(torch)), r"give \[each\.permute\(1, 2, 0\) for each in features\]"),
        (np.zeros((2, 256, 384)), r"features\.reshape\(N, h, w, D\)"),
        (5, r"features must be a sequence of arrays \(h, w, D\), got int"),
        ([], "at least one photo"),
        ([np.zeros((2, 3, 8)), np.zeros((2, 3, 9))], "photo-2: features have width 9, those before 8"),
    ],
)
def test_features_of_another_shape_are_refused_with_a_hint(features, words):
    with pytest.raises(FeaturesError, match=words):
        patchprism.visualize(features=features)


@pytest.mark.parametrize("shape", [(3, 48, 16, 16), (2, 60, 20, 8), (1, 16, 16, 384)])
def test_features_with_channels_last_are_accepted(shape):
    tokens = np.random.default_rng(0).normal(size=shape)
    assert len(patchprism.visualize(features=tokens, foreground="none")) == shape[0]


def test_bad_values_name_the_photo(photos, view, tmp_path):
    tokens = [np.array(each) for each in view.features]
    tokens[1][3, 4, 5] = np.nan
    with pytest.raises(FeaturesError, match="photo-2: features must be finite, got NaN"):
        patchprism.visualize(features=tokens)
    tokens[1][3, 4, 5] = np.inf
    for i, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{i}.png")
    with pytest.raises(FeaturesError, match=r"1\.png: features must be finite, got infinity"):
        patchprism.visualize([tmp_path], features=tokens)


def test_photos_that_do_not_fit_their_features_are_refused(photos, view, tmp_path):
    tokens = list(view.features)
    with pytest.raises(FeaturesError, match="features and photos must have the same length, got 3 and 2"):
        patchprism.visualize(photos[:2], features=tokens)
    words = r"photo-1: features have 8 x 12 patches, but .* 96 x 64 pixels .* into 12 x 8"
    with pytest.raises(FeaturesError, match=words):
        patchprism.visualize([photos[1], photos[0], photos[2]], features=tokens)
    framing = Framing(size=32, patch_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(FeaturesError, match="into 4 x 6"):
        patchprism.visualize(photos, features=tokens, framing=framing)
    (tmp_path / "bad.png").write_bytes(b"no photo")
    given = [photos[0], tmp_path / "bad.png", photos[2]]
    with pytest.raises(PhotoError, match=r"bad\.png"):
        patchprism.visualize(given, features=tokens)
    seen = patchprism.visualize(given, features=tokens, errors="report")
    assert seen.names == ["photo-1", "photo-3"]
    assert len(seen.features) == len(seen.colors) == 2
    np.testing.assert_array_equal(seen.features[1], tokens[2])
    assert [failure.photo for failure in seen.failures] == [str(tmp_path / "bad.png")]


@pytest.mark.parametrize(
    "options",
    [
        {"size": 64},
        {"layer": 0},
        {"final_norm": False},
        {"token_norm": "l2"},
        {"weights": "w.pth"},
        {"device": "cpu"},
        {"batch_size": 1},
        {"backbone": Toy()},
        {"fetch_from": ["s3://bucket"]},
    ],
)
def test_options_of_a_network_are_refused_with_features(options):
    words = f"{next(iter(options))} is for photos that go through a network"
    with pytest.raises(OptionError, match=words):
        patchprism.visualize(features=np.ones((1, 2, 2, 8)), **options)


def test_framing_is_only_for_features(photos):
    framing = Framing(size=64, patch_size=8, mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(OptionError, match="framing is for features"):
        patchprism.visualize(photos, backbone=Toy(), framing=framing)
    with pytest.raises(OptionError, match="framing must be a Framing"):
        patchprism.visualize(photos, features=np.ones((3, 8, 8, 8)), framing=8)


# ---------------------------------------------------------------- one photo, and lenses


def test_one_photo_of_a_view(view):
    assert len(list(view)) == len(view) == 3
    one = view[-2]
    assert repr(one).startswith("PhotoResult(photo-2, 12 x 8 patches, ")
    assert one.name == view["photo-2"].name == "photo-2"
    np.testing.assert_array_equal(one.colors, view.colors[1])
    np.testing.assert_array_equal(one.colors_all, view.colors_all[1])
    np.testing.assert_array_equal(one.score, view.scores[1])
    np.testing.assert_array_equal(one.foreground, view.foreground[1])
    np.testing.assert_array_equal(one.features, view.features[1])
    np.testing.assert_array_equal(one.picture(overlay_alpha=0.5), view.picture(1, overlay_alpha=0.5))
    assert (one.size, one.crop) == (view.sizes[1], view.crops[1])
    assert one._repr_png_().startswith(PNG)
    some = view[1:]
    assert isinstance(some, patchprism.Visualization)
    assert some.names == ["photo-2", "photo-3"]
    np.testing.assert_array_equal(some.colors[1], view.colors[2])
    np.testing.assert_array_equal(some.picture(0), view.picture(1))
    assert some.report()["prism"]["fitted_here"] is False
    for wrong, words in (
        (3, "photo must be a whole number from -3 to 2, got 3"),
        ("cat", "photo: no photo is called 'cat'; choose from photo-1, photo-2, photo-3"),
        (slice(3, 9), "at least one photo"),
        (1.5, "photo must be a whole number"),
    ):
        with pytest.raises(OptionError, match=words):
            view[wrong]


def test_similarity_against_a_computation_by_hand(view):
    found = view.similarity(0, x=50, y=30)
    query = view.features[0][30 // 8, 50 // 8].astype(np.float64)
    for i, tokens in enumerate(view.features):
        tokens = tokens.astype(np.float64)
        cosine = tokens @ query / np.linalg.norm(tokens, axis=-1) / np.linalg.norm(query)
        np.testing.assert_allclose(found.arrays[i]["similarity"][0], cosine, atol=1e-5)
    assert repr(found) == "LensResult(similarity, 3 photos, arrays similarity, points)"
    assert found._repr_png_().startswith(PNG)
    assert found.picture(1).shape == (96, 64, 3)
    by_name = view.similarity("photo-1", 50, 30, upsample="bilinear")
    np.testing.assert_array_equal(by_name.arrays[2]["similarity"], found.arrays[2]["similarity"])
    with pytest.raises(OptionError, match="photo must be"):
        view.similarity(7, 1, 1)
    with pytest.raises(OptionError, match="is outside photo-1"):
        view.similarity(0, 97, 1)
    with pytest.raises(OptionError, match="x must be a number"):
        view.similarity(0, "left", 1)


def test_an_index_means_the_photo_even_if_another_has_that_number_as_its_name(photos, tmp_path):
    for name, photo in (("2.png", photos[0]), ("1.png", photos[1])):
        Image.fromarray(photo).save(tmp_path / name)
    view = patchprism.visualize([tmp_path / "2.png", tmp_path / "1.png"], backbone=Toy(), size=64)
    found = view.similarity(0, 90, 60)  # outside the other photo
    assert found.arrays[0]["points"].tolist() == [[0, 7, 11]]


def test_clusters_matches_and_norms(view, tmp_path):
    clusters = view.clusters(3, seed=1)
    assert clusters.shared_arrays["centers"].shape == (3, WIDTH)
    assert set(np.unique(clusters.arrays[0]["labels"])) <= {0, 1, 2}
    matches = view.matches(2, 0, foreground=False)
    assert list(matches.figures) == ["matches-1-2"]
    places = matches.shared_arrays["pair_1_2"]
    tokens = [view.features[i].reshape(-1, WIDTH).astype(np.float64) for i in (2, 0)]
    unit = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in tokens]
    cosine = unit[0] @ unit[1].T
    for row_a, column_a, row_b, column_b in places:
        a, b = row_a * 8 + column_a, row_b * 12 + column_b
        assert cosine[a, b] >= max(cosine[a].max(), cosine[:, b].max()) - 1e-6
    assert len(places)
    assert len(view.matches().figures) == 3
    assert repr(view.matches()) == "LensResult(matches, 3 figures)"
    with pytest.raises(OptionError, match="b must be a different photo than a"):
        view.matches(1, "photo-2")
    with pytest.raises(OptionError, match="matches needs two photos"):
        view.matches(1)
    norms = view.norms()
    np.testing.assert_allclose(
        norms.arrays[1]["norm"], np.linalg.norm(view.features[1].astype(np.float64), axis=-1), rtol=1e-6
    )
    for result in (clusters, matches, norms):
        assert result._repr_png_().startswith(PNG)
        assert "\n" not in repr(result)
    with pytest.raises(OptionError, match="no pictures of single photos"):
        matches.picture(0)
    written = {path.name for path in view.save(tmp_path, lenses=[clusters, matches, norms], pca=False)}
    assert {"clusters.png", "matches-1-2.png", "photo-3.norm.png"} <= written


class Seeing(Toy):
    """A toy whose class token attends equally to all patches, and each patch to itself."""

    has_attention = True

    def __init__(self):
        super().__init__()
        self.record = self.record.__class__(**{**vars(self.record), "prefix_tokens": 1, "heads": 2})

    def _has_class_token(self):
        return True

    def _row(self, pixels, token):
        n = (pixels.shape[-1] // PATCH) * (pixels.shape[-2] // PATCH) + 1
        row = torch.full((n,), 1 / n) if token == 0 else torch.eye(n)[token]
        return row.expand(len(pixels), -1)

    def _attention_row(self, pixels, layer, token):
        return self._row(pixels, token)[:, None].expand(-1, 2, -1)

    def _rollout_row(self, pixels, token):
        return self._row(pixels, token)


def test_attention_of_the_class_token_and_of_a_point(photos, view, tmp_path):
    backbone = Seeing()
    seen = patchprism.visualize(photos, backbone=backbone, size=64)
    every = seen.attention(backbone=backbone)
    np.testing.assert_allclose(every.arrays[2]["cls_heads"], np.full((2, 8, 8), 1 / 65), rtol=1e-6)
    one = seen.attention(1, 20, 50, backbone=backbone)
    assert list(one.figures) == ["attention-at-1", "attention"]
    assert [sorted(arrays) for arrays in one.arrays][::2] == [[], []]
    mean = one.arrays[1]["at1_mean"]
    assert mean[50 // 8, 20 // 8] == mean.sum() == 1
    assert one._repr_png_().startswith(PNG)
    with pytest.raises(OptionError, match="has no picture of photo 0"):
        one.picture(0)
    seen.save(tmp_path, lenses=[one], arrays=True, pca=False)
    with pytest.raises(OptionError, match="needs photo, x and y"):
        seen.attention(0, 3, backbone=backbone)
    own = patchprism.visualize(features=list(view.features))
    with pytest.raises(
        OptionError, match="backbone must be given: own features cannot be loaded by its name"
    ):
        own.attention()


def test_attention_loads_the_network_again(monkeypatch):
    from patchprism.errors import ModelError, WeightsError
    from patchprism.views import extract

    view = patchprism.visualize([disc(64, 64, 0)], model="efficientnet_lite2", size=64)
    with pytest.raises(ModelError, match="efficientnet_lite2 cannot give its attention"):
        view.attention()
    loaded = Seeing()
    asked = []
    monkeypatch.setattr(extract, "load_backbone", lambda name, **how: asked.append((name, how)) or loaded)
    with pytest.raises(WeightsError, match="differ from those of the view"):
        view.attention()
    assert asked[0][0] == "efficientnet_lite2"
    assert asked[0][1]["download"] is False


# ---------------------------------------------------------------- names, notebooks


def test_a_new_notebook_displays_figures_and_results(view):
    # What IPython's PNG formatter does if nothing is registered for the type.
    for shown in (view, view[0], view.figure(), view.norms()):
        assert shown._repr_png_().startswith(PNG)
    assert type(view.figure()).__mro__[1].__name__ == "Figure"


def test_notebooks_display_a_comparison(photos):
    class Other(Toy):
        def __init__(self):
            super().__init__()
            self.matrix = -self.matrix.flip(1)

    found = patchprism.compare(photos, models=[Toy(), Other()], size=64, foreground="none")
    assert repr(found) == "Comparison(3 photos: toy (tests) #1, layer 0, toy (tests) #2, layer 0)"
    assert repr(found.cells[0]) == "CompareCell(toy (tests) #1, layer 0, 3 photos)"
    assert found._repr_png_().startswith(PNG)


def test_representations_are_one_line(view):
    objects = (view, view[0], view.features, view.framing, Toy(), view.prism, view.norms(), view.explore())
    for each in objects:
        assert "\n" not in repr(each), each
        assert " object at 0x" not in repr(each)
    assert repr(Toy()) == "Toy(toy, cpu, float32)"


def test_a_new_process_finds_the_public_functions():
    program = (
        "import patchprism, types\n"
        "import patchprism.lenses.comparison, patchprism.views.extract, patchprism.views.visualize\n"
        "import patchprism.jobs.video, patchprism.cli.compare\n"
        "for name in ('compare', 'extract', 'visualize', 'render_video'):\n"
        "    assert isinstance(getattr(patchprism, name), types.FunctionType), name\n"
        "assert dir(patchprism) == sorted(patchprism.__all__), dir(patchprism)\n"
        "assert patchprism.errors.PhotoError\n"
        "from patchprism import *\n"
        "assert compare is patchprism.compare and StoredFeatures is patchprism.StoredFeatures"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with pytest.raises(StoreError):
        patchprism.StoredFeatures("no such store")
