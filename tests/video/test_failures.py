"""What is refused, damage that is gone past, and interruptions."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from video_clips import av, leftovers, make_clip, pictures, read, run

import patchprism
from patchprism.errors import OptionError, OutputError, PhotoError, PrismError
from patchprism.views.video import render_video


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.mp4", b"This is a text and no video at all.\n" * 50, "not a readable video"),
        ("empty.mp4", b"", "is empty"),
        ("missing.mp4", None, "no such file"),
        ("noise.mkv", bytes(range(256)) * 40, "not a readable video"),
    ],
)
def test_files_that_are_not_a_video(tmp_path, backbone, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match=words):
        run(tmp_path / name, tmp_path / "out.mp4", backbone)
    assert not (tmp_path / "out.mp4").exists()
    assert not leftovers(tmp_path)


def test_a_file_with_only_sound_is_not_a_video(tmp_path, backbone):
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        tone = out.add_stream("aac", rate=48000)
        tone.codec_context.layout = "mono"
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts = 48000, 0
        out.mux(tone.encode(chunk))
        out.mux(tone.encode(None))
    with pytest.raises(PhotoError, match="has no video stream"):
        run(tmp_path / "in.mp4", tmp_path / "out.mp4", backbone)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"start": 60}, PhotoError, r"holds no frame from 60 s to its end; it is 2.00 s long"),
        ({"start": 1, "end": 1}, OptionError, "end must lie after start"),
        ({"start": -1}, OptionError, "start must be a number from 0 to"),
        ({"every": 0}, OptionError, "every must be"),
        ({"fit_frames": 0}, OptionError, "fit_frames must be"),
        ({"layout": "above"}, OptionError, "layout must be one of side, overlay, colors"),
        ({"overlay": 2}, OptionError, "overlay must be a number from 0 to 1"),
        ({"crf": 99}, OptionError, "crf must lie from 0 to 51"),
        ({"fps": 25}, OptionError, "fps is only for sequences of photos"),
        ({"batch_size": 0}, OptionError, "batch_size"),
        ({"out": "out.gif"}, OptionError, "out must end in"),
        ({"out": "nowhere/out.mp4"}, OutputError, "folder does not exist"),
        ({"out": "in.mp4"}, OutputError, "this job reads it"),
    ],
)
def test_what_is_refused(tmp_path, backbone, options, error, words):
    clip = make_clip(tmp_path / "in.mp4")
    before = clip.read_bytes()
    options = dict(options)
    out = tmp_path / options.pop("out", "out.mp4")
    with pytest.raises(error, match=words):
        run(clip, out, backbone, **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4"]
    assert clip.read_bytes() == before


def test_existing_pictures_are_not_mixed_with_new_ones(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mp4")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note.txt").write_text("mine")
    run(clip, tmp_path / "out" / "f%02d.png", backbone, every=7)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".patchprism-files.json",  # the record of the files that jobs wrote
        "f01.png",
        "f02.png",
        "f03.png",
        "note.txt",
    ]
    with pytest.raises(OutputError, match="already holds numbered pictures"):
        run(clip, tmp_path / "out" / "f%02d.png", backbone)


def test_damage_in_the_middle_is_counted_and_skipped(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mp4", pictures(40), gop=5, crf=5)
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size, p.pts * p.time_base) for p in container.demux(video=0) if p.size]
    blob = bytearray(clip.read_bytes())
    for position, size, _ in places[20:23]:
        blob[position : position + size] = b"\xff" * size
    clip.write_bytes(blob)
    report = run(clip, tmp_path / "out.mp4", backbone)
    assert 1 <= report.n_problems <= 10
    assert "packet at" in report.problems[0] or "frame at" in report.problems[0]
    times, _ = read(tmp_path / "out.mp4")
    assert 30 <= len(times) == report.frames < 40
    assert times[-1] == pytest.approx(3.9, abs=1e-3)


def test_a_file_that_was_cut_short(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mkv", [pictures(1)[0]] * 100, gop=5)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(clip.read_bytes()[: clip.stat().st_size * 6 // 10])
    report = run(cut, tmp_path / "out.mp4", backbone)
    assert 20 < report.frames < 90
    assert any("cut short" in problem for problem in report.problems)
    # The index of an MP4 is at its end, and without it nothing can be read.
    clip = make_clip(tmp_path / "in.mp4")
    clip.write_bytes(clip.read_bytes()[:-500])
    with pytest.raises(PhotoError, match="cut short"):
        run(clip, tmp_path / "other.mp4", backbone)


@pytest.mark.parametrize("out", ["out.mp4", "pictures"])
def test_an_interruption_keeps_the_existing_output(tmp_path, backbone, out):
    clip = make_clip(tmp_path / "in.mp4", sound="aac")
    if out.endswith("mp4"):
        (tmp_path / out).write_bytes(b"an older result")

    def interrupt(stage, done, total):
        if stage == "frames" and done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clip, tmp_path / out, backbone, batch_size=2, progress=interrupt)
    assert not leftovers(tmp_path)
    if out.endswith("mp4"):
        assert (tmp_path / out).read_bytes() == b"an older result"
    else:
        assert not (tmp_path / out).exists()
    assert not [t for t in threading.enumerate() if t.name.startswith("patchprism")]


def test_a_full_disk(tmp_path, backbone, monkeypatch):
    clip = make_clip(tmp_path / "in.mp4")
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("patchprism.jobs.video.sink._VideoSink._mux", full)
    with pytest.raises(OutputError, match=r"cannot write .*out.mp4: no space left"):
        run(clip, tmp_path / "out.mp4", backbone)
    assert not (tmp_path / "out.mp4").exists()
    assert not leftovers(tmp_path)


def test_importing_the_package_needs_no_pyav():
    code = (
        "import sys, patchprism, patchprism.cli.app; sys.exit('av' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(patchprism.PatchPrismError, match=r"patchprism\[video\]"):
        render_video(Path("a.mp4"), tmp_path / "b.mp4")


def test_a_prism_that_shows_another_foreground_is_refused(tmp_path, backbone):
    """Frames show the fitted foreground, so another one would be ignored silently."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(2):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
    prism = patchprism.visualize([folder], backbone=backbone, size=64, opening=2).prism
    with pytest.raises(PrismError, match="a video shows the fitted foreground"):
        render_video(folder, tmp_path / "out", backbone=backbone, prism=prism)
    assert not (tmp_path / "out").exists()
