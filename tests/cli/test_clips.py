"""Clips: truncated files, several streams, animated pictures, and names of numbered pictures."""

from __future__ import annotations

import io
import os
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from patchprism.errors import OptionError, OutputError, PhotoError

av = pytest.importorskip("av")

from patchprism.jobs.video.frames import Span  # noqa: E402
from patchprism.jobs.video.naming import counter_in  # noqa: E402
from patchprism.jobs.video.sink import check_output  # noqa: E402
from patchprism.jobs.video.source import open_clip  # noqa: E402

SIZE = (64, 96)
OPTIONS = ("--model", "efficientnet_lite2", "--size", "64", "--fit-frames", "2", "--foreground", "none", "-q")


def picture(i, size=SIZE):
    """Noise, so that a codec needs bytes for every frame."""
    return np.random.default_rng(i).integers(0, 256, (*size, 3), dtype=np.uint8)


def add(container, codec, rate, size=SIZE, pixels="yuv420p", gop=5):
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width, stream.pix_fmt = *size, pixels
    stream.codec_context.gop_size = gop
    return stream


def show(container, stream, frames, *, size=SIZE, times=None):
    for i in range(frames):
        frame = av.VideoFrame.from_ndarray(picture(i, size), format="rgb24").reformat(format=stream.pix_fmt)
        if times:
            frame.pts, frame.time_base = times[i], Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def make(path, frames=30, *, rate=30, codec="libx264", times=None, sound=None, options=None, size=SIZE):
    """Write a clip; ``sound`` is the duration of its sound in seconds, ``times`` are in milliseconds."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = add(container, codec, rate, size)
        tone = None
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if sound:
            tone = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
            tone.codec_context.layout = "mono"
        show(container, stream, frames, times=times, size=size)
        for start in range(0, int(48000 * (sound or 0)), 960):
            wave = 0.1 * np.sin(np.arange(start, start + 960, dtype=np.float32) / 20)[None].astype(np.float32)
            chunk = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
            container.mux(tone.encode(chunk))
        if tone:
            container.mux(tone.encode(None))
    return path


def cut(path, share=0.5):
    blob = path.read_bytes()
    short = path.with_name(f"cut{path.suffix}")
    short.write_bytes(blob[: int(len(blob) * share)])
    return short


def taken(path, **span):
    """Number of frames that were read, and the warnings."""
    clip = open_clip(path)
    count = sum(1 for _ in clip.frames(Span(**span), planes=False))
    return count, clip.problems.named, clip.warnings


FAST = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
VARIABLE = [0, 40, 50, 210, 250, 600, 610, 650, 900, 1300]


# ---------------------------------------------------------------- complete or truncated


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.mkv", {}),
        ("a.mp4", {}),
        ("a.mp4", {"options": FAST}),
        ("a.mp4", {"options": FRAGMENTS}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.avi", {}),  # B-frames in a container without presentation times
        ("a.webm", {"codec": "libvpx-vp9", "frames": 10}),
        ("a.ts", {}),
        ("a.flv", {}),
        ("a.mpg", {"codec": "mpeg2video"}),
        ("a.mkv", {"frames": 1}),
        ("a.mp4", {"frames": 2}),
        ("a.mkv", {"frames": 10, "times": VARIABLE}),
        ("a.mp4", {"frames": 10, "times": VARIABLE}),
        ("a.mkv", {"frames": 4, "times": [0, 2000, 4000, 6000]}),
        ("a.mkv", {"sound": 4}),
        ("a.mp4", {"sound": 4}),
        ("a.flv", {"sound": 4}),
        ("a.webm", {"codec": "libvpx-vp9", "frames": 10, "sound": 4}),
    ],
)
@pytest.mark.parametrize("span", [{}, {"start": Fraction(1, 20)}, {"end": Fraction(100)}, {"every": 7}])
def test_a_complete_clip_gives_no_warning(tmp_path, name, made, span):
    clip = make(tmp_path / name, **made)
    count, problems, warnings = taken(clip, **span)
    assert (problems, warnings) == ([], [])
    if not span:
        assert count == made.get("frames", 30)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("a.mkv", {}),
        ("a.mkv", {"rate": 60, "frames": 6}),
        ("a.mkv", {"frames": 10, "times": VARIABLE}),
        ("a.mkv", {"rate": 5, "frames": 6}),
        ("a.mp4", {"options": FAST}),
        ("a.mp4", {"options": FRAGMENTS}),
        ("a.avi", {"codec": "mpeg4"}),
        ("a.avi", {}),
        ("a.webm", {"codec": "libvpx-vp9", "frames": 10}),
        ("a.flv", {}),
        ("a.flv", {"sound": 1}),
    ],
)
@pytest.mark.parametrize("span", [{}, {"end": Fraction(99, 100)}, {"every": 3}])
def test_a_truncated_clip_is_reported(tmp_path, name, made, span):
    clip = cut(make(tmp_path / name, **made))
    count, problems, _ = taken(clip, **span)
    assert count < made.get("frames", 30)
    assert any("the file is cut short" in each for each in problems)


@pytest.mark.parametrize("hidden", [8, 25])
def test_an_edit_list_that_hides_the_beginning_is_no_loss(tmp_path, hidden):
    """Like in a clip that was cut between key frames without encoding it again."""
    path = tmp_path / "edited.mp4"
    with av.open(str(make(tmp_path / "a.mp4"))) as whole, av.open(str(path), "w") as container:
        stream = whole.streams.video[0]
        copy = container.add_stream_from_template(stream)
        shift = round(hidden / (30 * stream.time_base))
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                container.mux(packet)
    assert taken(path) == (30 - hidden, [], [])


def test_a_selection_before_the_missing_part_is_complete(tmp_path):
    assert taken(cut(make(tmp_path / "a.mkv"), 0.6), end=Fraction(1, 10))[:2] == (3, [])


def test_a_transport_stream_that_ends_within_a_packet(tmp_path):
    clip = make(tmp_path / "a.ts")
    short = tmp_path / "cut.ts"
    short.write_bytes(clip.read_bytes()[: 188 * 60 + 77])
    assert any("within a packet: the file is cut short" in each for each in taken(short)[1])
    # If the file ends at the border of a packet, only a picture that fills its last packet shows the loss.
    short.write_bytes(clip.read_bytes()[: 188 * 60])
    _, _, (warning,) = taken(short)
    assert "is incomplete; the file may be cut short" in warning


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.flv"])
def test_a_gap_in_the_middle_is_reported(tmp_path, name):
    """The readers of these formats silently skip what they cannot read."""
    codec = "libvpx-vp9" if name.endswith("webm") else "libx264"
    clip = make(tmp_path / name, 30, codec=codec)
    blob = bytearray(clip.read_bytes())
    first, last = len(blob) * 4 // 10, len(blob) * 6 // 10
    blob[first:last] = bytes(last - first)
    clip.write_bytes(blob)
    count, problems, _ = taken(clip)
    assert count < 30
    assert problems


def test_pictures_lost_while_the_sound_continues(tmp_path):
    clip = make(tmp_path / "a.flv", sound=4)
    with av.open(str(clip)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    blob = bytearray(clip.read_bytes())
    first, last = places[15][0], sum(places[-1])
    blob[first:last] = bytes(last - first)
    clip.write_bytes(blob)
    count, problems, _ = taken(clip)
    assert count < 30
    assert problems


def test_frames_out_of_order_in_an_avi(tmp_path):
    """AVI contains the order in which frames are decoded, but not when they are shown."""
    path = tmp_path / "a.avi"
    _, x = np.mgrid[: SIZE[0], : SIZE[1]]
    with av.open(str(path), "w") as container:
        stream = add(container, "libx264", 30, gop=12)
        for i in range(30):
            smooth = np.stack([127 + 120 * np.sin((x + 2 * i) / 9)] * 3, axis=-1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(smooth, format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.reorder_depth, "a clip with B-frames"
    clip = open_clip(path)
    times = [frame.time for frame in clip.frames(Span(), planes=False)]
    assert (times, clip.problems.count) == ([Fraction(i, 30) for i in range(30)], 0)


def test_a_selection_in_the_missing_part_is_refused_with_the_reason(tmp_path, run):
    clip = cut(make(tmp_path / "a.mkv"))
    result = run("video", clip, "-o", tmp_path / "out.mp4", "--start", "0.9", *OPTIONS)
    assert result.code == 1
    assert "no frame could be read (ends at" in result.err
    assert "the file is cut short" in result.err


def test_the_exit_code_of_a_truncated_clip(tmp_path, run):
    clip = make(tmp_path / "a.mkv", 60, rate=60)
    whole = run("video", clip, "-o", tmp_path / "out.mp4", "--every", "10", *OPTIONS)
    assert (whole.code, whole.err) == (0, "")
    short = run("video", cut(clip), "-o", tmp_path / "out.mp4", "--every", "10", *OPTIONS)
    assert short.code == 3
    first, second = short.err.splitlines()
    assert first.startswith("failed: ends at 0.")
    assert first.endswith("of 1.00 s: the file is cut short")
    assert second == "1 problem in the clip; all else is done"


# ---------------------------------------------------------------- streams


def two_streams(path, first, second):
    """Write two video streams, each given by codec, pixel format, size and number of frames."""
    with av.open(str(path), "w") as container:
        streams = [add(container, codec, 10, size, pixels) for codec, pixels, size, _ in (first, second)]
        for stream, (_, _, size, frames) in zip(streams, (first, second), strict=True):
            show(container, stream, frames, size=size)
    return path


THUMBNAIL, CLIP = ("mjpeg", "yuvj420p", (48, 64), 1), ("libx264", "yuv420p", SIZE, 10)


@pytest.mark.parametrize("order", [(THUMBNAIL, CLIP), (CLIP, THUMBNAIL)])
def test_the_clip_is_read_and_not_its_thumbnail(tmp_path, order):
    path = two_streams(tmp_path / "two.mkv", *order)
    clip = open_clip(path)
    frames = list(clip.frames(Span(), planes=False))
    assert [frame.rgb.shape for frame in frames] == [(*SIZE, 3)] * 10
    assert clip.problems.count == 0
    (warning,) = clip.warnings
    assert "holds 2 video streams" in warning
    assert f"#{order.index(CLIP)} (h264, 96 x 64) is read" in warning
    assert len(list(open_clip(path).spread(3, Span()))) == 3


def test_a_cover_is_not_the_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover, stream = add(container, "mjpeg", 10, (256, 256), "yuvj420p"), add(container, "libx264", 10)
        cover.disposition = av.stream.Disposition.attached_pic
        show(container, cover, 1, size=(256, 256))
        show(container, stream, 10)
    with av.open(str(path)) as container:
        assert (
            sum(bool(s.disposition & av.stream.Disposition.attached_pic) for s in container.streams.video)
            == 1
        )
    assert taken(path) == (10, [], [])


def test_subtitles_are_not_a_video(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=48000)
        tone.codec_context.layout = "mono"
        stream = add(container, "libx264", 10)
        show(container, stream, 10)
    assert taken(path) == (10, [], [])


# ---------------------------------------------------------------- animated pictures


def animate(path, frames, **options):
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.apng", "a.gif", "a.PNG", "named.jpg"])
def test_every_frame_of_an_animation(tmp_path, name):
    images = [Image.fromarray(picture(i)) for i in range(6)]
    kind = {"a.webp": "WEBP", "a.gif": "GIF"}.get(name, "PNG")
    lossless = {"lossless": True} if kind == "WEBP" else {}
    path = animate(tmp_path / name, images, format=kind, duration=[40, 100, 250, 40, 40, 500], **lossless)
    clip = open_clip(path)
    frames = list(clip.frames(Span(), planes=True))
    assert [round(1000 * frame.time) for frame in frames] == [0, 40, 140, 390, 430, 470]
    assert (clip.duration, frames[-1].until, clip.problems.count) == (Fraction(97, 100),) * 2 + (0,)
    for i, frame in enumerate(frames):
        apart = np.abs(frame.rgb.astype(int) - picture(i)).mean()
        assert apart < (30 if kind == "GIF" else 0.5)  # a GIF has 256 colours
    times = [
        frame.time for frame in open_clip(path).frames(Span(start=Fraction(1, 10), every=2), planes=False)
    ]
    assert [round(1000 * time) for time in times] == [140, 430]
    # Frames last a third of the time each, and the last frame two of them.
    assert [frame.index for frame in open_clip(path).spread(3, Span())] == [2, 5]
    assert len(list(open_clip(path).spread(6, Span()))) == 6
    with pytest.raises(OptionError, match="its own frame times"):
        open_clip(path, fps=5)


def webp(path, images, *, duration):
    """An animated WebP with transparency in which each frame clears the previous one; Pillow 13 cannot write this."""
    width, height = (side - 1 for side in images[0].size)

    def chunk(name, content):
        return name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)

    frames = b""
    for image in images:
        file = io.BytesIO()
        image.save(file, "WEBP", lossless=True, exact=True)
        place = bytes(6) + width.to_bytes(3, "little") + height.to_bytes(3, "little")
        frames += chunk(b"ANMF", place + duration.to_bytes(3, "little") + b"\3" + file.getvalue()[12:])
    head = b"\x12\0\0\0" + width.to_bytes(3, "little") + height.to_bytes(3, "little")
    body = b"WEBP" + chunk(b"VP8X", head) + chunk(b"ANIM", bytes(6)) + frames
    path.write_bytes(b"RIFF" + len(body).to_bytes(4, "little") + body)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_transparent_pixels_are_white(tmp_path, kind):
    first = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    first.paste((255, 0, 0, 255), (0, 0, 16, 16))
    second = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    second.paste((0, 0, 255, 255), (16, 16, 32, 32))
    path = tmp_path / "a.bin"
    if kind == "WEBP":
        webp(path, [first, second], duration=100)
    else:
        animate(path, [first, second], format=kind, duration=100, disposal=2 if kind == "GIF" else 1)
    one, two = (frame.rgb for frame in open_clip(path).frames(Span(), planes=False))
    white, red, blue = (255, 255, 255), (255, 0, 0), (0, 0, 255)
    assert [tuple(one[y, x]) for y, x in ((4, 4), (24, 24), (4, 24))] == [red, white, white]
    assert [tuple(two[y, x]) for y, x in ((4, 4), (24, 24), (4, 24))] == [white, blue, white]


def test_a_gif_keeps_pixels_that_are_not_disposed(tmp_path):
    first = Image.new("RGB", (32, 32), (255, 0, 0))
    second = first.copy()
    second.paste((0, 0, 255), (8, 8, 16, 16))
    path = animate(tmp_path / "a.gif", [first, second], duration=100, disposal=1)
    _, two = (frame.rgb for frame in open_clip(path).frames(Span(), planes=False))
    assert (tuple(two[0, 0]), tuple(two[10, 10])) == ((255, 0, 0), (0, 0, 255))


def test_a_fallback_picture_is_not_a_frame(tmp_path):
    images = [Image.fromarray(picture(i)) for i in range(4)]
    path = animate(tmp_path / "a.png", images, duration=100, default_image=True)
    frames = list(open_clip(path).frames(Span(), planes=False))
    assert len(frames) == 3
    assert np.array_equal(frames[0].rgb, picture(1))


def test_a_duration_of_zero_means_a_tenth_of_a_second(tmp_path):
    images = [Image.fromarray(picture(i)) for i in range(3)]
    path = animate(tmp_path / "a.gif", images, duration=0)
    assert [frame.time for frame in open_clip(path).frames(Span(), planes=False)] == [
        0,
        Fraction(1, 10),
        Fraction(2, 10),
    ]


@pytest.mark.parametrize("name", ["a.png", "a.gif"])
def test_a_truncated_animation_is_reported(tmp_path, name):
    path = animate(tmp_path / name, [Image.fromarray(picture(i)) for i in range(6)], duration=100)
    count, problems, _ = taken(cut(path, 0.6))
    assert 1 < count < 5
    assert any("cut short" in each for each in problems)
    assert taken(cut(path, 0.9), end=Fraction(1, 10))[:2] == (1, [])


def test_a_still_gif_is_a_clip_of_one_frame(tmp_path):
    Image.fromarray(picture(0)).save(tmp_path / "a.gif")
    assert taken(tmp_path / "a.gif")[:2] == (1, [])


def test_an_animated_webp_without_any_frame(tmp_path):
    path = animate(tmp_path / "a.webp", [Image.fromarray(picture(i)) for i in range(3)], duration=100)
    with pytest.raises(PhotoError, match="is damaged or cut short"):
        open_clip(cut(path))


def test_an_animation_keeps_its_times(tmp_path, run):
    path = animate(
        tmp_path / "a.webp", [Image.fromarray(picture(i)) for i in range(3)], duration=[50, 100, 700]
    )
    assert run("video", path, "-o", tmp_path / "out.mp4", *OPTIONS).code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [round(1000 * frame.time) for frame in container.decode(video=0)] == [0, 50, 150]
        assert container.duration == pytest.approx(850_000, abs=2000)


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("name", "seventh"),
    [
        ("%04d.png", "0007.png"),
        ("%d.png", "7.png"),
        ("%3d.png", "007.png"),
        ("50%_%04d.png", "50%_0007.png"),
        ("100%%_%d.png", "100%_7.png"),
        ("%s{}$1\\%d.png", "%s{}$1\\7.png"),
        ("a(%d[.png", "a(7[.png"),
    ],
)
def test_a_counter_with_text_around_it(name, seventh):
    counter = counter_in(name, "out")
    assert counter.name(7) == seventh
    assert counter.number(seventh) == 7
    assert counter.number("x" + seventh) is None


@pytest.mark.parametrize("name", ["%d_%d.png", "%04d%d.png", "%0999999999d.png", "%99d"])
def test_counters_that_are_refused(tmp_path, name):
    with pytest.raises(OptionError, match="must contain"):
        check_output(tmp_path / name, tmp_path / "in.mp4", None)
    with pytest.raises(OptionError, match="must contain"):
        open_clip(tmp_path / name)


@pytest.mark.parametrize(
    "name", ["a%%04d.png", "%s.png", "{}.png", "%.png", "out.avi", "out.mp5", "a.jpg", "%d.jpg"]
)
def test_names_without_a_format(tmp_path, name):
    with pytest.raises(OptionError, match="out must end in"):
        check_output(tmp_path / name, tmp_path / "in.mp4", None)


def test_pictures_with_odd_names_are_written_and_found(tmp_path, run):
    clip = make(tmp_path / "in.mp4", 3)
    (tmp_path / "out").mkdir()
    pattern = tmp_path / "out" / "50%_(%04d[.png"
    assert run("video", clip, "-o", pattern, *OPTIONS).code == 0
    assert sorted(p.name for p in (tmp_path / "out").glob("[!.]*")) == [
        f"50%_(000{i}[.png" for i in (1, 2, 3)
    ]
    Image.fromarray(picture(0)).save(tmp_path / "out" / "50%_(0001b[.png")  # of another sequence
    assert len(open_clip(pattern).paths) == 3
    again = run("video", clip, "-o", pattern, *OPTIONS)
    assert again.code == 1
    assert "already holds numbered pictures" in again.err


def test_a_counter_in_a_folders_name_is_refused_with_advice(tmp_path):
    for i in (1, 2):
        (tmp_path / f"d{i}").mkdir()
        Image.fromarray(picture(i)).save(tmp_path / f"d{i}" / "f.png")
    with pytest.raises(PhotoError, match=r"use \* in names of folders"):
        open_clip(tmp_path / "d%d" / "f.png")
    assert len(open_clip(tmp_path / "d*" / "f.png").paths) == 2


def test_outputs_must_not_be_inputs(tmp_path):
    clip = make(tmp_path / "in.mp4", 2)
    for name, link in (("soft.mp4", os.symlink), ("hard.mp4", os.link)):
        link(clip, tmp_path / name)
        with pytest.raises(OutputError, match="this job reads it"):
            check_output(tmp_path / name, clip, None)


def test_a_time_beyond_all_clips(tmp_path):
    clip = make(tmp_path / "in.mp4", 3)
    assert taken(clip, start=Fraction(10) ** 9)[:2] == (0, [])
    with pytest.raises(OptionError, match="start must be a number from 0 to"):
        taken(clip, start=Fraction(10) ** 300)
    assert len(list(open_clip(clip).spread(10**9, Span()))) == 3


def test_a_pipe_is_not_a_clip(tmp_path):
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(PhotoError, match="is a pipe or a device"):
        open_clip(tmp_path / "fifo.mp4")
