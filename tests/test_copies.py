"""Results of jobs can be copied and pickled, and the copy gives the same results."""

from __future__ import annotations

import copy
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import Toy, make_photos

import patchprism
from patchprism.features.patch_features import PatchFeatures
from patchprism.features.store import StoredFeatures
from patchprism.lenses.looking import look_through
from patchprism.lenses.options import LensOptions
from patchprism.prism.estimator import Prism

COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda each: pickle.loads(pickle.dumps(each)),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return sorted(make_photos(tmp_path_factory.mktemp("photos"), 2).iterdir())


@pytest.fixture(scope="module")
def view(files):
    """Photos given as paths, images and arrays, one of which was already displayed."""
    photos = [files[0], Image.open(files[1]), np.asarray(Image.open(files[0]))]
    made = patchprism.visualize(photos, backbone=Toy(), size=48)
    made.picture(0, overlay_alpha=0.5)
    return made


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


def written(view, folder, **options):
    view.save(folder, overlay_alpha=0.5, arrays=True, **options)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "report.json"}


def test_a_view(view, copied, tmp_path):
    twin = copied(view)
    assert twin is not view
    assert twin.report() == view.report()
    assert written(twin, tmp_path / "twin") == written(view, tmp_path / "view")
    assert twin.explore().message.to_bytes() == view.explore().message.to_bytes()


def test_a_view_of_a_store(copied, tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "fixtures" / "version-1.zip") as file:
        file.extractall(tmp_path)
    make_photos(tmp_path / "photos", 3)
    view = patchprism.visualize([tmp_path / "toy.zarr"])
    twin = copied(view)
    assert written(twin, tmp_path / "twin") == written(view, tmp_path / "view")
    assert twin.gone == view.gone == []


def test_a_prism(view, copied, tmp_path):
    copied(view.prism).save(tmp_path / "twin")
    view.prism.save(tmp_path / "prism")
    assert (tmp_path / "twin").read_bytes() == (tmp_path / "prism").read_bytes()
    assert repr(copied(Prism(opening=2))) == repr(Prism(opening=2))


def test_features(view, copied):
    twin = copied(view.features)
    assert isinstance(twin, PatchFeatures)
    assert (twin.names, twin.grids) == (view.features.names, view.features.grids)
    for mine, theirs in zip(twin, view.features, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_stored_features(copied, tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "fixtures" / "version-1.zip") as file:
        file.extractall(tmp_path)
    store = StoredFeatures(tmp_path / "toy.zarr")[1:]
    twin = copied(store)
    assert isinstance(twin, StoredFeatures)
    assert (twin.names, twin.origin, twin.model) == (store.names, store.origin, store.model)
    for mine, theirs in zip(twin, store, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_lens_results(view, copied, upsample, tmp_path):
    options = LensOptions(at=("1:20,20",), clusters=3, upsample=upsample)
    found = look_through(view, ["similarity", "matches", "clusters", "norm", "score"], options)
    twins = copied(found)
    assert [each.report for each in twins] == [each.report for each in found]
    mine = written(view, tmp_path / "twin", lenses=twins)
    assert mine == written(view, tmp_path / "view", lenses=found)
    assert "clusters.png" in mine


class Seeing(Toy):
    """A network with attention that cannot be copied."""

    has_attention = True

    def _has_class_token(self):
        return True

    def attention(self, pixels, *, layer=-1, query="cls"):
        h, w = (side // self.record.patch_size for side in pixels.shape[-2:])
        return torch.linspace(0, 1, 2 * h * w).reshape(1, 2, h, w)

    def rollout(self, pixels, query="cls"):
        return self.attention(pixels)[:, 0]

    def __getstate__(self):
        raise AssertionError("results hold the network")


def test_attention(view, copied, tmp_path):
    found = look_through(view, ["attention"], LensOptions(at=("1:20,20",)), backbone=Seeing())
    twins = copied(found)
    mine = written(view, tmp_path / "twin", lenses=twins)
    assert mine == written(view, tmp_path / "view", lenses=found)


def test_a_page(view, copied, tmp_path):
    page = view.explore(title="dogs")
    assert copied(page).html == page.html
