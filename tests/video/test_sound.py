"""The sound of a clip is kept."""

from __future__ import annotations

import pytest
from video_clips import av, heard, make_clip, run, sound_packets


@pytest.mark.parametrize(
    ("made", "source", "target", "how", "codec"),
    [
        ("aac", ".mp4", ".mp4", "copied", "aac"),
        ("libmp3lame", ".mkv", ".mp4", "copied", "mp3"),
        ("flac", ".mkv", ".mkv", "copied", "flac"),
        ("pcm_s16le", ".mkv", ".mp4", "re-encoded from pcm_s16le to aac", "aac"),
        ("aac", ".mp4", ".webm", "re-encoded from aac to opus", "opus"),
    ],
)
def test_sound(tmp_path, backbone, made, source, target, how, codec):
    clip = make_clip(tmp_path / f"in{source}", sound=made)
    out = tmp_path / f"out{target}"
    report = run(clip, out, backbone)
    assert (report.sound, report.warnings) == (how, [])
    name, seconds, pitch = heard(out)
    assert name == codec
    assert seconds == pytest.approx(2, abs=0.1)
    assert pitch == pytest.approx(440, abs=1)
    if how == "copied":
        assert sound_packets(out) == sound_packets(clip)


def test_sound_is_cut_with_the_pictures(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mp4", sound="aac")
    run(clip, tmp_path / "out.mp4", backbone, start=0.5, end=1.5)
    assert heard(tmp_path / "out.mp4")[1] == pytest.approx(1, abs=0.06)


def test_sound_can_be_left_out(tmp_path, backbone):
    clip = make_clip(tmp_path / "in.mp4", sound="aac")
    report = run(clip, tmp_path / "out.mp4", backbone, sound=False)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
    assert report.sound == "none"
    report = run(clip, tmp_path / "pictures", backbone, every=10)
    assert report.warnings == ["the sound is left out: pictures hold none"]
