"""Clips that PyAV makes here, and what is in them. Tests that import this are skipped without PyAV."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from skimage import data

av = pytest.importorskip("av")

from patchprism.views.video import render_video  # noqa: E402

MODEL = "efficientnet_lite2"
SIZE = 64
CAT = data.chelsea()


def pictures(n, height=64, width=96):
    """Frames that move over a photo."""
    return [np.ascontiguousarray(CAT[60 + 2 * i :, 120 + 3 * i :][:height, :width]) for i in range(n)]


def make_clip(
    path, frames=None, *, rate=10, times=None, sound=None, turn=None, codec="libx264", crf=12, gop=None
):
    """A clip; ``times`` in milliseconds make its rate vary, ``sound`` names the codec of a tone of 440 Hz."""
    frames = pictures(20) if frames is None else frames
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"crf": str(crf)} if codec == "libx264" else {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if gop:
            stream.codec_context.gop_size = gop
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        if turn:
            stream.set_display_rotation(turn[0], hflip=turn[1])
        tone = None
        if sound:
            tone = out.add_stream(sound, rate=48000)
            tone.codec_context.layout = "mono"
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times[i], Fraction(1, 1000)) if times else (i, Fraction(1, rate))
            out.mux(stream.encode(frame))
        if tone:
            kind = "s16" if sound.startswith("pcm") else "fltp"
            for start in range(0, 48000 * len(frames) // rate, 960):
                wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(start, start + 960) / 48000)
                wave = (wave * 32767).astype(np.int16) if kind == "s16" else wave.astype(np.float32)
                chunk = av.AudioFrame.from_ndarray(wave[None], format=kind, layout="mono")
                chunk.sample_rate, chunk.pts, chunk.time_base = 48000, start, Fraction(1, 48000)
                out.mux(tone.encode(chunk))
            out.mux(tone.encode(None))
        out.mux(stream.encode(None))
    return path


def read(path):
    """Times and RGB frames of a video."""
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return [time for time, _ in frames], [rgb for _, rgb in frames]


def sound_packets(path):
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


def heard(path):
    """Name of the codec, seconds, and loudest frequency of the sound."""
    with av.open(str(path)) as container:
        codec = container.streams.audio[0].codec_context.codec.canonical_name
        rate = container.streams.audio[0].rate
        chunks = [f.to_ndarray().astype(np.float64) for f in container.decode(audio=0)]
    wave = np.concatenate([c.reshape(1, -1) if c.shape[0] == 1 else c[:1] for c in chunks], axis=1)[0]
    spectrum = np.abs(np.fft.rfft(wave))
    return codec, len(wave) / rate, float(np.fft.rfftfreq(len(wave), 1 / rate)[spectrum.argmax()])


def run(source, out, backbone, **options):
    return render_video(source, out, backbone=backbone, **{"size": SIZE, "fit_frames": 4} | options)


def leftovers(folder):
    return [path.name for path in folder.iterdir() if ".part" in path.name]
