"""`patchprism features` on the command line."""

from __future__ import annotations

import numpy as np
import pytest
from toys import make_photos, tree

from patchprism.features.store import StoredFeatures

MODEL = ("--model", "efficientnet_lite2", "--size", "64")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "p", 5)


def test_it_writes_a_store_and_reports_it(run, photos, tmp_path):
    result = run("features", photos, "-o", tmp_path / "f.zarr", *MODEL)
    assert result.code == 0, result.err
    assert "5 with" in result.out
    assert f"{tmp_path}/f.zarr" in result.out
    stored = StoredFeatures(tmp_path / "f.zarr")
    assert len(stored) == 5
    assert stored.dtype == "float16"
    assert stored.model["name"] == "efficientnet_lite2"
    assert len(stored.origin["weights_sha256"]) == 64
    before = tree(tmp_path / "f.zarr")
    result = run("features", photos, "-o", tmp_path / "f.zarr", *MODEL)
    assert result.code == 0
    assert "it was already complete" in result.out
    assert tree(tmp_path / "f.zarr") == before


def test_bad_photos_are_named_and_change_the_exit_code(run, tmp_path):
    folder = make_photos(tmp_path / "p", 3)
    (folder / "bad.jpg").write_text("text")
    result = run("features", folder, "-o", tmp_path / "f.zarr", "--quiet", *MODEL)
    assert result.code == 3
    assert result.out == f"{tmp_path}/f.zarr\n"
    assert "failed: " in result.err
    assert "bad.jpg: not a readable image" in result.err
    assert len(StoredFeatures(tmp_path / "f.zarr")) == 3


def test_flat_table(run, photos, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    result = run(
        "features", photos, "-o", tmp_path / "f.zarr", "--flat", tmp_path / "f.parquet", *MODEL, "-q"
    )
    assert result.code == 0, result.err
    assert result.out.split() == [f"{tmp_path}/f.zarr", f"{tmp_path}/f.parquet"]
    table = pq.read_table(tmp_path / "f.parquet")
    stored = StoredFeatures(tmp_path / "f.zarr")
    assert table.num_rows == stored.n_patches
    first = np.array(table["vector"][0].as_py(), np.float32)
    np.testing.assert_array_equal(first, stored[0][0, 0].astype(np.float32))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.jpg"], 1, "error: nowhere.jpg: no such file or folder"),
        (["PHOTOS", "--tokens", "int8"], 1, "tokens must be one of float16, float32, got 'int8'"),
        (["PHOTOS", "--model", "dinov9"], 1, "unknown model 'dinov9'"),
        (["PHOTOS", "--engine", "spark"], 1, "engine must be one of local, ray, got 'spark'"),
        (["PHOTOS", "--workers", "2"], 1, "workers is only for the engine ray"),
        (
            ["PHOTOS", "--batch-size", "0"],
            1,
            "error: --batch-size must be a whole number of at least 1, got 0",
        ),
        (["PHOTOS", "--batch-size", "x"], 2, "--batch-size"),
        (
            ["PHOTOS", "--flat", "no/such/folder/f.parquet"],
            1,
            "cannot write --flat 'no/such/folder/f.parquet'",
        ),
        ([], 2, "PHOTO"),
    ],
)
def test_failures(run, photos, tmp_path, arguments, code, message):
    arguments = [photos if each == "PHOTOS" else each for each in arguments]
    result = run("features", *arguments, "-o", tmp_path / "f.zarr")
    assert result.code == code
    assert message in result.err
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize("theirs", [".patchprism-work/lock", "zarr.json"])
def test_a_foreign_folder_is_not_changed(run, tmp_path, theirs):
    """Neither the remains of an interrupted render nor another program's Zarr group are a feature store."""
    (tmp_path / "photo.png").write_text("no photo")
    folder = tmp_path / "folder"
    (folder / theirs).parent.mkdir(parents=True)
    (folder / theirs).write_text("{}")
    (folder / "precious.txt").write_text("precious")
    result = run("features", tmp_path / "photo.png", "-o", folder, "--overwrite", *MODEL)
    assert result.code == 1
    assert "the folder holds other files; choose a new one" in result.err
    assert (folder / "precious.txt").read_text() == "precious"
    assert (folder / theirs).exists()


def test_a_store_without_photos_is_removed(run, tmp_path):
    (tmp_path / "photo.png").write_text("no photo")
    assert run("features", tmp_path / "photo.png", "-o", tmp_path / "f.zarr", *MODEL).code == 1
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_help_names_every_option(run):
    result = run("features", "--help-all")
    assert result.code == 0
    for option in ("--out", "--flat", "--tokens", "--overwrite", "--engine", "--workers"):
        assert option in result.out
