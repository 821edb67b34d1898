"""Each lens against an independent result on features with known content."""

from __future__ import annotations

import csv
import io
from itertools import combinations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors

import patchprism
from patchprism.backbones import Backbone
from patchprism.errors import ModelError, OptionError
from patchprism.lenses.clusters import cluster
from patchprism.lenses.looking import LENSES, check_lenses, look_through, scene_of
from patchprism.lenses.matches import matched, mutual_neighbors
from patchprism.lenses.norm import outlier_threshold, token_norms
from patchprism.lenses.options import LensOptions
from patchprism.lenses.points import patch_center
from patchprism.lenses.similarity import cosine_map


def only(view, name, backbone=None, **options):
    (result,) = look_through(view, [name], LensOptions(**options), backbone=backbone)
    for draw in [*result.figures.values(), *(d for of_photo in result.pictures for d in of_photo.values())]:
        picture = draw()
        assert picture.dtype == np.uint8
        assert picture.ndim == 3
        assert picture.std() > 0
    return result


# -- score and norm ------------------------------------------------------------------------------------------


def test_score_equals_the_prisms(view):
    result = only(view, "score")
    for arrays, score in zip(result.arrays, view.scores, strict=True):
        np.testing.assert_array_equal(arrays["score"], score)
    assert result.report["explained_variance_ratio"] == pytest.approx(view.prism.scene_ratio_[0], abs=1e-6)


def test_score_reports_the_variance_of_the_chosen_component():
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8, 16)) * 0.7 ** np.arange(16)
    view = patchprism.visualize(features=tokens, foreground="above", threshold=0.5, foreground_component=2)
    ratios = view.prism.scene_ratio_
    assert ratios[0] - ratios[1] > 0.01
    assert only(view, "score").report["explained_variance_ratio"] == pytest.approx(ratios[1], abs=1e-6)


def test_norms_and_the_outlier(view):
    tokens = view.features[1]
    tokens[2, 3] *= 50
    result = only(view, "norm")
    np.testing.assert_allclose(result.arrays[1]["norm"], np.linalg.norm(tokens, axis=-1), rtol=1e-5)
    assert result.report["outliers"] >= 1
    assert result.report["photos"][1]["outliers"] >= 1
    assert result.report["photos"][1]["max"] == pytest.approx(np.linalg.norm(tokens[2, 3]), rel=1e-5)


def test_only_added_values_are_outliers_of_a_normal_distribution():
    rng = np.random.default_rng(0)
    norms = rng.normal(10, 1, (40, 40)).astype(np.float32)
    norms.ravel()[::200] = 30
    assert int((norms > outlier_threshold(norms)).sum()) == 8


def test_equal_norms_are_reported_as_flat(view):
    for tokens in view.features:
        tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    result = only(view, "norm")
    assert result.report["flat"] is True
    assert result.report["outliers"] == 0


def test_norms_do_not_overflow():
    assert token_norms(np.full((1, 1, 4), 1e30, np.float32))[0, 0] == pytest.approx(2e30)


# -- similarity ----------------------------------------------------------------------------------------------


def test_similarity_equals_scikit_learns_cosine(view):
    query = view.features[2][3, 4][None]
    maps = [cosine_map(tokens, query[0]) for tokens in view.features]
    for tokens, values in zip(view.features, maps, strict=True):
        expected = cosine_similarity(query, tokens.reshape(-1, tokens.shape[-1]))[0].reshape(values.shape)
        np.testing.assert_allclose(values, expected, atol=1e-5)
    assert maps[2][3, 4] == pytest.approx(1)


def test_similarity_finds_the_part_in_every_photo(view):
    # (5, 2) in patches is blue, in every photo
    result = only(view, "similarity", at=("1:44,20", "photo-3:4,4"), upsample="guided")
    assert set(result.figures) == {"similarity-1", "similarity-2"}
    blue, ground = result.report["points"]
    assert blue["patch"] == [2, 5]
    for told in blue["photos"]:
        x, y = told["best_at"]
        assert 40 <= x < 56, "the blue part lies in columns 5 and 6"
        assert 16 <= y < 32
    assert ground["photo"] == "photo-3"
    arrays = result.arrays[1]
    assert arrays["similarity"].shape == (2, 6, 8)
    inside = np.zeros((6, 8), bool)
    inside[2:4, 5:7] = True
    assert arrays["similarity"][0][inside].min() > arrays["similarity"][0][~inside].max()


def test_the_cosine_of_a_token_of_zeros_is_zero():
    tokens = np.zeros((1, 2, 2, 4), np.float32)
    tokens[0, 0, 0] = 1
    assert not cosine_map(tokens[0], tokens[0, 1, 1]).any()
    assert cosine_map(tokens[0], tokens[0, 0, 0]).sum() == 1


# -- matches -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1 << 24, 40])
def test_mutual_neighbours_equal_scikit_learns(block, monkeypatch):
    monkeypatch.setattr("patchprism.lenses.matches._BLOCK_VALUES", block)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(60, 12)), rng.normal(size=(45, 12))
    found = mutual_neighbors(first, second)
    forth = NearestNeighbors(n_neighbors=1, metric="cosine").fit(second).kneighbors(first)[1][:, 0]
    back = NearestNeighbors(n_neighbors=1, metric="cosine").fit(first).kneighbors(second)[1][:, 0]
    expected = {(i, forth[i]) for i in range(60) if back[forth[i]] == i}
    assert set(zip(found.first, found.second, strict=True)) == expected
    cosine = cosine_similarity(first, second)[found.first, found.second]
    np.testing.assert_allclose(found.similarity, cosine, atol=1e-5)
    assert (np.diff(found.similarity) <= 0).all()


@pytest.mark.parametrize(("n", "m"), [(0, 5), (5, 0), (0, 0)])
def test_empty_sets_have_no_matches(n, m):
    assert len(mutual_neighbors(np.zeros((n, 4)), np.zeros((m, 4))).first) == 0


def test_rows_of_zeros_have_no_matches():
    first = np.array([[0.0, 0.0], [1.0, 0.0]])
    found = mutual_neighbors(first, first)
    assert (list(found.first), list(found.second)) == ([1], [1])


def test_a_permuted_photo_is_matched_to_itself():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(30, 16))
    order = rng.permutation(30)
    found = mutual_neighbors(rows, rows[order])
    assert len(found.first) == 30
    np.testing.assert_array_equal(order[found.second], found.first)


@pytest.mark.parametrize("match_all", [False, True])
def test_the_table_of_matches(view, match_all):
    result = only(view, "matches", match_all=match_all, match_lines=5)
    assert set(result.figures) == {"matches-1-2", "matches-1-3", "matches-2-3"}
    scene = scene_of(view, LensOptions())
    rows = list(csv.DictReader(io.StringIO(result.tables["matches.csv"])))
    assert list(rows[0]) == ["photo_a", "x_a", "y_a", "photo_b", "x_b", "y_b", "similarity"]
    assert len(rows) == sum(pair["matches"] for pair in result.report["pairs"])
    for a, b in combinations(range(3), 2):
        arrays = result.shared_arrays[f"pair_{a + 1}_{b + 1}"]
        ours = [
            row for row in rows if (row["photo_a"], row["photo_b"]) == (f"photo-{a + 1}", f"photo-{b + 1}")
        ]
        assert len(arrays) == len(ours)
        for row, (row_a, column_a, row_b, column_b) in zip(ours, arrays, strict=True):
            assert (float(row["x_a"]), float(row["y_a"])) == pytest.approx(
                patch_center(scene.row(a), row_a, column_a)
            )
            assert (float(row["x_b"]), float(row["y_b"])) == pytest.approx(
                patch_center(scene.row(b), row_b, column_b)
            )
            if not match_all:
                assert view.foreground[a][row_a, column_a]
                assert view.foreground[b][row_b, column_b]
            one, two = view.features[a][row_a, column_a], view.features[b][row_b, column_b]
            assert float(row["similarity"]) == pytest.approx(cosine_similarity([one], [two])[0, 0], abs=1e-5)


# -- clusters ------------------------------------------------------------------------------------------------


def planted(counts=(300, 200, 120, 60), width=8, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(len(counts), width)) * 10
    labels = np.repeat(np.arange(len(counts)), counts)
    return (centers[labels] + rng.normal(size=(len(labels), width))).astype(np.float32), labels


@pytest.mark.parametrize("count", ["auto", 4])
def test_clusters_are_found_largest_first(count):
    rows, labels = planted()
    found = cluster(rows, count)
    assert len(found.centers) == 4
    np.testing.assert_array_equal(found.labels, labels)  # their true numbers are in order of size
    assert found.agreement == pytest.approx(1)
    centers = np.stack([rows[labels == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(found.centers, centers, atol=0.2)


@pytest.mark.parametrize("seed", range(6))
def test_clusters_are_numbered_by_size(seed):
    # Several seeds, because the numbering of one k-means could be its own inverse by chance.
    rows, labels = planted((250, 200, 150, 100, 50), seed=seed)
    np.testing.assert_array_equal(cluster(rows, 5, seed=seed).labels, labels)


def test_the_same_seed_gives_the_same_clusters():
    rows, _ = planted(seed=3)
    rows += np.random.default_rng(1).normal(size=rows.shape).astype(np.float32) * 8
    first, second = cluster(rows, 6), cluster(rows, 6)
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.centers, second.centers)
    assert first.agreement < 1


@pytest.mark.parametrize("count", [5, "auto"])
def test_too_few_different_patches(count):
    rows = np.ones((50, 4), np.float32)
    with pytest.raises(OptionError, match="at most the number of different patches"):
        cluster(rows, count)


@pytest.mark.parametrize("upsample", ["nearest", "guided"])
def test_clusters_of_photos(view, upsample):
    result = only(view, "clusters", clusters=3, upsample=upsample)
    truth = np.zeros((6, 8), int)
    truth[1:-1, 2:5] = 1
    truth[2:4, 5:7] = 2
    for arrays in result.arrays:
        assert adjusted_rand_score(truth.ravel(), arrays["labels"].ravel()) == 1
    # A cluster has the same colour in all photos, and pictures contain no other colours.
    colors = {tuple(bytes.fromhex(color[1:])) for color in result.report["colors"]}
    seen = [draw["clusters"]() for draw in result.pictures]
    assert {tuple(c) for picture in seen for c in np.unique(picture.reshape(-1, 3), axis=0)} == colors
    assert len({tuple(picture[20, 44]) for picture in seen}) == 1


# -- attention -----------------------------------------------------------------------------------------------


def test_attention_equals_the_backbones(transformer, photos):
    view = patchprism.visualize(photos, backbone=transformer, size=56)
    result = only(view, "attention", backbone=transformer, at=("2:30,20",), layer=0)
    framed = view.framing.apply(photos[1])
    pixels = framed.pixels[None]
    arrays = result.arrays[1]
    expected = transformer.attention(pixels, layer=0, query="cls")[0].numpy()
    np.testing.assert_allclose(arrays["cls_heads"], expected, atol=1e-6)
    np.testing.assert_allclose(arrays["cls_mean"], expected.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(arrays["cls_rollout"], transformer.rollout(pixels)[0].numpy(), atol=1e-6)
    h, w = view.features.grids[1]
    patch = (int(20 / 48 * h), int(30 / 64 * w))
    expected = transformer.attention(pixels, layer=0, query=patch)[0].numpy()
    np.testing.assert_allclose(arrays["at1_heads"], expected, atol=1e-6)
    assert "at1_heads" not in result.arrays[0]
    assert set(result.figures) == {"attention", "attention-at-1"}
    assert result.report["heads"] == 3
    for told, head in zip(
        result.report["class_token"][1]["share_to_patches"], arrays["cls_heads"], strict=True
    ):
        assert told == pytest.approx(head.sum(), abs=1e-4)
        assert told < 1


def test_a_network_without_attention_is_named(view):
    backbone = Backbone.from_callable(lambda x: x, patch_size=8, mean=(0,) * 3, std=(1,) * 3, name="mine")
    with pytest.raises(ModelError, match="mine cannot give its attention"):
        only(view, "attention", backbone=backbone)


# -- all lenses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "options", "photos", "message"),
    [
        (["pca", "xray"], {}, 2, "lens must be one of pca, score, norm"),
        (["similarity"], {}, 2, "needs a point: at=PHOTO:x,y"),
        (["pca"], {"at": ("1:2,3",)}, 2, "at is only for the lenses similarity and attention"),
        (["similarity"], {"at": ("dog",)}, 2, "at must be PHOTO:x,y"),
        (["matches"], {}, 1, "needs at least two photos, got 1"),
        (["pca"], {"match_photos": ("1", "2")}, 2, "match_photos is only for the lens matches"),
        (["matches"], {"match_photos": (1, 2)}, 2, "match_photos must be"),
        (["clusters"], {"clusters": 1}, 2, "clusters must be 'auto' or a whole number from 2 to 64, got 1"),
        (["clusters"], {"clusters": 65}, 2, "got 65"),
        (["clusters"], {"clusters": True}, 2, "got True"),
        (["matches"], {"match_lines": 0}, 2, "match_lines must be a whole number of at least 1"),
        (["pca"], {"upsample": "sharp"}, 2, "upsample must be one of"),
    ],
)
def test_refusals(names, options, photos, message):
    with pytest.raises(OptionError, match=message):
        check_lenses(names, LensOptions(**options), photos=photos)


@pytest.mark.parametrize(
    ("named", "photos", "message"),
    [
        (("1",), 3, "needs at least two photos, got 1"),
        (("1", "photo-1"), 3, "needs at least two photos, got 1"),
        (("1", "9"), 3, "match_photos: no photo is called '9'"),
        ((), 201, "match_photos must name the photos to compare if there are more than 200, got 201"),
    ],
)
def test_photos_that_cannot_be_compared(named, photos, message):
    with pytest.raises(OptionError, match=message):
        matched(LensOptions(match_photos=named), [f"photo-{n + 1}" for n in range(photos)])


def test_every_lens_has_its_page():
    from pathlib import Path

    pages = Path(__file__).resolve().parents[2] / "docs" / "lenses"
    for name in LENSES:
        text = (pages / f"{name}.md").read_text("utf-8")
        for heading in ("## What it shows", "## References", "## Pitfalls"):
            assert heading in text, f"{name}.md lacks {heading!r}"
