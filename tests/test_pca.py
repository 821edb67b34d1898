"""StreamingPCA compared with scikit-learn's PCA, with any batches, and on degenerate input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.utils.estimator_checks import parametrize_with_checks

from patchprism.errors import FeaturesError, OptionError
from patchprism.prism.moments import Moments, _tensor_part, fix_signs
from patchprism.prism.pca import StreamingPCA


def spread_rows(n=2000, width=48, *, seed=0, mean=0.0, dtype=np.float32):
    """Rows with a well-separated spectrum: standard deviations 2, 1, 1/2, ... along random directions."""
    rng = np.random.default_rng(seed)
    axes, _ = np.linalg.qr(rng.normal(size=(width, width)))
    deviations = np.maximum(2.0 ** (1 - np.arange(width)), 1e-2)
    return (rng.normal(size=(n, width)) * deviations @ axes.T + mean).astype(dtype)


def reference(rows, k=3):
    return PCA(n_components=k, svd_solver="covariance_eigh").fit(np.asarray(rows, np.float64))


@parametrize_with_checks([StreamingPCA(), StreamingPCA(n_components=1, whiten=True)])
def test_follows_scikit_learns_rules(estimator, check):
    check(estimator)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mean", [0.0, 7.0])
def test_agrees_with_scikit_learn(dtype, mean):
    rows = spread_rows(mean=mean, dtype=dtype)
    ours, theirs = StreamingPCA(n_components=3).fit(rows), reference(rows)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-5)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(ours.explained_variance_ratio_, theirs.explained_variance_ratio_, rtol=1e-5)
    np.testing.assert_allclose(ours.singular_values_, theirs.singular_values_, rtol=1e-5)
    np.testing.assert_allclose(ours.transform(rows), theirs.transform(rows), atol=2e-5)
    assert ours.transform(rows).dtype == dtype


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mean_of_ten_thousand_times_the_spread(dtype):
    rows = spread_rows(mean=2e4, dtype=dtype)
    ours, theirs = StreamingPCA(n_components=3).fit(rows), reference(rows)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-5)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-5)


def test_a_mean_that_jumps_between_blocks():
    """The mean of the second block is 10,000 deviations away along one axis; the other axes must stay accurate."""
    rows = spread_rows(12_288, 16)
    rows[4096:, 0] += 2e4
    ours, theirs = StreamingPCA(n_components=4).fit(rows), reference(rows, 4)
    np.testing.assert_allclose(ours.components_, theirs.components_, atol=1e-4)
    np.testing.assert_allclose(ours.explained_variance_, theirs.explained_variance_, rtol=1e-4)


def test_batches_of_one_and_of_all_agree():
    rows = spread_rows(300)
    ones = StreamingPCA(n_components=3)
    for row in rows:
        ones.partial_fit(row[np.newaxis])
    assert ones.n_samples_seen_ == 300
    np.testing.assert_allclose(ones.components_, StreamingPCA(3).fit(rows).components_, atol=1e-5)
    np.testing.assert_allclose(ones.components_, reference(rows).components_, atol=1e-5)


def test_parts_merge_in_any_order():
    rows = spread_rows(4001, mean=5.0)
    parts = [StreamingPCA(3).fit(part) for part in np.split(rows, [1, 900, 2500])]
    expected = reference(rows)
    for order in itertools.permutations(range(4)):
        merged = StreamingPCA(3)
        for index in order:
            merged.merge(parts[index])
        np.testing.assert_allclose(merged.components_, expected.components_, atol=1e-5)
        np.testing.assert_allclose(merged.mean_, expected.mean_, atol=1e-6)
    assert [part.n_samples_seen_ for part in parts] == [1, 899, 1600, 1501]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_what_arrays_give(dtype):
    rows = spread_rows(5000, mean=3.0)
    tensor = torch.from_numpy(rows).to(dtype)
    pca = StreamingPCA(3).fit(tensor)
    np.testing.assert_allclose(pca.components_, StreamingPCA(3).fit(rows).components_, atol=1e-6)
    coordinates = pca.transform(tensor)
    assert isinstance(coordinates, torch.Tensor)
    assert coordinates.dtype == dtype
    np.testing.assert_allclose(coordinates.numpy(), pca.transform(rows), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tensors_are_read_as_they_are(dtype):
    tensor = torch.from_numpy(spread_rows(500)).to(dtype)
    pca = StreamingPCA(3).fit(tensor)
    np.testing.assert_allclose(pca.components_, reference(tensor.double().numpy()).components_, atol=1e-5)


def test_the_code_for_accelerators_gives_the_same_moments():
    """The code that runs on a GPU, here with tensors on the CPU."""
    rows = spread_rows(4000, mean=1e3)
    count, mean, scatter = _tensor_part(torch.from_numpy(rows))
    expected = Moments(rows.shape[1]).update(rows.astype(np.float64))
    assert count == expected.count
    np.testing.assert_allclose(mean, expected.mean, rtol=1e-7)
    np.testing.assert_allclose(scatter, expected.scatter, atol=1e-4 * expected.scatter.max())


@pytest.mark.parametrize(
    ("rows", "rank"),
    [
        pytest.param(np.full((50, 6), 3.7), 0, id="constant"),
        pytest.param(np.zeros((50, 6)), 0, id="zeros"),
        pytest.param(np.arange(6.0)[np.newaxis], 0, id="one patch"),
        pytest.param(np.eye(6)[:2] * 5, 1, id="fewer patches than components"),
        pytest.param(np.outer(np.arange(50), [1, 2, 0, 0, 1, 1.0]), 1, id="rank one"),
        pytest.param(np.random.default_rng(0).normal(size=(50, 2)) @ np.eye(2, 6), 2, id="rank two"),
        pytest.param(np.random.default_rng(0).normal(size=(50, 6)), 3, id="full rank"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_degenerate_rows_have_a_rank_and_finite_components(rows, rank, dtype):
    principal = Moments(6).update(rows.astype(dtype)).principal(3)
    assert principal.rank == rank
    assert np.isfinite(principal.components).all()
    np.testing.assert_allclose(principal.components @ principal.components.T, np.eye(3), atol=1e-9)
    pca = StreamingPCA(3).fit(rows.astype(dtype))
    assert np.isfinite(pca.transform(rows.astype(dtype))).all()
    assert np.isfinite(pca.explained_variance_ratio_).all()


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_rows_that_are_not_finite_are_refused_and_change_nothing(value, word, kind):
    rows = spread_rows(100, 6)
    pca = StreamingPCA(3).fit(rows)
    before = pca.components_.copy()
    bad = rows.copy()
    bad[41, 2] = value
    with pytest.raises(FeaturesError, match=f"row 41, column 2 .* is {word}"):
        pca.partial_fit(kind(bad))
    assert pca.n_samples_seen_ == 100
    np.testing.assert_array_equal(pca.components_, before)


@pytest.mark.parametrize("value", [0, -1, 7, 2.5, "all"])
def test_n_components_out_of_range_is_refused(value):
    with pytest.raises(OptionError, match="n_components"):
        StreamingPCA(n_components=value).fit(spread_rows(20, 6))


def test_whitened_components_have_unit_variance():
    rows = spread_rows()
    whitened = StreamingPCA(3, whiten=True).fit(rows)
    np.testing.assert_allclose(whitened.transform(rows).std(axis=0, ddof=1), 1.0, rtol=1e-4)
    np.testing.assert_allclose(
        whitened.inverse_transform(whitened.transform(rows)),
        reference(rows).inverse_transform(reference(rows).transform(rows)),
        atol=1e-4,
    )


def test_signs_do_not_depend_on_the_solver():
    components = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    flipped = components * np.array([[1], [-1], [1], [-1], [-1]])
    np.testing.assert_array_equal(fix_signs(components), fix_signs(flipped))


def test_the_order_of_rows_does_not_matter():
    rows = spread_rows(6000, mean=2.0)
    shuffled = rows[np.random.default_rng(1).permutation(len(rows))]
    np.testing.assert_allclose(
        StreamingPCA(3).fit(rows).components_, StreamingPCA(3).fit(shuffled).components_, atol=1e-6
    )


def test_merging_another_width_or_object_is_refused():
    pca = StreamingPCA(2).fit(spread_rows(20, 6))
    with pytest.raises(FeaturesError, match="width 5 into 6"):
        pca.merge(StreamingPCA(2).fit(spread_rows(20, 5)))
    with pytest.raises(OptionError, match="takes a StreamingPCA, got PCA"):
        pca.merge(PCA())
