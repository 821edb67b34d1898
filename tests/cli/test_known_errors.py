"""Common errors, each with advice."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from patchprism.errors import OptionError, PhotoError, WeightsError
from patchprism.photos import paths

SMALL = ("--model", "efficientnet_lite2", "--size", "64")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder to work in, with a photo."""
    Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "missing", "meant"),
    [
        (("my", "photos"), "my", "my photos"),
        (("my", "photos/a", "b.png"), "my", "my photos"),
        (("my photos/a", "b.png"), "my photos/a", "my photos/a b.png"),
        (("a.png", "old", "dog.jpg"), "old", "old dog.jpg"),
        (("a.png", "dog.jpg"), "dog.jpg", "old dog.jpg"),
        (("my/",), "my", "my photos"),
    ],
)
def test_a_path_that_the_shell_has_split_should_be_quoted(run, here, given, missing, meant):
    (here / "my photos").mkdir()
    (here / "my photos" / "a b.png").write_bytes(b"")
    (here / "old dog.jpg").write_bytes(b"")
    result = run("render", *given, *SMALL)
    said = f'{missing}: no such file or folder; is it "{meant}"? Paths with spaces need quotes'
    assert (result.code, result.err) == (1, f"error: {said}\n")


@pytest.mark.parametrize("given", ["none.png", "ol", "nowhere/x.png", "og.jpg"])
def test_other_missing_paths_do_not_get_this_advice(run, here, given):
    (here / "old dog.jpg").write_bytes(b"")
    assert run("render", given, *SMALL).err == f"error: {given}: no such file or folder\n"


def test_a_clip_with_a_space_in_its_name_should_be_quoted(run, here):
    result = run("video", "my", "clip.mp4", "--out", "o.mp4", *SMALL)
    assert result.code == 2
    assert "(clip.mp4); paths with spaces need quotes" in result.err


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        (False, "not a readable image (HEIC: pip install 'patchprism[heif]')"),
        (True, "not a readable image (JPEG, PNG, WebP, TIFF, GIF, BMP, JPEG 2000 or AVIF)"),
    ],
)
def test_a_heic_file_names_the_extra_that_reads_it(here, monkeypatch, installed, said):
    from patchprism.photos.images import read_photo

    monkeypatch.setattr(paths, "find_spec", lambda name: installed or None)
    for name in ("x.heic", "X.HEIF"):
        (here / name).write_bytes(b"no image at all")
        with pytest.raises(PhotoError) as refused:
            read_photo(name)
        assert str(refused.value) == f"{name}: {said}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lens", "similarity"), "the lens similarity needs a point: --at PHOTO:x,y"),
        (
            ("--lens", "similarity", "--at", "a 1 2"),
            "--at must be PHOTO:x,y with x and y in the photo's pixels",
        ),
        (
            ("--lens", "similarity", "--at", "b:1,2"),
            "--at: no photo is called 'b'; choose from a.png, or a num",
        ),
        (
            ("--lens", "similarity", "--at", "a:99,2"),
            "--at: 'a:99,2' is outside a.png, which has 64 x 64 pixels",
        ),
        (("--at", "a:1,2"), "--at is only for the lenses similarity and attention"),
    ],
)
def test_points_are_named_as_they_are_typed(run, here, options, said):
    result = run("render", "a.png", *SMALL, *options)
    assert result.code == 1
    assert result.err.startswith(f"error: {said}")


def test_compare_asks_for_two_models_or_layers(run, here):
    result = run("compare", "a.png", *SMALL)
    said = "compare needs at least two models or two layers, for example --layer 4,8"
    assert (result.code, result.err) == (1, f"error: {said}\n")


@pytest.mark.parametrize(
    ("option", "typed", "meant"),
    [
        ("--overlay", "60", "; did you mean 0.6?"),
        ("--overlay", "5", "; did you mean 0.05?"),
        ("--overlay", "4", ""),
        ("--overlay", "100", "; did you mean 1?"),
        ("--overlay", "1.5", ""),
        ("--overlay", "101", ""),
        ("--overlay", "-60", ""),
        ("--threshold", "60", "; did you mean 0.6?"),
        ("--dpi", "5", ""),
    ],
)
def test_percentages_are_recognised(run, here, option, typed, meant):
    result = run("render", "a.png", *SMALL, option, typed)
    number = f"{float(typed)}" if option != "--dpi" else typed
    assert result.code == 1
    assert result.err.startswith(f"error: {option} must be ")
    assert result.err.endswith(f", got {number}{meant}\n")


def test_percentages_are_recognised_in_python(here):
    import patchprism

    with pytest.raises(OptionError, match=r"threshold must be .* got 60; did you mean 0\.6\?"):
        patchprism.visualize(["a.png"], threshold=60)


def test_a_hub_that_never_answers_times_out_soon(monkeypatch):
    """The lookup of a name and the attempts to reach each address of a server have no common time limit."""
    import huggingface_hub.utils

    from patchprism.backbones import hub_files, load_backbone

    asked, ended = threading.Event(), threading.Event()

    def head(*_, **__):
        asked.set()
        ended.wait()

    monkeypatch.setattr(hub_files, "_PATIENCE_S", 0.05)
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: SimpleNamespace(head=head))
    hub_files._hub_answers.cache_clear()
    try:
        with pytest.raises(
            WeightsError, match=r"and the hub cannot be reached; run `patchprism download hf:a/b`"
        ):
            load_backbone("hf:a/b")
        assert asked.is_set()
    finally:
        ended.set()
        hub_files._hub_answers.cache_clear()
