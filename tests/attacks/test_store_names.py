"""Relative names of photos in a store: they are also found from the store's folder, and no other file is opened."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from roads import extract_features, render_photos
from toys import Toy, make_photos

import patchprism
from patchprism.errors import OutputError
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Settings
from patchprism.photos.sources import places_for, read_source, read_stored, stored_paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with photos and a store with names relative to it; tests run in another folder."""
    home = tmp_path / "home"
    make_photos(home / "photos", 2)
    monkeypatch.chdir(home)
    with open_engine() as engine:
        extract_features(["photos"], "f.zarr", settings=Settings(size=48), backbone=Toy(), engine=engine)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    return home


def render(store, out, **options):
    with open_engine() as engine:
        return render_photos([store], out, settings=Settings(), engine=engine, **options)


@pytest.mark.parametrize(
    "spelt", ["../home/f.zarr", "../home/f.zarr/", "file://{home}/f.zarr", "{home}/f.zarr"]
)
def test_photos_are_found_from_the_stores_folder(home, tmp_path, spelt):
    store = spelt.format(home=home)
    view = patchprism.visualize([store])
    assert view.gone == []
    np.testing.assert_array_equal(view.photos.read(0), read_source(str(home / "photos" / "p0000.png")))
    if spelt.startswith("../home/f.zarr/"):
        outcome = render(store, tmp_path / "out", overlay_alpha=0.5)
        assert outcome.missing == 0
        assert (tmp_path / "out" / "p0001.overlay.png").is_file()


def test_they_are_found_after_a_move_and_by_a_worker_elsewhere(home, tmp_path, monkeypatch):
    moved = shutil.move(home, tmp_path / "moved")
    places = pickle.loads(pickle.dumps(places_for("../moved/f.zarr")))
    monkeypatch.chdir("/")
    photo = read_stored("photos/p0000.png", (48, 64), places)
    np.testing.assert_array_equal(photo, read_source(f"{moved}/photos/p0000.png"))


def test_the_working_directory_comes_first_and_other_photos_are_not_used(home):
    make_photos(Path("photos"), 2)
    assert read_stored("photos/p0000.png", (48, 64), places_for(home / "f.zarr")) is not None
    Image.new("RGB", (64, 48), (1, 2, 3)).save("photos/p0000.png")
    found = read_stored("photos/p0000.png", (48, 64), places_for(home / "f.zarr"))
    assert found[0, 0].tolist() == [1, 2, 3]
    # A photo of another size is not the photo of the store.
    Image.new("RGB", (65, 48), (1, 2, 3)).save("photos/p0000.png")
    found = read_stored("photos/p0000.png", (48, 64), places_for(home / "f.zarr"))
    np.testing.assert_array_equal(found, read_source(str(home / "photos" / "p0000.png")))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../../etc/passwd",
            "../../../../../../etc/passwd",
            "/etc/passwd",
            "/dev/zero",
            "/dev/stdin",
            "..",
            ".",
            "",
        ),
        *("pipe", "photos", "f.zarr/zarr.json", "f.zarr", "a\0b", "photos/p0000.png/x", "x" * 5000),
        *("file:///etc/passwd", "http://127.0.0.1:1/a.png", "zip://x.png::http://127.0.0.1:1/a.zip"),
    ],
)
def test_no_name_opens_anything_but_a_photo(home, name):
    os.mkfifo(home / "pipe")
    assert read_stored(name, (48, 64), places_for(home / "f.zarr")) is None


def test_absolute_names_and_remote_stores_have_only_one_place(home):
    assert stored_paths("/a/b.png", places_for(home / "f.zarr")) == [Path("/a/b.png")]
    assert stored_paths("b.png", places_for("s3://bucket/f.zarr")) == [Path("b.png")]
    assert stored_paths("b.png", frozenset()) == [Path("b.png")]


def test_pictures_never_replace_a_stores_photo(home, tmp_path):
    """The photo has the name of a figure and is in the output folder."""
    photos = home / "photos"
    (photos / "p0000.png").rename(photos / "results.png")
    os.chdir(home)
    with open_engine() as engine:
        extract_features(["photos"], "g.zarr", settings=Settings(size=48), backbone=Toy(), engine=engine)
    os.chdir(tmp_path / "else")
    before = (photos / "results.png").read_bytes()
    with pytest.raises(OutputError, match="it is one of the photos of this job"):
        render(home / "g.zarr", photos)
    with pytest.raises(OutputError, match="it is one of the photos of this job"):
        patchprism.visualize([home / "g.zarr"]).save(photos)
    assert (photos / "results.png").read_bytes() == before
