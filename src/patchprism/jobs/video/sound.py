"""The sound of a clip: copied if the file format allows it, and encoded again otherwise."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from patchprism.jobs.video.frames import import_av
from patchprism.jobs.video.opened import open_container

if TYPE_CHECKING:
    from collections.abc import Iterator

# Codecs that players support in these formats; FFmpeg could write more.
_COPIED = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s24le"},
    ".webm": {"opus", "vorbis"},
}
_ENCODED = {".webm": "libopus"}
_OPUS_RATE = 48000
# Priming of an encoder: packets this far before the beginning are not played, but decoding starts with them.
_RUN_IN = Fraction(1, 10)


class Sound:
    """Copies the best sound stream of a file into another file, encoding it again if necessary.

    The file is opened a second time, so that no packet waits in memory for its frame, however the file is
    interleaved.

    Parameters
    ----------
    path : str
        The clip.
    suffix : str
        Suffix of the output: ``.mp4``, ``.mov``, ``.mkv`` or ``.webm``.
    origin : Fraction
        Time in the clip, in seconds, that becomes 0.
    from_start : bool
        Whether the clip is used from its beginning.

    Attributes
    ----------
    how : str
        ``"copied"``, or ``"re-encoded from ... to ..."``.
    problems : int
        Number of packets that could not be decoded or written.
    """

    def __init__(self, path: str, suffix: str, *, origin: Fraction, from_start: bool) -> None:
        self.origin = origin
        self.problems = 0
        self._input = open_container(path)
        self._stream = self._input.streams.best("audio") or self._input.streams.audio[0]
        # In MP4 a track can begin before 0; in other formats everything would be shifted.
        self._first = -_RUN_IN if from_start and suffix in (".mp4", ".mov") else Fraction(0)
        name = self._stream.codec_context.codec.canonical_name
        self._encoder = None
        if suffix not in _COPIED or name in _COPIED[suffix]:
            self.how = "copied"
        else:
            self._encoder = _ENCODED.get(suffix, "aac")
            self.how = f"re-encoded from {name} to {self._encoder.removeprefix('lib')}"

    def add_to(self, output: Any) -> None:
        """Add a stream for the sound to an output container.

        Raises
        ------
        av.FFmpegError, ValueError
            If the output cannot hold it.
        """
        av = import_av()
        self._output = output
        if self._encoder is None:
            self._out = output.add_stream_from_template(self._stream)
        else:
            rate = _OPUS_RATE if self._encoder == "libopus" else self._stream.codec_context.sample_rate
            self._out = output.add_stream(self._encoder, rate=rate)
            layout = self._stream.codec_context.layout
            # Files with PCM often contain only the number of channels, but encoders need to know which they are.
            named = {1: "mono", 2: "stereo"}.get(layout.nb_channels, layout.name)
            self._out.codec_context.layout = named
            form = "flt" if self._encoder == "libopus" else "fltp"
            self._out.codec_context.format = form
            self._resampler = av.AudioResampler(format=form, layout=named, rate=rate)
        self._packets = self._copied() if self._encoder is None else self._encoded()
        self._waiting: Any = None

    def until(self, time: Fraction) -> None:
        """Write the packets that begin before a time, in seconds of the output."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.pts is not None and packet.pts * packet.time_base > time:
                self._waiting = packet
                return
            self._output.mux(packet)

    def close(self) -> None:
        """Close the clip."""
        self._input.close()

    def _read(self) -> Iterator[Any]:
        av = import_av()
        if self.origin > 1:
            try:
                self._input.seek(int((self.origin - 1) / self._stream.time_base), stream=self._stream)
            except av.FFmpegError:
                self._input.seek(0)
        try:
            yield from self._input.demux(self._stream)
        except av.FFmpegError:
            self.problems += 1

    def _copied(self) -> Iterator[Any]:
        last = None
        for packet in self._read():
            if packet.dts is None or packet.pts is None:
                continue
            base = Fraction(packet.time_base)
            shift = round(self.origin / base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.pts * base < self._first:
                continue
            if last is not None and packet.dts <= last:
                self.problems += 1
                continue
            last = packet.dts
            packet.stream = self._out
            yield packet

    def _encoded(self) -> Iterator[Any]:
        av = import_av()
        for packet in self._read():
            try:
                frames = packet.decode()
            except av.EOFError:
                break
            except av.FFmpegError:
                self.problems += 1
                continue
            for frame in frames:
                if frame.pts is not None:
                    base = Fraction(frame.time_base)
                    frame.pts -= round(self.origin / base)
                    if frame.pts * base < 0:
                        continue
                for resampled in self._resampler.resample(frame):
                    yield from self._out.encode(resampled)
        for resampled in self._resampler.resample(None):
            yield from self._out.encode(resampled)
        yield from self._out.encode(None)
