"""A file or folder that cannot be used is named with the option that gave it: the flag, or the parameter."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from typer.main import get_command

import patchprism
from patchprism.cli.app import app
from patchprism.errors import PatchPrismError

MODEL = ("--model", "efficientnet_lite2", "--size", "32")


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A photo, and files and folders that are no weights, prism, head or masks."""
    folder = tmp_path_factory.mktemp("here")
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(folder / "a.png")
    for name in ("folder", "clip"):
        (folder / name).mkdir()
    shutil.copy(folder / "a.png", folder / "clip" / "1.png")
    shutil.copy(folder / "a.png", folder / "clip" / "2.png")
    (folder / "empty").write_bytes(b"")
    (folder / "empty.json").write_bytes(b"")
    (folder / "text").write_text("hello, this is no file of ours\n" * 9)
    save_file({"a": np.zeros(3)}, folder / "tensors")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(autouse=True)
def _there(here, monkeypatch):
    monkeypatch.chdir(here)


LONG = "x" * 300
TENSORS = {
    "gone": "no such",
    "no/where": "no such",
    "folder": "folder",
    "empty": "the file is empty",
    "text": "",
    "a.png": "",
    "tensors": "",
    "loop": "",
    "pipe": "no such",
    LONG: "file name too long",
}
MASKS = {
    "gone": "no such folder of masks",
    "folder": "holds no mask",
    "text": "not a folder",
    "loop": "cannot be read (too many levels of symbolic links)",
    LONG: "cannot be read (file name too long)",
}
COCO = {"gone.json": "no such file", "empty.json": "not a COCO file", "folder.json": "no such file"}
WRITTEN = {"folder": "it is a folder", "no/where": "folder", "text/x": "folder"}
READ = [
    (("render", "a.png"), "--weights", TENSORS),
    (("render", "a.png"), "--prism", TENSORS),
    (("render", "a.png"), "--head", TENSORS),
    (("render", "a.png"), "--mask", MASKS | COCO),
    (("fit", "a.png", "-o", "a.prism"), "--mask", MASKS | COCO),
    (("fit", "a.png", "-o", "a.prism"), "--head", TENSORS),
    (("features", "a.png", "-o", "a.zarr"), "--weights", TENSORS),
    (("teach", "a.png", "-o", "a.head"), "--masks", MASKS | COCO),
    (("evaluate", "a.png"), "--masks", MASKS),
    (("evaluate", "a.png", "--masks", "clip"), "--prism", TENSORS),
    (("explore", "a.png", "--no-open"), "--checkpoint", TENSORS),
    (("compare", "a.png", "--layer", "2,3"), "--weights", TENSORS),
    (("video", "clip", "-o", "v"), "--prism", TENSORS),
    (("video", "clip", "-o", "v"), "--weights", TENSORS),
]
OUTPUTS = [
    (("render", "a.png"), "--out", {"text": "a file, not a folder"}),
    (("explore", "a.png", "--no-open"), "--out", {"text": "a file, not a folder"}),
    (("explore", "a.png"), "--html", WRITTEN),
    (("features", "a.png", "-o", "a.zarr"), "--flat", WRITTEN),
    (("evaluate", "a.png", "--masks", "clip"), "--json", {"folder": "it is a folder", "text/x": "folder"}),
    (("fit", "a.png"), "--out", {"folder": "it is a folder", "text/x": "folder"}),
    (("teach", "a.png", "--masks", "clip"), "--out", {"folder": "it is a folder", "text/x": "folder"}),
    (("video", "clip", "-o", "v"), "--save-prism", WRITTEN),
    (("video", "clip"), "--out", {"no/where.mp4": "folder"}),
]


@pytest.mark.parametrize(("command", "flag", "problems"), READ, ids=lambda each: str(each)[:24])
def test_what_an_option_reads_is_named_with_its_flag(run, command, flag, problems):
    for path, words in problems.items():
        result = run(*command, *MODEL, flag, path)
        assert result.code == 1, path
        assert result.err.startswith(f"error: {flag} '{path[:9]}"), result.err
        assert (words in result.err, result.err.count("\n"), result.out) == (True, 1, ""), result.err
        assert len(result.err.removeprefix(f"error: {flag} '{path}': ")) > 9 or path == LONG, result.err


@pytest.mark.parametrize(("command", "flag", "problems"), OUTPUTS, ids=lambda each: str(each)[:24])
def test_what_an_option_writes_is_named_with_its_flag(run, command, flag, problems):
    for path, words in problems.items():
        result = run(*command, *MODEL, flag, path)
        assert (result.code, result.err.count("\n"), result.out) == (1, 1, ""), (path, result.err)
        assert result.err.startswith(f"error: cannot write {flag} '{path}': "), result.err
        assert words in result.err


def test_a_folder_of_a_model_is_named_with_its_flag(run):
    for name in ("hf:./gone", "hf:./a.png", "hf:./folder"):
        result = run("render", "a.png", "--model", name)
        assert result.err.startswith(f"error: --model '{name}': "), result.err


def test_the_library_names_the_parameter():
    for path in ("gone", "folder", "empty", "text", "tensors", "pipe", LONG):
        with pytest.raises(PatchPrismError) as caught:
            patchprism.load_backbone("efficientnet_lite2", weights=path)
        assert str(caught.value).startswith(f"weights '{path}': ")
    for path in (*MASKS, *COCO):
        with pytest.raises(PatchPrismError) as caught:
            patchprism.visualize("a.png", model="efficientnet_lite2", size=32, masks=path)
        assert str(caught.value).startswith(f"masks '{path}': ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(run, tmp_path):
    path = tmp_path / "closed"
    path.write_text("closed")
    path.chmod(0)
    for flag in ("--weights", "--prism", "--head"):
        result = run("render", "a.png", *MODEL, flag, path)
        assert result.err == f"error: {flag} '{path}': cannot be read (permission denied)\n"


def test_a_file_of_a_photo_is_no_file_of_an_option(run):
    shutil.copy("text", "b.png")
    result = run("render", "b.png", *MODEL, "--out", "out", "--labels", "b.png")
    assert result.err.startswith("error: b.png: "), result.err


@pytest.mark.parametrize(
    "name", ["it's.pth", 'the "best".pth', "both'\".pth", "two  spaces", "a: b", "[a-z]+"]
)
def test_odd_names_are_named(name):
    error = PatchPrismError(f"{name}: no such file")
    error.name_option("--prism", "x")
    assert str(error) == f"{name}: no such file"
    error.name_option("--prism", name)
    assert str(error) == f"--prism {name!r}: no such file"
    # A library that names the parameter already.
    error = PatchPrismError(f"weights {name!r}: no such file")
    error.name_option("--checkpoint", name)
    assert str(error) == f"--checkpoint {name!r}: no such file"


def test_every_option_that_takes_a_path_is_tried():
    tried = {flag for _, flag, _ in (*READ, *OUTPUTS)} | {"--model"}
    options = {
        max(option.opts, key=len): option.metavar
        for command in get_command(app).commands.values()
        for option in command.params
        if option.param_type_name == "option" and option.metavar
    }
    assert {flag for flag, value in options.items() if re.search(r"FILE|DIR|STORE|OUT", value)} <= tried
