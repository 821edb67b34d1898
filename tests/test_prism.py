"""The prism compared with scikit-learn, on degenerate input, and its file."""

from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from skimage.filters import threshold_otsu
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from patchprism.errors import FeaturesError, OptionError, PrismError
from patchprism.features.patch_features import PatchFeatures
from patchprism.prism.estimator import Prism
from patchprism.prism.options import PrismOptions
from patchprism.prism.passes import ObjectRange, otsu
from patchprism.support.options import option_of

GRIDS = [(12, 9), (10, 10), (7, 15), (16, 11)]


def scene(grids=GRIDS, width=32, *, seed=0, dtype=np.float32):
    """Photos with an object of two parts on a noisy background; all variances differ, so there are no ties."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(width, width)))[0]
    photos = []
    for h, w in grids:
        y, x = np.mgrid[:h, :w] / np.array([h, w]).reshape(2, 1, 1)
        inside = ((np.abs(y - 0.5) < 0.3) & (np.abs(x - 0.5) < 0.3)).astype(float)
        coordinates = np.zeros((h, w, width))
        coordinates[..., 0] = 9 * inside
        coordinates[..., 1] = 4 * inside * (y - 0.5) / 0.3
        coordinates[..., 2] = 2 * inside * (x - 0.5) / 0.3
        coordinates[..., 3] = 1 * inside * np.sin(9 * x + 5 * y)
        photos.append(((coordinates + 0.15 * rng.normal(size=coordinates.shape)) @ axes.T + 3).astype(dtype))
    return photos


def minmax(values):
    return (values - values.min(axis=0)) / (values.max(axis=0) - values.min(axis=0))


def by_scikit_learn(photos, threshold, side):
    """Scores, masks, colours and all-patch colours as in the blog post, only with scikit-learn."""
    rows = np.concatenate([photo.reshape(-1, photo.shape[-1]) for photo in photos]).astype(np.float64)
    owner = np.repeat(np.arange(len(photos)), [photo.shape[0] * photo.shape[1] for photo in photos])
    components = PCA(n_components=3, svd_solver="full").fit_transform(rows)
    score = minmax(components[:, :1])[:, 0]
    mask = score > threshold if side == "above" else score < threshold
    colors = np.zeros((len(rows), 3))
    colors[mask] = minmax(PCA(n_components=3, svd_solver="full").fit_transform(rows[mask]))
    raw = components.copy()
    for i in range(len(photos)):
        mine = owner == i
        raw[mine & ~mask] = components[mine].min()
    return score, mask, colors, minmax(raw)


def flat(arrays):
    return np.concatenate([array.reshape(-1, *array.shape[2:]) for array in arrays])


@pytest.mark.parametrize("threshold", [0.6, 0.35])
@pytest.mark.parametrize("side", ["above", "below"])
def test_every_stage_agrees_with_scikit_learn(threshold, side):
    photos = scene()
    prism = Prism(threshold=threshold, foreground=side, signs="largest").fit(photos)
    score, mask, colors, raw = by_scikit_learn(photos, threshold, side)
    parts = [prism.split(photo) for photo in photos]
    np.testing.assert_allclose(flat([p.score for p in parts]), score, atol=1e-5)
    clear = np.abs(score - threshold) > 1e-4
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(flat([p.foreground for p in parts])[clear], mask[clear])
    np.testing.assert_allclose(flat([p.rgb for p in parts])[clear], colors[clear], atol=1e-3)
    np.testing.assert_allclose(flat([p.rgb_all for p in parts])[clear], raw[clear], atol=1e-3)
    for part in parts:
        assert part.score.dtype == part.rgb.dtype == part.rgb_all.dtype == np.float32
        assert not part.rgb[~part.foreground].any()


def test_percentile_and_sigmoid_agree_with_their_definitions():
    photos = scene()
    options = {"threshold": 0.5, "foreground": "above"}
    base = Prism(**options).fit(photos)
    rows = np.concatenate([photo[base.foreground_of(photo)] for photo in photos]).astype(np.float64)
    pca = PCA(n_components=3, svd_solver="full", whiten=True).fit(rows)
    whitened = pca.transform(rows)
    unwhitened = whitened * np.sqrt(pca.explained_variance_)
    low, high = np.percentile(unwhitened, [1, 99], axis=0)
    for scaling, expected in (
        ("sigmoid", 1 / (1 + np.exp(-2 * whitened))),
        ("percentile", np.clip((unwhitened - low) / (high - low), 0, 1)),
    ):
        prism = Prism(scaling=scaling, **options).fit(photos)
        got = np.concatenate([prism.split(p).rgb[prism.foreground_of(p)] for p in photos])
        np.testing.assert_allclose(got, expected, atol=2e-3 if scaling == "percentile" else 1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_otsu_agrees_with_scikit_image(seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0.3, 0.1, 700), rng.normal(0.8, 0.05, 300)])
    values = minmax(values)
    counts = np.histogram(values, bins=256, range=(0, 1))[0]
    assert otsu(counts) == pytest.approx(threshold_otsu(values, nbins=256), abs=1e-9)


def test_otsu_is_the_default_of_pca_and_splits_two_modes():
    photos = scene()
    prism = Prism(foreground="pca").fit(photos)
    score = flat([prism.score_of(photo) for photo in photos])
    assert prism.threshold_ == pytest.approx(threshold_otsu(score, nbins=256), abs=1 / 256)
    assert prism.summary()["threshold_from"] == "otsu"


@pytest.mark.parametrize("turned", [False, True])
def test_pca_takes_the_side_away_from_the_borders_whatever_the_sign(turned):
    """Objects in the middle are found whether they score high or low."""
    photos = [6 - photo for photo in scene()] if turned else scene()
    prism = Prism(foreground="pca").fit(photos)
    for photo in photos:
        h, w = photo.shape[:2]
        foreground = prism.foreground_of(photo)
        assert foreground[h // 2, w // 2]
        assert not foreground[0].any()
        assert not foreground[:, -1].any()
    assert prism.border_share_[prism.side_] == 0
    assert "0% of the patches" in prism.summary()["side_reason"]


def test_the_sides_of_a_given_threshold_are_counted_exactly():
    photos = scene()
    prism = Prism(threshold=0.47, foreground="auto").fit(photos)
    score = [prism.score_of(photo) for photo in photos]
    border = [np.pad(np.zeros((h - 2, w - 2), bool), 1, constant_values=True) for h, w in GRIDS]
    above, edge = flat(score) > np.float32(0.47), flat(border)
    assert prism.border_share_["above"] == pytest.approx(edge[above].mean())
    assert prism.border_share_["below"] == pytest.approx(edge[~above].mean())
    # For Otsu's threshold, which is the centre of a bin, the histogram gives the same counts.
    found = Prism(threshold="otsu").fit(photos)
    given = Prism(threshold=found.threshold_).fit(photos)
    assert found.border_share_ == given.border_share_


def test_none_keeps_every_patch():
    photos = scene()
    prism = Prism(foreground="none").fit(photos)
    assert prism.n_foreground_ == prism.n_patches_ == sum(h * w for h, w in GRIDS)
    assert all(prism.split(photo).foreground.all() for photo in photos)
    rows = flat(photos).astype(np.float64)
    expected = minmax(PCA(n_components=3, svd_solver="full").fit_transform(rows))
    np.testing.assert_allclose(flat(prism.transform(photos)), expected, atol=1e-4)


def test_components_can_be_chosen_and_inverted():
    photos = scene()
    plain = Prism(threshold=0.5, foreground="above").fit(photos)
    chosen = Prism(threshold=0.5, foreground="above", components=(3, -1, 2)).fit(photos)
    for photo in photos:
        mask, a, b = plain.foreground_of(photo), plain.split(photo).rgb, chosen.split(photo).rgb
        np.testing.assert_allclose(
            b[mask], np.stack([a[mask][:, 2], 1 - a[mask][:, 0], a[mask][:, 1]], 1), atol=1e-6
        )


def test_order_of_photos_and_splits_of_a_photo_change_nothing():
    photos = scene()
    prism, back = Prism().fit(photos), Prism().fit(photos[::-1])
    assert prism.threshold_ == back.threshold_
    for photo in photos:
        np.testing.assert_allclose(prism.split(photo).rgb, back.split(photo).rgb, atol=1 / 255)
        np.testing.assert_array_equal(prism.foreground_of(photo), back.foreground_of(photo))


def test_merged_passes_learn_the_same_as_one_walk():
    """Photos divided among three workers and merged, as in every engine."""
    photos = scene()

    def walk(make):
        parts = []
        for share in (photos[:1], photos[1:3], photos[3:]):
            part = make()
            for photo in share:
                part.update(photo, next(index for index, each in enumerate(photos) if each is photo))
            parts.append(part)
        whole = parts.pop()
        for part in parts:
            whole.merge(part)
        return whole

    for scaling in ("minmax", "percentile", "sigmoid"):
        together, merged = (
            Prism(scaling=scaling).fit(photos),
            Prism(scaling=scaling).fit_by(walk, n_photos=len(photos)),
        )
        assert together.summary().keys() == merged.summary().keys()
        assert (together.threshold_, together.side_, together.n_foreground_) == (
            merged.threshold_,
            merged.side_,
            merged.n_foreground_,
        )
        np.testing.assert_allclose(together.object_components_[:3], merged.object_components_[:3], atol=1e-6)
        np.testing.assert_allclose(together.object_range_[:, :3], merged.object_range_[:, :3], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"threshold": 1.5}, "threshold"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": float("nan")}, "threshold"),
        ({"threshold": "otto"}, "threshold"),
        ({"threshold": True}, "threshold"),
        ({"foreground": "left"}, "foreground"),
        ({"scaling": "log"}, "scaling"),
        ({"components": (1, 2)}, "components"),
        ({"components": (0, 1, 2)}, "components"),
        ({"components": (1, 2, 9)}, "components"),
        ({"components": (1, 2, 2.5)}, "components"),
    ],
)
def test_options_that_are_not_allowed_are_named(options, word):
    with pytest.raises(OptionError, match=word):
        Prism(**options).fit(scene())


@pytest.mark.parametrize(
    ("photos", "foreground"),
    [
        pytest.param([np.full((4, 5, 6), 2.5, np.float32)], "none", id="constant"),
        pytest.param([np.zeros((4, 5, 6), np.float32)], "none", id="zeros"),
        pytest.param([np.arange(6, dtype=np.float32).reshape(1, 1, 6)], "none", id="one patch"),
        pytest.param([np.eye(2, 6, dtype=np.float32).reshape(1, 2, 6)], "auto", id="two patches"),
        pytest.param(
            [np.outer(np.arange(20), np.arange(6)).reshape(4, 5, 6).astype(np.float32)], "auto", id="rank one"
        ),
        pytest.param(
            [np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)], "auto", id="width two"
        ),
    ],
)
@pytest.mark.parametrize("scaling", ["minmax", "percentile", "sigmoid"])
def test_degenerate_features_give_flat_channels_not_noise(photos, foreground, scaling):
    prism = Prism(foreground=foreground, scaling=scaling).fit(photos)
    part = prism.split(photos[0])
    for values in (part.score, part.rgb, part.rgb_all):
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
    rank = np.linalg.matrix_rank(photos[0][part.foreground] - photos[0][part.foreground].mean(0), tol=1e-3)
    for channel in range(rank, 3):
        np.testing.assert_array_equal(part.rgb[part.foreground][:, channel], 0.5)


@pytest.mark.parametrize("photos", [[np.ones((4, 4, 6))], [np.zeros((1, 1, 6))]])
def test_equal_patches_raise_an_error_about_the_foreground(photos):
    with pytest.raises(PrismError, match="same features"):
        Prism().fit(photos)


def test_a_threshold_that_leaves_nothing_raises_an_error():
    with pytest.raises(PrismError, match="above the threshold 1"):
        Prism(threshold=1.0, foreground="above").fit(scene())


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_the_photo_with_a_value_that_is_not_finite_is_named(value, word):
    photos = scene()
    photos[2][3, 4, 5] = value
    with pytest.raises(FeaturesError, match=f"c.jpg: .*{word}"):
        Prism().fit(PatchFeatures(photos, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]))
    prism = Prism().fit(scene())
    with pytest.raises(FeaturesError, match="photo-3"):
        prism.transform(photos)


def test_another_width_or_no_fit_is_refused():
    prism = Prism().fit(scene())
    with pytest.raises(PrismError, match="width 32, got \\(3, 3, 8\\)"):
        prism.transform([np.zeros((3, 3, 8))])
    with pytest.raises(PrismError, match="not fitted"):
        Prism().transform(scene())
    with pytest.raises(PrismError, match="not fitted"):
        Prism().save("nowhere.safetensors")


def test_a_photo_beyond_the_fitted_range_is_clipped():
    prism = Prism().fit(scene())
    part = prism.split(scene()[0] * 4 - 9)
    assert part.score.min() >= 0
    assert part.rgb.max() <= 1
    assert part.rgb_all.max() <= 1


# -------------------------------------------------------------------- the file


@pytest.fixture
def saved(tmp_path):
    prism = Prism(scaling="percentile").fit(scene())
    prism.origin = {"model": "some", "framing": {"size": 448}}
    path = tmp_path / "some.prism"
    prism.save(path)
    return prism, path


def test_a_loaded_prism_gives_the_same_bytes_in_another_process(saved, tmp_path):
    prism, path = saved
    photos = scene(seed=7)
    np.savez(tmp_path / "photos.npz", *photos)
    program = (
        "import sys, hashlib, numpy as np; from patchprism.prism.estimator import Prism\n"
        "photos = np.load(sys.argv[2]); prism = Prism.load(sys.argv[1]); digest = hashlib.sha256()\n"
        "for name in photos: part = prism.split(photos[name]); "
        "[digest.update(a.tobytes()) for a in (part.score, part.foreground, part.rgb, part.rgb_all)]\n"
        "print(digest.hexdigest())"
    )
    command = [sys.executable, "-c", program, str(path), str(tmp_path / "photos.npz")]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    digest = hashlib.sha256()
    for photo in photos:
        part = prism.split(photo)
        for array in (part.score, part.foreground, part.rgb, part.rgb_all):
            digest.update(array.tobytes())
    assert theirs == digest.hexdigest()


def test_saving_what_was_loaded_gives_the_same_file(saved, tmp_path):
    prism, path = saved
    loaded = Prism.load(path)
    loaded.save(tmp_path / "again.prism")
    assert (tmp_path / "again.prism").read_bytes() == path.read_bytes()
    assert loaded.summary() == prism.summary()
    assert loaded.origin == prism.origin


def test_the_layout_of_the_file_is_pinned(tmp_path):
    """Names, shapes, types and the header are what other programs read. A change here needs a new version."""
    Prism(foreground="none").fit(scene()).save(tmp_path / "pinned.prism")
    tensors = load_file(tmp_path / "pinned.prism")
    assert {name: (tensor.shape, tensor.dtype.str) for name, tensor in tensors.items()} == {
        "all_range": ((2, 3), "<f8"),
        "object_components": ((8, 32), "<f8"),
        "object_mean": ((32,), "<f8"),
        "object_range": ((2, 8), "<f8"),
        "object_ratio": ((8,), "<f8"),
        "object_variance": ((8,), "<f8"),
        "scene_components": ((8, 32), "<f8"),
        "scene_mean": ((32,), "<f8"),
        "scene_ratio": ((8,), "<f8"),
        "scene_variance": ((8,), "<f8"),
        "score_histogram": ((256,), "<i8"),
        "score_range": ((2,), "<f8"),
    }
    raw = (tmp_path / "pinned.prism").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert list(header) == ["patchprism"]
    content = json.loads(header["patchprism"])
    assert content["version"] == 2
    assert content["options"] == {
        "threshold": "auto",
        "foreground": "none",
        "scaling": "minmax",
        "components": [1, 2, 3],
    }
    assert content["learned"]["threshold"] is None
    assert content["learned"]["side"] == "none"


def rewrite(path, change):
    """The file with its tensors and header changed by ``change(tensors, header)``."""
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    tensors, header = load_file(path), json.loads(metadata["patchprism"])
    change(tensors, header)
    save_file(tensors, path, {"patchprism": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, h: h.update(version=4), "version 4, this PatchPrism reads up to version 3"),
        (lambda t, h: t.pop("object_mean"), "lacks object_mean"),
        (lambda t, h: t.update(object_mean=np.zeros(31)), "object_mean has shape"),
        (lambda t, h: t.update(object_mean=np.zeros(32, np.float32)), "object_mean has shape"),
        (lambda t, h: t.update(scene_mean=np.full(32, np.nan)), "or NaN"),
        (lambda t, h: t.update(all_range=np.zeros(6)), "all_range has shape"),
        (lambda t, h: h["options"].update(threshold=7), "threshold"),
        (lambda t, h: h["options"].update(surprise=1), "surprise"),
        (lambda t, h: h["learned"].update(side="left"), "side 'left'"),
        (lambda t, h: h["learned"].update(threshold=None), "threshold nan"),
        (lambda t, h: h["learned"].update(n_photos="many"), "header does not fit"),
        (lambda t, h: h["learned"].pop("border_share"), "border_share"),
        (lambda t, h: h.update(origin=3), "header does not fit"),
        (lambda t, h: h.pop("learned"), "learned"),
    ],
)
def test_a_hostile_or_damaged_prism_is_refused_by_name(saved, change, words):
    _, path = saved
    rewrite(path, change)
    with pytest.raises(PrismError, match=words) as caught:
        Prism.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"not a prism", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}"]
)
def test_other_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / "x.prism"
    path.write_bytes(content)
    with pytest.raises(PrismError, match="not a prism, or damaged"):
        Prism.load(path)


def test_a_missing_prism_a_folder_and_another_safetensors_file_have_different_errors(tmp_path):
    with pytest.raises(PrismError, match="no such prism file"):
        Prism.load(tmp_path / "none.prism")
    with pytest.raises(PrismError, match="no such prism file"):
        Prism.load(tmp_path)
    save_file({"a": np.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(PrismError, match="but not a prism"):
        Prism.load(tmp_path / "other.safetensors")


def test_a_truncated_prism_is_refused(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PrismError, match="damaged"):
        Prism.load(path)


# -------------------------------------------------------------------- as scikit-learn uses it


def test_a_clone_has_equal_options_and_no_fit():
    prism = Prism(scaling="percentile", components=(2, -1, 3), opening=1).fit(scene())
    prism.origin = {"model": "some"}
    for fresh in (clone(prism), Prism(**prism.get_params(deep=False))):
        assert fresh.get_params() == prism.get_params()
        assert vars(fresh) == {**prism.get_params(), "origin": {}, "agreements": {}, "masks": {}}
        with pytest.raises(PrismError, match="not fitted"):
            fresh.transform(scene())
    np.testing.assert_array_equal(clone(prism).fit(scene()).object_range_, prism.object_range_)


def test_options_are_set_by_name_and_an_unknown_one_is_refused():
    prism = Prism()
    assert prism.set_params(scaling="sigmoid", threshold=0.4) is prism
    assert (prism.scaling, prism.threshold) == ("sigmoid", 0.4)
    with pytest.raises(OptionError, match=r"no option 'scalin'; it has threshold, foreground, .*closing"):
        prism.set_params(space="oklab", scalin="minmax")
    assert prism.space == "rgb"
    with pytest.raises(OptionError, match="scaling must be one of minmax"):
        prism.set_params(scaling="log").fit(scene())


def test_every_option_is_a_keyword_with_a_check():
    parameters = inspect.signature(Prism).parameters
    assert list(parameters) == list(Prism().get_params()) == [each.name for each in fields(PrismOptions)]
    assert all(option_of(each) for each in fields(PrismOptions))
    assert all(each.kind is each.KEYWORD_ONLY for each in parameters.values())
    Prism().check_options()  # the defaults pass


def test_a_pipeline_fits_and_applies_a_prism():
    photos = np.stack(scene([(10, 12)] * 3))
    pipeline = Pipeline([("double", FunctionTransformer(lambda x: 2 * x)), ("prism", Prism())])
    pipeline.set_params(prism__scaling="sigmoid")
    for colors in (pipeline.fit_transform(photos, None), clone(pipeline).fit(photos).transform(photos)):
        np.testing.assert_array_equal(colors, Prism(scaling="sigmoid").fit(2 * photos).transform(2 * photos))


def test_the_repr_is_one_line_with_the_options_that_differ_from_the_defaults():
    assert repr(Prism()) == "Prism(not fitted)"
    prism = Prism(scaling="sigmoid", components=(2, 1, 3))
    assert repr(prism) == "Prism(scaling='sigmoid', components=(2, 1, 3), not fitted)"
    prism.set_params(components=np.array([[2], [1], [3]]), mask_threshold=0.25)
    assert repr(prism) == (
        "Prism(scaling='sigmoid', components=array([[2], [1], [3]]), mask_threshold=0.25, not fitted)"
    )
    assert repr(Prism(opening=1).fit(scene())) == "Prism(opening=1, fitted on 4 photos)"


def test_a_fit_that_fails_keeps_the_earlier_fit():
    prism = Prism(threshold=0.5, foreground="above").fit(scene())
    before = prism.summary()
    with pytest.raises(PrismError, match="above the threshold 1"):
        prism.set_params(threshold=1.0).fit(scene(seed=5))
    assert prism.set_params(threshold=0.5).summary() == before


def test_a_pass_is_pickled_without_the_estimator():
    """A worker gets only the axes of a fit, so unpickling needs no Prism."""
    prism = Prism().fit(scene())
    pass_ = ObjectRange(prism.scorer, prism.object_axes)
    assert b"estimator" not in pickle.dumps(pass_)
    with pytest.raises(AttributeError):
        pass_.scorer.threshold = 0.1
