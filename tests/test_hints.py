"""Hints about unreliable pictures, which are the same in every job."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from roads import extract_features, fit_prism, render_photos
from toys import Toy

import patchprism
from patchprism.explorer.build import build_message
from patchprism.jobs.engines import open_engine
from patchprism.jobs.hints import hints_about
from patchprism.jobs.network import NETWORK_STAGE, about_dtype
from patchprism.jobs.run import Run
from patchprism.jobs.settings import Settings
from patchprism.photos.resizing import is_plain
from patchprism.prism.estimator import Prism


def planted(inside=True, seed=0):
    """Tokens of photos with a square that does not touch the border; its score is high or low."""
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(3, 10, 10, 12)).astype(np.float32) * 0.1
    axis = np.zeros(12, np.float32)
    axis[0] = 5 if inside else -5
    tokens[:, 3:7, 3:7] += axis
    return tokens


def test_a_clear_side_is_decided_and_needs_no_hint():
    prism = Prism(foreground="pca").fit(planted())
    assert prism.hints() == []
    assert prism.summary()["side_undecided"] is False
    assert "undecided" not in repr(prism) + prism.summary()["side_reason"]


def test_noise_is_undecided_in_summary_repr_and_hint():
    prism = Prism(foreground="pca").fit(
        np.random.default_rng(0).normal(size=(4, 16, 16, 12)).astype(np.float32)
    )
    assert prism.summary()["side_undecided"] is True
    assert prism.summary()["side_reason"].startswith("undecided: ")
    assert "undecided" in repr(prism)
    (hint,) = prism.hints()
    assert "no object was found" in hint
    assert "foreground='above', foreground='below' or foreground='none'" in hint


@pytest.mark.parametrize(
    ("shares", "undecided"),
    [
        ((0.23, 0.24), True),
        ((0.22, 0.25), True),
        ((0.0, 0.0), True),
        ((0.05, 0.4), False),
        ((0.0, 0.1), False),
    ],
)
def test_shares_that_are_too_close_are_undecided(shares, undecided):
    prism = Prism(foreground="pca").fit(planted())
    prism.border_share_ = dict(zip(("above", "below"), shares, strict=True))
    assert prism.undecided_ is undecided
    prism.foreground = "above"
    assert prism.undecided_ is False


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("asked", ["above", "below"])
def test_the_other_side_is_named_if_it_is_the_object(inside, asked):
    tokens = planted(inside)
    found = Prism(foreground="pca").fit(tokens).side_
    prism = Prism(threshold=0.6, foreground=asked).fit(tokens)
    if asked == found:
        assert prism.hints() == []
    else:
        (hint,) = prism.hints()
        assert f"the object seems to lie {found} the threshold" in hint
        assert hint.endswith(f"try foreground={found!r}")
        prism.mask_side = found
        assert prism.hints() == []


def test_all_patches_have_no_side():
    assert Prism(foreground="none").fit(planted()).hints() == []


@pytest.mark.parametrize(
    ("doubts", "words"),
    [
        ({"border_ratio": 0.1, "contrast": 0.9, "agreement": 0.9, "likeness": 0.6}, None),
        (
            {"border_ratio": 0.1, "contrast": 0.3, "agreement": 0.9, "likeness": 0.6},
            "no object stands out in b.png:",
        ),
        ({"border_ratio": 0.1, "contrast": 0.3, "agreement": 0.9, "likeness": 0.0}, None),
        (
            {"border_ratio": 0.8, "contrast": 0.9, "agreement": 0.9, "likeness": 0.6},
            "the object seems to fill the border of b.png,",
        ),
        ({"border_ratio": 0.1, "contrast": 0.9, "agreement": 0.3, "likeness": 0.6}, "check b.png first:"),
        ({"border_ratio": 0.1, "contrast": 0.9, "likeness": 0.6}, None),
    ],
)
def test_photos_to_check_are_named(doubts, words):
    prism = Prism().fit(planted())
    assert prism.method_ == "object"
    fine = {"photo": "photos/a.png", "border_ratio": 0.0, "contrast": 1.0, "agreement": 1.0, "likeness": 0.1}
    photos = [fine, {"photo": "photos/b.png", **doubts}]
    hints = hints_about(np.array([0.3, 0.3]), prism, fitted_here=True, photos=photos)
    if words is None:
        assert hints == []
    else:
        (hint,) = hints
        assert words in hint


def test_which_photos_have_one_colour():
    grey = np.full((50, 70, 3), 128, np.uint8)
    assert is_plain(grey)
    grey[20, 30] += 2
    assert is_plain(grey)
    grey[21, 31] -= 1
    assert not is_plain(grey)
    assert is_plain(np.full((1, 1, 3), 7, np.uint8))
    assert is_plain(np.full((40, 40, 3), (200, 10, 90), np.uint8))


def test_which_photos_are_noise(photo):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    assert is_plain(noise)
    assert is_plain((128 + 10 * rng.normal(size=(64, 64, 3))).clip(0, 255).astype(np.uint8))
    assert not is_plain(photo)
    assert not is_plain(
        (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, -1)
    )
    assert not is_plain(np.repeat(np.repeat(noise[:20, :20], 8, 0), 8, 1))
    stripes = np.tile(rng.integers(0, 256, (64, 1, 3), dtype=np.uint8), (1, 64, 1))
    assert not is_plain(stripes)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(np.full((64, 96, 3), 128, np.uint8)).save(folder / "grey.png")
    Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(folder / "noise.png")
    return [str(folder / name) for name in ("grey.png", "noise.png")]


WORDS = ("2 photos show only one colour or noise (grey.png is the first)", "no object was found")


def test_hints_are_the_same_in_every_job(photos, tmp_path):
    view = patchprism.visualize(photos, backbone=Toy(), size=64)
    expected = view.hints()
    assert [photo.get("plain") for photo in view.report()["photos"]] == [True, True]
    assert any(WORDS[0] in hint for hint in expected)
    assert json.loads(json.dumps(view.report()))["hints"] == expected
    assert build_message(view).header["hints"] == expected
    settings = Settings(model="toy", size=64)
    with open_engine("local") as engine:
        shared = {"settings": settings, "engine": engine, "backbone": Toy()}
        outcome = render_photos(photos, tmp_path / "out", **shared)
        assert outcome.hints == expected
        assert json.loads((tmp_path / "out/report.json").read_text())["hints"] == expected
        extract_features(photos, tmp_path / "f.zarr", tokens="float32", **shared)
        stored = patchprism.visualize([tmp_path / "f.zarr"])
        assert stored.hints() == expected
        from_store = render_photos(
            [tmp_path / "f.zarr"], tmp_path / "out2", settings=Settings(), engine=engine
        )
        assert from_store.hints == expected
        fitted = fit_prism(photos, tmp_path / "a.prism", **shared)
        assert fitted.hints == view.prism.hints()
    later = patchprism.visualize(photos, backbone=Toy(), prism=view.prism)
    assert later.hints()[0] == expected[0]
    assert not any("foreground=" in hint for hint in later.hints() if "nearly all" not in hint)


def test_photos_of_noise_get_the_hint_that_there_is_no_object(photos):
    view = patchprism.visualize(photos[1:], backbone=Toy(), size=64, foreground="pca")
    assert any(WORDS[1] in hint for hint in view.hints())
    assert "undecided" in repr(view)


@pytest.mark.parametrize(
    ("dtype", "device", "seconds", "flags", "expected"),
    [
        ("float32", "cpu", 61, "fma amx_bf16", "took 61 s; on this CPU, which has AMX"),
        ("float32", "cpu", 59, "fma amx_bf16", None),
        ("float32", "cpu", 61, "avx512_bf16 AuthenticAMD", None),
        ("float32", "cuda", 61, "fma amx_bf16", None),
        ("bfloat16", "cpu", 1, "fma", "no AMX"),
        ("bfloat16", "cpu", 1, "", None),  # the processor's features are unknown
        ("bfloat16", "cpu", 61, "fma amx_bf16", None),
        ("bfloat16", "cpu", 61, "avx512_bf16 AuthenticAMD", None),
        ("bfloat16", "cpu", 61, "avx512_bf16 GenuineIntel", "no AMX"),
        ("float16", "cpu", 1, "fma amx_bf16", "no faster than float32"),
        ("float16", "cuda", 1, "fma", None),
    ],
)
def test_a_faster_dtype_is_suggested_if_there_is_one(monkeypatch, dtype, device, seconds, flags, expected):
    monkeypatch.setattr("patchprism.jobs.network.cpu_flags", lambda: frozenset(flags.split()))
    run = Run(engine=open_engine("local"))
    run.watch.seconds[NETWORK_STAGE] = seconds
    notes = about_dtype(run, dtype, device)
    assert [expected in note.text for note in notes] == ([True] if expected else [])
