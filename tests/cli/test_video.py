"""``patchprism video`` as a shell runs it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from skimage import data

from patchprism.errors import OptionError
from patchprism.jobs.video.options import parse_time

av = pytest.importorskip("av")

OPTIONS = ("--model", "efficientnet_lite2", "--size", "64", "--fit-frames", "3")


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "cat.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
        for i in range(8):
            picture = np.ascontiguousarray(data.chelsea()[60 + i : 124 + i, 120:216])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    return path


def test_a_clip_and_its_summary(run, clip, tmp_path):
    result = run("video", clip, "-o", tmp_path / "out.mp4", "--save-prism", tmp_path / "cat.prism", *OPTIONS)
    assert (result.code, result.err) == (0, "")
    for words in (
        "fitted on 3 frames",
        "8, 192 × 64 pixels, 6 × 4 patches each",
        "frames a second",
        "out.mp4",
    ):
        assert words in result.out
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(list(container.decode(video=0))) == 8
    again = run("video", clip, "-o", tmp_path / "again.mp4", "--prism", tmp_path / "cat.prism", "--quiet")
    assert (again.code, again.out) == (0, f"{tmp_path / 'again.mp4'}\n")
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "out.mp4").read_bytes()


def test_a_faster_dtype_is_suggested_by_its_flag(run, clip, tmp_path, monkeypatch):
    monkeypatch.setattr("patchprism.jobs.network.cpu_flags", lambda: frozenset({"amx_bf16"}))
    monkeypatch.setattr("patchprism.jobs.network._LONG_S", 0)
    result = run("video", clip, "-o", tmp_path / "out.mp4", "--end", "0.3", *OPTIONS)
    assert "about 3 times as fast with --dtype bfloat16" in result.err


def test_another_model_than_that_of_the_prism(run, clip, tmp_path):
    run("video", clip, "-o", tmp_path / "a.mp4", "--save-prism", tmp_path / "p", "--end", "0.3", *OPTIONS)
    result = run("video", clip, "-o", tmp_path / "b.mp4", "--prism", tmp_path / "p", "--size", "96")
    assert result.code == 1
    assert (
        "the prism was fitted with another framing (size): 64, now 96; --force uses it anyway" in result.err
    )
    assert not (tmp_path / "b.mp4").exists()
    forced = run(
        "video", clip, "-o", tmp_path / "b.mp4", "--prism", tmp_path / "p", "--size", "96", "--force"
    )
    assert forced.code == 0


def test_failures_are_one_line(run, clip, tmp_path):
    (tmp_path / "text.mp4").write_text("no video\n" * 100)
    result = run("video", tmp_path / "text.mp4", "-o", tmp_path / "out.mp4", *OPTIONS)
    assert result.code == 1
    assert result.err == f"error: {tmp_path}/text.mp4: not a readable video, or it is cut short\n"
    result = run("video", clip, "-o", tmp_path / "out.mp4", "--start", "soon", *OPTIONS)
    assert (result.code, result.err) == (1, "error: --start must be seconds, MM:SS or HH:MM:SS, got 'soon'\n")
    assert not (tmp_path / "out.mp4").exists()


def test_a_prism_does_not_overwrite_the_clip(run, clip, tmp_path):
    before = clip.read_bytes()
    result = run("video", clip, "-o", tmp_path / "out.mp4", "--save-prism", clip, *OPTIONS)
    assert (result.code, result.err) == (
        1,
        f"error: cannot write --save-prism '{clip}': it is the input or the output of this command\n",
    )
    assert clip.read_bytes() == before


def test_unreadable_parts_are_reported_and_change_the_exit_code(run, clip, tmp_path):
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(4):
        Image.fromarray(data.chelsea()[:64, :96]).save(folder / f"{i}.png")
    (folder / "2.png").write_bytes(b"")
    result = run("video", folder, "-o", tmp_path / "out.mp4", "--foreground", "none", *OPTIONS)
    assert result.code == 3
    assert "2.png: is empty" in result.err
    assert "1 problem in the clip; all else is done" in result.err
    assert (tmp_path / "out.mp4").exists()


def test_hints_are_part_of_the_summary(run, tmp_path):
    from PIL import Image

    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.full((64, 96, 3), 90 * i, np.uint8)).save(folder / f"{i}.png")
    Image.fromarray(data.chelsea()[60:124, 120:216]).save(folder / "2.png")
    result = run("video", folder, "-o", tmp_path / "out.mp4", *OPTIONS)
    assert (result.code, result.err) == (0, "")
    assert "\nhint    2 photos show only one colour or noise" in result.out
    quiet = run("video", folder, "-o", tmp_path / "out.mp4", *OPTIONS, "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, f"{tmp_path / 'out.mp4'}\n", "")


def test_tokens_space_and_upsampling_are_options(run, clip, tmp_path):
    from patchprism.prism.estimator import Prism

    chosen = (
        "--layer",
        "9,13",
        "--token-norm",
        "l2",
        "--no-final-norm",
        "--space",
        "oklab",
        "--upsample",
        "guided",
    )
    result = run("video", clip, "-o", tmp_path / "a.mp4", "--save-prism", tmp_path / "p", *chosen, *OPTIONS)
    assert result.code == 0
    prism = Prism.load(tmp_path / "p")
    names = ("layer", "token_norm", "final_norm")
    assert [prism.origin[name] for name in names] == [[9, 13], "l2", False]
    assert prism.space == "oklab"
    refused = run("video", clip, "-o", tmp_path / "b.mp4", "--upsample", "cubic", *OPTIONS)
    assert refused.code == 1
    assert "--upsample must be one of nearest, bilinear, guided" in refused.err


def test_help(run):
    result = run("video", "--help-all")
    assert result.code == 0
    for option in ("--fit-frames", "--layout", "--overlay", "--steady", "--every", "--save-prism", "--crf"):
        assert option in result.out
    for option in ("--layer", "--facet", "--token-norm", "--space", "--upsample"):
        assert option in result.out


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", Fraction(25, 2)),
        ("1:30", 90),
        ("1:02:03.5", Fraction(7447, 2)),
        ("90:59", 5459),
        ("0", 0),
    ],
)
def test_times(text, seconds):
    assert parse_time("start", text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1:2:3:4", "1:99", "1:60:00", "-1", "1/2", "1:", "nan"])
def test_invalid_times(text):
    with pytest.raises(OptionError, match="start must be"):
        parse_time("start", text)
