"""Photos in order as a clip."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from video_clips import pictures, read, run


@pytest.mark.parametrize("name", ["", "*.png", "f%03d.png", "f%d.png"])
def test_image_sequences(tmp_path, backbone, name):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate(pictures(11, 65, 97)):
        Image.fromarray(picture).save(folder / f"f{i:03d}.png")
    report = run(folder / name if name else folder, tmp_path / "out.mp4", backbone, fps=5)
    times, frames = read(tmp_path / "out.mp4")
    assert np.allclose(times, np.arange(11) / 5, atol=1e-3)
    assert frames[0].shape == (64, 192, 3)
    assert report.n_problems == 0


def test_a_gap_in_a_counter_is_reported(tmp_path, backbone):
    for number in (1, 2, 3, 5, 9):
        Image.fromarray(pictures(1)[0]).save(tmp_path / f"f{number:03d}.png")
    (tmp_path / "fx.png").write_text("other")
    report = run(tmp_path / "f%03d.png", tmp_path / "gaps.mp4", backbone)
    assert report.frames == 5
    (warning,) = report.warnings
    assert "f%03d.png: 4 numbers between 1 and 9 missing" in warning
    report = run(tmp_path / "*00[1-5].png", tmp_path / "none.mp4", backbone)
    assert report.warnings == []


def test_bad_photos_in_a_sequence_are_named(tmp_path, backbone):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i, picture in enumerate(pictures(6)):
        Image.fromarray(picture if i != 4 else picture[:50]).save(folder / f"f{i}.png")
    (folder / "f2.png").write_text("no picture")
    report = run(folder, tmp_path / "out.mp4", backbone)
    assert report.n_problems == 2
    assert "f2.png" in report.problems[0]
    assert "f4.png" in report.problems[1]
    assert np.allclose(read(tmp_path / "out.mp4")[0], [0, 0.04, 0.12, 0.2], atol=1e-3)
