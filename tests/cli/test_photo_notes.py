"""Notes about contents of photos that are not read, and `--range`, on the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from patchprism.features.store import StoredFeatures

MODEL = ("--model", "efficientnet_lite2", "--size", "64")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("patchprism.photos.paths.find_spec", lambda name: None)  # so that HEIC cannot be read
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 4096, (64, 96), dtype=np.uint16)).save(folder / f"p{i}.png")
    (folder / "x.heic").write_bytes(b"x")
    (folder / "y.npy").write_bytes(b"x")
    return folder


def test_render_prints_notes_and_reports_them(run, folder, tmp_path):
    done = run("render", folder, "-o", tmp_path / "out", *MODEL)
    assert done.code == 0, done.err
    assert "note    left out of " in done.out
    assert "1 .npy" in done.out
    assert "note    2 photos (" in done.out
    assert "--range 0,4095" in done.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "1 .npy" in report["notes"][0]
    assert all("nearly black" in photo["notes"][0] for photo in report["photos"])

    quiet = run("render", folder, "-o", tmp_path / "out", "-q", *MODEL)
    assert not [line for line in quiet.out.splitlines() if line.startswith("note")]
    assert "note: 2 photos (" in quiet.err


def test_a_faster_dtype_is_suggested_by_its_flag(run, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.arange(64 * 96 * 3, dtype=np.uint8).reshape(64, 96, 3)).save(tmp_path / "photos/a.png")
    monkeypatch.setattr("patchprism.jobs.network.cpu_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr("patchprism.jobs.network._LONG_S", 0)
    done = run("features", tmp_path / "photos", "-o", tmp_path / "f.zarr", *MODEL)
    assert "about 3 times as fast with --dtype bfloat16" in done.out
    assert "bfloat16" not in str(StoredFeatures(tmp_path / "f.zarr").notes)
    done = run("render", tmp_path / "photos", "-o", tmp_path / "out", *MODEL)
    assert "about 3 times as fast with --dtype bfloat16" in done.out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "bfloat16" in report["notes"][0]
    assert report["settings"]["dtype"] == "float32"

    done = run("render", tmp_path / "photos", "-o", tmp_path / "out", *MODEL, "--dtype", "bfloat16")
    assert "note" not in done.out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["settings"]["dtype"] == "bfloat16"
    done = run("render", tmp_path / "f.zarr", "-o", tmp_path / "of_store")
    assert "bfloat16" not in done.out  # no network ran


def test_compare_prints_notes(run, folder, tmp_path):
    done = run("compare", folder, "-o", tmp_path / "c", *MODEL, "--layer", "3,-1")
    assert "note    2 photos (" in done.out
    report = json.loads((tmp_path / "c" / "compare.json").read_text())
    assert "1 .npy" in report["notes"][0]
    assert all("nearly black" in photo["notes"][0] for photo in report["photos"])
    done = run("compare", folder, "-o", tmp_path / "c", *MODEL, "--layer", "3,-1", "--range", "0,4095")
    assert "nearly black" not in done.out


def test_a_range_from_the_command_line(run, folder, tmp_path):
    for command, out in (("render", "r"), ("features", "f.zarr"), ("fit", "p.prism")):
        done = run(command, folder, "-o", tmp_path / out, *MODEL, "--range", "-100,4095")
        assert done.code == 0, done.err
        assert "nearly black" not in done.out
    done = run("explore", folder, "--html", tmp_path / "a.html", *MODEL, "--range", "-100,4095", "-q")
    assert done.code == 0, done.err
    assert "nearly black" not in done.err
    for text in ("x", "1", "2,1", "nan,1", "1,2,3"):
        done = run("render", folder, "-o", tmp_path / "bad", *MODEL, "--range", text)
        assert done.code == 1
        assert "range must be two numbers" in done.err


def test_video_of_wide_photos(run, folder, tmp_path):
    pytest.importorskip("av")
    done = run("video", folder, "-o", tmp_path / "a.mp4", *MODEL)
    assert done.code == 0, done.err
    assert "p0.png: the largest value is" in done.err
    assert "left out of" in done.err
    done = run("video", folder, "-o", tmp_path / "a.mp4", *MODEL, "--range", "0,4095")
    assert "nearly black" not in done.err
    done = run("video", tmp_path / "a.mp4", "-o", tmp_path / "b.mp4", *MODEL, "--range", "0,4095")
    assert done.code == 1
    assert "range is only for sequences of photos" in done.err
