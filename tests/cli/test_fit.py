"""`patchprism fit`, and `render` with its prism, on the command line."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
from toys import make_photos, tree

from patchprism.prism.estimator import Prism

MODEL = ("--model", "efficientnet_lite2", "--size", "64")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "p", 6)


@pytest.fixture
def fitted(run, photos, tmp_path):
    result = run("fit", photos, "-o", tmp_path / "d.prism", *MODEL)
    assert result.code == 0, result.err
    assert "foreground: score" in result.out
    return tmp_path / "d.prism"


def test_colours_are_those_of_the_fit(run, photos, fitted, tmp_path):
    """Photos that are coloured later, one by one, get the same colours as at the fit."""
    result = run("render", photos, "-o", tmp_path / "all", *MODEL, "--arrays", "--quiet")
    assert result.code == 0, result.err
    one = photos / "p0003.png"
    result = run("render", one, "-o", tmp_path / "one", "--prism", fitted, "--arrays", "--quiet")
    assert result.code == 0, result.err
    with np.load(tmp_path / "all/p0003.npz") as a, np.load(tmp_path / "one/p0003.npz") as b:
        for name in ("score", "rgb", "rgb_all"):
            np.testing.assert_allclose(a[name], b[name], atol=1e-3)
        assert np.mean(a["foreground"] != b["foreground"]) < 0.02


def test_another_model_or_framing_is_refused_by_name(run, photos, fitted, tmp_path):
    command = ("render", photos, "-o", tmp_path / "o", "--prism", fitted)
    result = run(*command, "--size", "96")
    assert result.code == 1
    assert (
        "the prism was fitted with another framing (size): 64, now 96; --force uses it anyway" in result.err
    )
    assert run(*command, "--size", "96", "--force", "--quiet").code == 0


def test_a_prism_from_a_store(run, photos, fitted, tmp_path):
    assert run("features", photos, "-o", tmp_path / "f.zarr", "--tokens", "float32", *MODEL).code == 0
    result = run("fit", tmp_path / "f.zarr", "-o", tmp_path / "e.prism")
    assert result.code == 0, result.err
    a, b = Prism.load(fitted), Prism.load(tmp_path / "e.prism")
    np.testing.assert_array_equal(a.scene_components_, b.scene_components_)
    assert a.origin == b.origin
    result = run(
        "render", tmp_path / "f.zarr", "-o", tmp_path / "o", "--prism", fitted, "--overlay", "0.4", "-q"
    )
    assert result.code == 0, result.err
    assert (tmp_path / "o/p0002.overlay.png").is_file()
    result = run(
        "render", photos, "-o", tmp_path / "p", "--prism", fitted, "--overlay", "0.4", "-q", "--resume"
    )
    assert result.code == 0, result.err
    kept = {name: content for name, content in tree(tmp_path / "o").items() if name.endswith("png")}
    assert kept == {name: content for name, content in tree(tmp_path / "p").items() if name.endswith("png")}


def test_missing_photos_of_a_store(run, photos, tmp_path):
    moved = shutil.copytree(photos, tmp_path / "moved")
    assert run("features", moved, "-o", tmp_path / "f.zarr", *MODEL).code == 0
    (moved / "p0001.png").unlink()
    result = run("render", tmp_path / "f.zarr", "-o", tmp_path / "o", "--overlay", "0.4")
    assert result.code == 0, result.err
    assert "note: 1 photo missing or replaced since the features were extracted: drawn without" in result.err
    assert not (tmp_path / "o/p0001.overlay.png").exists()
    assert (tmp_path / "o/p0001.pca.png").is_file()
    assert (tmp_path / "o/p0002.overlay.png").is_file()
    # Even if no picture needs the photo, the figures do, and show grey instead.
    result = run("render", tmp_path / "f.zarr", "-o", tmp_path / "q", "--format", "jpg")
    said = [line for line in result.err.splitlines() if "missing" in line]
    assert said == [
        "note: 1 photo missing or replaced since the features were extracted: drawn without the photo itself"
    ]
    last = result.out.splitlines()[-1]
    assert last == f"wrote   13 files to {tmp_path}/q; look at {tmp_path}/q/results.jpg first"
    assert len(list((tmp_path / "q").iterdir())) == 13


def test_a_sample_is_seeded_and_reported(run, photos, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        result = run("fit", photos, "-o", tmp_path / name, "--sample", "3", "--seed", seed, *MODEL)
        assert result.code == 0, result.err
        assert f"fitted on 3 of 6 photos, seed {seed}" in result.out
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    assert Prism.load(tmp_path / "a").origin["sample"] == {"photos": 3, "of": 6, "seed": 1}
    result = run("render", photos, "-o", tmp_path / "o", "--sample", "3", "--seed", "1", "-q", *MODEL)
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "o/report.json").read_text())
    assert report["prism"]["sample"] == {"photos": 3, "of": 6, "seed": 1}
    assert report["prism"]["n_photos"] == 3
    assert len(report["photos"]) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["STORE", "--size", "96"], "size is fixed by the feature store (64), got 96"),
        (["STORE", "--model", "dinov2_vits14"], "model is fixed by the feature store"),
        (["STORE", "--weights", "w.pth"], "--weights cannot be used with a feature store"),
        (["STORE", "PHOTOS"], "a feature store must be given alone"),
        (["none.zarr"], "none.zarr: not a feature store"),
        (["PHOTOS", "--threshold", "2"], "threshold must be 'auto', 'otsu' or a number from 0 to 1"),
    ],
)
def test_failures(run, photos, tmp_path, arguments, message):
    run("features", photos, "-o", tmp_path / "f.zarr", *MODEL, "-q")
    names = {"STORE": tmp_path / "f.zarr", "PHOTOS": photos}
    result = run("fit", *[names.get(each, each) for each in arguments], "-o", tmp_path / "d.prism")
    assert result.code == 1
    assert message in result.err
    assert not (tmp_path / "d.prism").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.zarr"]


@pytest.mark.parametrize("command", [("fit", "-o"), ("features", "-o"), ("render", "--resume", "-o")])
def test_an_output_below_a_file_is_an_error(run, photos, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    result = run(command[0], photos, *MODEL, *command[1:], "file/x")
    assert (result.code, result.err) == (
        1,
        "error: cannot write --out 'file/x': file is a file, not a folder\n",
    )


def test_a_full_disk_is_reported_with_the_name_of_the_prism(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replace = os.replace

    def full(source, target):
        if str(target).endswith(".prism"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    result = run("fit", photos, *MODEL, "-o", "d.prism")
    assert (result.code, result.err) == (1, "error: cannot write --out 'd.prism': no space left on device\n")
    assert not list(tmp_path.glob("*.part*"))


def test_help_names_every_option(run):
    result = run("fit", "--help-all")
    assert result.code == 0
    for option in ("--out", "--sample", "--seed", "--engine", "--threshold"):
        assert option in result.out
