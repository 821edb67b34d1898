"""Threads keep their order, and memory does not grow."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image
from video_clips import CAT, av, make_clip, pictures

from patchprism.errors import OutputError, PhotoError
from patchprism.jobs.video.frames import Span
from patchprism.jobs.video.relay import read_ahead, write_behind
from patchprism.jobs.video.source import open_clip


def test_threads_keep_the_order_and_pass_failures_on():
    written = []
    with read_ahead(range(100), 3) as items, write_behind(written.append, 3) as write:
        for item in items:
            write(item)
    assert written == list(range(100))

    def broken():
        yield 1
        raise PhotoError("x", "bad")

    with pytest.raises(PhotoError, match="bad"), read_ahead(broken(), 1) as items:
        assert list(items) == [1]

    def fail(item):
        raise OutputError("y", "full")

    with pytest.raises(OutputError, match="full"), write_behind(fail, 1) as write:  # noqa: PT012
        for item in range(100):
            write(item)
    assert not [t for t in threading.enumerate() if t.name.startswith("patchprism")]


def test_decoded_frames_are_freed_immediately(tmp_path):
    """They must not wait for Python's garbage collector, because a frame of a film has 12 MB."""
    clip = make_clip(tmp_path / "clip.mp4", pictures(40))
    gc.collect()
    gc.disable()
    try:
        for frame in open_clip(clip).frames(Span(), planes=True):
            last = frame.index
        held = sum(issubclass(type(each), av.VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert last == 39
    assert held < 5


_MEASURE = """
import resource, sys
from patchprism import render_video
render_video(sys.argv[1], sys.argv[2], model="efficientnet_lite2", size=32, fit_frames=8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_film(tmp_path):
    """Ten times as many frames need the same memory."""
    picture = np.asarray(Image.fromarray(CAT).resize((640, 360)))
    peaks = []
    for count in (100, 1000):
        clip = make_clip(tmp_path / f"{count}.mp4", [picture] * count, crf=40, sound="aac", rate=50)
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, clip, tmp_path / f"out{count}.mp4"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(int(done.stdout) / 1024)
    print(f"peak resident size: {peaks[0]:.0f} MB at 100 frames, {peaks[1]:.0f} MB at 1,000")
    # Measured: 392 MB and 394 MB. If all 900 frames were kept, it would be 930 MB.
    assert peaks[1] < peaks[0] + 30
