"""Signs of components: like scikit-learn's if they are clear, and stable under small changes if they are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from patchprism import Prism
from patchprism.prism.moments import NEAR_TIE, fix_signs
from patchprism.prism.pca import StreamingPCA

WIDTH = 64


def tied_axes(kind, rng):
    """Three orthonormal axes, each with two or more loadings of nearly the same size and opposite signs."""
    axes = np.zeros((3, WIDTH))
    for n, axis in enumerate(axes):
        place = slice(n * 20, n * 20 + 20)  # disjoint, so that they are orthogonal
        small = np.abs(rng.normal(size=20)) * 0.3
        if kind == "two":
            small[3], small[11] = 1.0, -1.0
        elif kind == "neighbours":
            small[7], small[8] = 1.0, -1.0
        elif kind == "negative":
            small = -small
            small[3], small[11] = 1.0, -1.0
        elif kind == "many":
            small = np.where(np.arange(20) % 3 == 0, -1.0, 1.0) + rng.normal(size=20) * 0.01
        axis[place] = small / np.linalg.norm(small)
    return axes


def tied_features(kind, seed):
    """Photos whose scene PCA, and object PCA, have nearly tied loadings."""
    rng = np.random.default_rng(seed)
    axes = tied_axes(kind, rng)
    # Skewed along the first axis, so that there is a foreground, with clearly different deviations.
    score = rng.normal(size=(4, 12, 12)) + 8 * (rng.random((4, 12, 12)) < 0.4)
    others = rng.normal(size=(4, 12, 12, 2)) * [2.0, 1.0]
    values = np.concatenate([3 * score[..., None], others], axis=-1)
    return list((values @ axes + rng.normal(size=(4, 12, 12, WIDTH)) * 0.02).astype(np.float32))


def changed(features):
    rng = np.random.default_rng(9)
    spread = np.std(np.concatenate([each.reshape(-1, WIDTH) for each in features]))
    tensors = [torch.from_numpy(each) for each in features]
    yield "bfloat16", [each.bfloat16() for each in tensors]
    yield "float16", [each.half() for each in tensors]
    yield "float64", [each.double() for each in tensors]
    yield "order", features[::-1]
    for share in (0.01, 0.03):
        for n in range(4):
            noise = [rng.normal(size=each.shape) * spread * share for each in features]
            yield f"noise {share} {n}", [each + more for each, more in zip(features, noise, strict=True)]


@pytest.mark.parametrize("kind", ["two", "neighbours", "negative", "many"])
@pytest.mark.parametrize("seed", range(6))
def test_near_ties_do_not_flip(kind, seed):
    features = tied_features(kind, seed)
    ours = Prism(foreground="none").fit(features)
    split = Prism(threshold=0.5, foreground="above").fit(features)
    for what, others in changed(features):
        for fitted, options in (
            (ours, {"foreground": "none"}),
            (split, {"threshold": 0.5, "foreground": "above"}),
        ):
            again = Prism(**options).fit(others)
            for name in ("scene_components_", "object_components_"):
                cosine = (getattr(fitted, name)[:2] * getattr(again, name)[:2]).sum(axis=1)
                clear = np.abs(cosine) > 0.9
                assert clear[0], (what, name, cosine)
                assert (cosine[clear] > 0).all(), (what, name, cosine)


@pytest.mark.parametrize("kind", ["two", "many"])
def test_threads_and_batches_do_not_flip_near_ties(kind):
    rows = np.concatenate([each.reshape(-1, WIDTH) for each in tied_features(kind, 3)])
    whole = StreamingPCA(3).fit(rows).components_
    with threadpool_limits(1):
        np.testing.assert_allclose(StreamingPCA(3).fit(rows).components_, whole, atol=1e-4)
    parts = StreamingPCA(3)
    for part in np.array_split(rows[::-1], 7):
        parts.partial_fit(part)
    np.testing.assert_allclose(parts.components_, whole, atol=1e-4)


def test_clear_signs_equal_scikit_learns():
    rng = np.random.default_rng(0)
    agreed = 0
    for _ in range(40):
        rows = rng.normal(size=(200, 12)) @ rng.normal(size=(12, 12))
        for ours, theirs in zip(
            StreamingPCA(5).fit(rows).components_,
            PCA(5, svd_solver="covariance_eigh").fit(rows).components_,
            strict=True,
        ):
            if abs(theirs.max() + theirs.min()) >= NEAR_TIE * np.abs(theirs).max() + 1e-9:
                np.testing.assert_allclose(ours, theirs, atol=1e-6)
                agreed += 1
    assert agreed > 100


def test_the_rule_is_an_odd_function_and_only_changes_signs():
    rng = np.random.default_rng(1)
    rows = np.concatenate([rng.normal(size=(500, 9)), np.eye(9), np.array([[1.0, -1.0, *[0.0] * 7]])])
    turned = fix_signs(rows)
    np.testing.assert_array_equal(turned, fix_signs(-rows))
    np.testing.assert_array_equal(np.abs(turned), np.abs(rows))
    np.testing.assert_array_equal(fix_signs(np.zeros((2, 3))), np.zeros((2, 3)))
    assert fix_signs(np.zeros((0, 3))).shape == (0, 3)
