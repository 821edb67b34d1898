"""Which frames of a clip are taken, and when they are shown."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from video_clips import av, make_clip, pictures, read, run

from patchprism.jobs.video.frames import Span
from patchprism.jobs.video.source import open_clip


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm"])
def test_a_constant_rate_and_even_sides(tmp_path, backbone, suffix):
    clip = make_clip(tmp_path / "in.mp4", pictures(12, 66, 98))
    report = run(clip, tmp_path / f"out{suffix}", backbone)
    times, frames = read(tmp_path / f"out{suffix}")
    assert np.allclose(times, np.arange(12) / 10, atol=1e-3)
    assert frames[0].shape == (66, 196, 3) == (*report.size, 3)
    assert (report.frames, report.sound, report.n_problems) == (12, "none", 0)


def test_a_variable_rate_is_kept_exactly(tmp_path, backbone):
    times = [0, 40, 50, 210, 250, 600, 610, 650, 900, 1300]
    clip = make_clip(tmp_path / "in.mkv", pictures(10), times=times)
    run(clip, tmp_path / "out.mp4", backbone)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(video=0))
        assert [round(frame.time * 1000) for frame in frames] == times
        # The duration of the last frame is unknown, so it is that of the frame before it.
        assert container.duration == pytest.approx(1_700_000, abs=2000)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"start": 0.5}, range(5, 20)),
        ({"end": 0.55}, range(6)),
        ({"start": 0.3, "end": 0.9}, range(3, 9)),
        ({"every": 4}, range(0, 20, 4)),
        ({"start": 0.2, "end": 1.9, "every": 5}, range(2, 19, 5)),
    ],
)
def test_which_frames_are_used(tmp_path, backbone, options, expected):
    clip = make_clip(tmp_path / "in.mp4", gop=5)
    span = {key: value if key == "every" else Fraction(str(value)) for key, value in options.items()}
    taken = [frame.time for frame in open_clip(clip).frames(Span(**span), planes=False)]
    assert taken == [Fraction(i, 10) for i in expected]
    run(clip, tmp_path / "out.mp4", backbone, **options)
    times, frames = read(tmp_path / "out.mp4")
    assert np.allclose(times, [(i - expected[0]) / 10 for i in expected], atol=1e-3)
    source = read(clip)[1]
    for i, frame in zip(expected, frames, strict=True):  # exactly these frames, not their neighbours
        apart = [np.abs(frame[:, :96].astype(int) - other).mean() for other in source]
        assert int(np.argmin(apart)) == i


@pytest.mark.parametrize("gop", [1, 5, 250])
def test_fitting_frames_are_spread_evenly(tmp_path, gop):
    clip = make_clip(tmp_path / "in.mp4", [pictures(1)[0]] * 200, gop=gop)  # 20 s, long enough for seeking
    times = [float(frame.time) for frame in open_clip(clip).spread(8, Span())]
    assert np.allclose(times, [1.2, 3.7, 6.2, 8.7, 11.2, 13.7, 16.2, 18.7], atol=0.051)
    part = Span(start=Fraction(10), end=Fraction(12))
    times = [float(frame.time) for frame in open_clip(clip).spread(4, part)]
    assert np.allclose(times, [10.2, 10.7, 11.2, 11.7], atol=0.051)
    few = [frame.time for frame in open_clip(clip).spread(32, Span(end=Fraction(1, 2)))]
    assert few == [Fraction(i, 10) for i in range(5)]  # each once


def test_a_stream_without_times(tmp_path, backbone):
    """Raw H.264 has no timestamps, no duration and no index to seek with."""
    clip = make_clip(tmp_path / "in.h264", pictures(12))
    report = run(clip, tmp_path / "out.mp4", backbone)
    assert report.frames == 12
    assert report.prism.n_photos_ == 4
