"""Prisms and stores of earlier versions still open, and give the same results."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import patchprism
from patchprism.features.store import StoredFeatures
from patchprism.prism.estimator import Prism

FIXTURES = Path(__file__).parent / "fixtures"
KINDS = ("minmax", "percentile", "sigmoid", "none", "seed", "masked", "lite")


@pytest.fixture(scope="module")
def version_1(tmp_path_factory):
    """Files written by the version of commit d258cf2; see fixtures/make.py."""
    folder = tmp_path_factory.mktemp("version-1")
    with zipfile.ZipFile(FIXTURES / "version-1.zip") as file:
        file.extractall(folder)
    return folder


@pytest.mark.parametrize("kind", ["toy", "lite"])
def test_a_store_of_version_1_opens(version_1, kind):
    store = StoredFeatures(version_1 / f"{kind}.zarr")
    assert store.names == [f"photos/p{i:04d}.png" for i in range(3)]
    assert store.origin["model"] == store.model["name"] == {"toy": "toy", "lite": "efficientnet_lite2"}[kind]
    with np.load(version_1 / "expected.npz") as expected:
        for i, tokens in enumerate(store):
            np.testing.assert_array_equal(tokens, expected[f"{kind}/tokens/{i}"])
    view = patchprism.visualize([version_1 / f"{kind}.zarr"])
    assert len(view) == 3
    assert view.record.patch_size == {"toy": 8, "lite": 16}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_prism_of_version_1_gives_the_same_colours(version_1, kind):
    prism = Prism.load(version_1 / f"{kind}.safetensors")
    store = StoredFeatures(version_1 / ("lite.zarr" if kind == "lite" else "toy.zarr"))
    with np.load(version_1 / "expected.npz") as expected:
        for i, tokens in enumerate(store):
            part = prism.split(tokens)
            # Additions in another order, on another machine, may change a value by one step of its grid.
            np.testing.assert_allclose(part.rgb, expected[f"{kind}/rgb/{i}"], atol=1e-4)
            np.testing.assert_allclose(part.rgb_all, expected[f"{kind}/rgb_all/{i}"], atol=1e-4)
    written = version_1 / "again.safetensors"
    prism.save(written)
    again = Prism.load(written)
    for name, value in vars(prism).items():
        if name == "loaded_from":
            continue
        np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    # "auto" of version 1 is called "pca" now.
    assert again.foreground != "auto"
    assert again.direction_ is None


def test_a_prism_of_version_1_colours_a_store(version_1):
    prism = Prism.load(version_1 / "lite.safetensors")
    view = patchprism.visualize([version_1 / "lite.zarr"], prism=prism)
    with np.load(version_1 / "expected.npz") as expected:
        for i, rgb in enumerate(view.colors):
            np.testing.assert_allclose(rgb, expected[f"lite/rgb/{i}"], atol=1e-4)
    assert prism.origin["sample"] == {"photos": 2, "of": 3, "seed": 0}
