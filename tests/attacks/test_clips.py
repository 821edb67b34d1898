"""Hostile and damaged clips: no crash, no other file is opened, and losses are reported."""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from patchprism.errors import OptionError, OutputError, PatchPrismError, PhotoError

av = pytest.importorskip("av")

from patchprism.jobs.video.frames import Span  # noqa: E402
from patchprism.jobs.video.source import open_clip  # noqa: E402


def make(
    path,
    frames=12,
    *,
    codec="libx264",
    size=(48, 64),
    pixels="yuv420p",
    title=None,
    start=0,
    interlaced=False,
):
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        if title:
            container.metadata["title"] = title
        stream = container.add_stream(codec, rate=12, options={"flags": "+ildct+ilme"} if interlaced else {})
        stream.height, stream.width, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = 4
        if title:
            stream.metadata["title"] = title
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(
                rng.integers(0, 256, (*size, 3), dtype=np.uint8), format="rgb24"
            )
            frame = frame.reformat(format=pixels)
            frame.pts = i + start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path):
    """The frames and the warnings of both passes of a job."""
    clip = open_clip(path)
    list(clip.spread(3, Span()))
    return list(clip.frames(Span(), planes=True)), clip.problems.named + clip.warnings


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.avi", "a.webm"])
def test_metadata_in_latin_1(tmp_path, name):
    codec = {"a.avi": "mpeg4", "a.webm": "libvpx-vp9"}.get(name, "libx264")
    path = make(tmp_path / name, codec=codec, title="Caf@ am See")
    blob = path.read_bytes()
    assert b"Caf@" in blob
    path.write_bytes(blob.replace(b"Caf@", b"Caf\xe9"))
    frames, said = read(path)
    assert (len(frames), said) == (12, [])


def test_the_sound_of_a_clip_with_latin_1(tmp_path):
    from patchprism.views.video import render_video

    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        tone = container.add_stream("aac", rate=48000)
        tone.codec_context.layout = "mono"
        tone.metadata["title"] = "Caf@"
        for i in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 * i, np.uint8))))
        chunk = av.AudioFrame.from_ndarray(np.zeros((1, 19200), np.float32), format="fltp", layout="mono")
        chunk.sample_rate, chunk.pts = 48000, 0
        container.mux(tone.encode(chunk))
        container.mux(tone.encode(None))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"Caf@", b"Caf\xe9"))
    report = render_video(path, tmp_path / "o.mp4", model="efficientnet_lite2", size=64, foreground="none")
    assert (report.frames, report.sound, report.n_problems) == (4, "copied", 0)


@pytest.mark.parametrize(
    "name",
    [
        "http:x.mp4",
        "concat:good.mp4",
        "file:x.mp4",
        "-x.mp4",
        "%04d.mp4",
        "a\nb<img>.mp4",
        "pipe:0",
        "ü [1].mp4",
    ],
)
def test_a_name_with_a_protocol_is_a_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "good.mp4", 3)
    make(tmp_path / "named.mp4", 5).rename(tmp_path / name)
    assert len(read(name)[0]) == 5


@pytest.mark.parametrize(
    "content",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile http://127.0.0.1:9/x.mp4\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"concat:/etc/passwd|/etc/hostname",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ffconcat", "a.sdp"])
def test_a_playlist_opens_no_other_file(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PhotoError, match="not a readable video"):
        read(tmp_path / name)


def y4m(path, head, frame, count=4):
    path.write_bytes(b"YUV4MPEG2 " + head + b"\n" + (b"FRAME\n" + frame) * count)
    return path


@pytest.mark.parametrize("aspect", [b"1:0", b"0:1", b"2000000000:1", b"1:2000000000", b"-3:2"])
def test_absurd_pixel_aspects_are_ignored(tmp_path, aspect):
    path = y4m(tmp_path / "a.y4m", b"W32 H16 F25:1 A" + aspect + b" C420jpeg", bytes(32 * 16 * 3 // 2))
    frames, _ = read(path)
    assert [frame.rgb.shape for frame in frames] == [(16, 32, 3)] * 4


@pytest.mark.parametrize(
    "head", [b"W100000 H100000 F25:1 C420jpeg", b"W0 H0 F0:0 C420jpeg", b"W-3 H9 F1:1 C420jpeg"]
)
def test_absurd_sizes_are_refused(tmp_path, head):
    with pytest.raises(PhotoError, match=r"not a readable video|has no video stream"):
        read(y4m(tmp_path / "a.y4m", head, bytes(1000), 1))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.ts"])
def test_bytes_changed_at_random(tmp_path, name, seed):
    """Any change gives frames or a PatchPrismError."""
    path = make(tmp_path / name, codec="mpeg4" if name == "a.avi" else "libx264")
    rng = np.random.default_rng(seed)
    blob = bytearray(path.read_bytes())
    # Half of the seeds change the header, which has all the numbers; in an MP4, it is at the end.
    reach = len(blob) if seed % 2 else 1500
    for place in rng.integers(20, reach, 30):
        blob[len(blob) - place if name == "a.mp4" else place] = rng.integers(256)
    path.write_bytes(blob)
    with suppress(PatchPrismError):
        read(path)


def patched(path, tag, offset, data):
    blob = bytearray(path.read_bytes())
    place = blob.index(tag) + offset
    blob[place : place + len(data)] = data
    path.write_bytes(blob)
    return path


@pytest.mark.parametrize(
    ("tag", "offset", "data"),
    [
        (b"mdhd", 16, struct.pack(">I", 0)),
        (b"mdhd", 16, b"\xff\xff\xff\xff"),
        (b"stts", 12, struct.pack(">I", 0)),
    ],
)
def test_timestamps_that_lose_frames_are_reported(tmp_path, tag, offset, data):
    frames, said = read(patched(make(tmp_path / "a.mp4"), tag, offset, data))
    assert len(frames) < 12
    assert said


def test_a_track_without_a_length(tmp_path):
    """The length of the file is used instead."""
    path = patched(make(tmp_path / "a.mkv"), b"DURATION", 0, b"DVRATION")
    assert (len(read(path)[0]), read(path)[1]) == (12, [])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert any("cut short" in each for each in read(path)[1])


@pytest.mark.parametrize(
    "made",
    [
        {"codec": "ffv1", "pixels": "yuv420p10le"},
        {"codec": "ffv1", "pixels": "yuv444p", "size": (17, 31)},
        {"codec": "ffv1", "pixels": "gray"},
        {"codec": "ffv1", "pixels": "bgra"},
        {"codec": "ffv1", "size": (2, 2)},
        {"codec": "mpeg2video", "interlaced": True},
        {"start": 500},
        {"start": -6},
    ],
)
def test_unusual_clips_are_complete(tmp_path, made):
    frames, said = read(make(tmp_path / "a.mkv", **made))
    assert (len(frames), said) == (12, [])
    size = made.get("size", (48, 64))
    assert all(frame.rgb.shape == (*size, 3) for frame in frames)


def test_a_codec_that_cannot_be_decoded(tmp_path):
    path = make(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"free"))
    with pytest.raises(PhotoError, match=r"FFmpeg cannot decode|has no video stream"):
        read(path)


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp"])
@pytest.mark.parametrize("seed", range(6))
def test_animations_changed_at_random(tmp_path, name, seed):
    rng = np.random.default_rng(seed)
    images = [Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)) for _ in range(5)]
    path = tmp_path / name
    images[0].save(path, save_all=True, append_images=images[1:], duration=50)
    blob = bytearray(path.read_bytes())
    for place in rng.integers(8, len(blob), 8):
        blob[place] = rng.integers(256)
    path.write_bytes(blob)
    with suppress(PatchPrismError):
        read(path)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """The error of the file system is passed on by FFmpeg."""
    resource = pytest.importorskip("resource")
    from patchprism.views.video import render_video

    path = make(tmp_path / "in.mp4", 30)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*out.mp4"):
            render_video(path, tmp_path / "out.mp4", model="efficientnet_lite2", size=64, foreground="none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.name for each in tmp_path.iterdir()] == ["in.mp4"]


def test_a_picture_too_wide_for_the_format(tmp_path):
    from patchprism.views.video import render_video

    path = tmp_path / "wide"
    path.mkdir()
    Image.fromarray(np.zeros((16, 9000, 3), np.uint8)).save(path / "1.png")
    with pytest.raises(OptionError, match="16,384 pixels per side"):
        render_video(path, tmp_path / "out.mp4", model="efficientnet_lite2", size=64, foreground="none")
