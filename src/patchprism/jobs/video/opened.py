"""Open clips with PyAV: only the file itself, its best video stream, and the length that its header promises."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from patchprism.errors import PatchPrismError, PhotoError
from patchprism.jobs.video.frames import import_av
from patchprism.photos.paths import VIDEO_SUFFIXES, advice_on
from patchprism.support.folders import system_reason

if TYPE_CHECKING:
    from collections.abc import Iterator

# Errors of the operating system about a file. Other error numbers of FFmpeg, such as EBUSY or EPERM, concern the
# content.
_SYSTEM_ERRORS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ELOOP,
}
# Formats whose header contains the length of the clip. For others, FFmpeg estimates it from the end of the file or
# from a bit rate, which is not reliable.
_FORMATS_WITH_LENGTH = {"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "avi", "flv", "asf", "mxf", "ivf", "rm"}
_TS_PACKETS = (188, 192, 204)
# Maximum number of bytes between the contents of two packets: headers of blocks, tags and clusters.
_MAX_OVERHEAD = 256
# Largest width of a pixel divided by its height. Larger values mean a broken header.
_MAX_ASPECT = 16


@contextmanager
def damage_named(name: str) -> Iterator[None]:
    """Turn all exceptions of PyAV into PhotoErrors: hostile headers can cause nearly every exception of Python."""
    try:
        yield
    except (PatchPrismError, MemoryError):
        raise
    except Exception as error:
        raise PhotoError(name, f"is damaged ({type(error).__name__}: {error})") from error


def open_container(path: str) -> Any:
    """Open a container of exactly this file; special characters in its name have no meaning.

    Raises
    ------
    av.FFmpegError
        If it cannot be opened.
    """
    # Because of the prefix, a name such as "concat:a.mp4" is not read as a protocol. Because of the whitelist,
    # playlists cannot access the network. Metadata need not be UTF-8: some cameras write Latin-1.
    return import_av().open(
        f"file:{path}", metadata_errors="replace", container_options={"protocol_whitelist": "file"}
    )


@contextmanager
def opened(path: str, name: str) -> Iterator[tuple[Any, Any]]:
    """Open a file: its container and its best video stream. PyAV's errors while opening become PhotoErrors."""
    av = import_av()
    with damage_named(name):
        try:
            container = open_container(path)
        except av.FFmpegError as error:
            if isinstance(error, OSError) and error.errno in _SYSTEM_ERRORS:
                raise PhotoError(name, system_reason(error)) from error
            empty = os.path.getsize(path) == 0
            advice = "" if name.lower().endswith(VIDEO_SUFFIXES) else advice_on(name)
            reason = "is empty" if empty else f"not a readable video, or it is cut short{advice}"
            raise PhotoError(name, reason) from error
    with container:
        with damage_named(name):
            stream = best_stream(container)
            if stream is None:
                held = [s for s in container.streams.video if not _is_cover(s)]
                codec = any(s.codec_context is None for s in held)
                raise PhotoError(
                    name,
                    "FFmpeg cannot decode its video, or the file is cut short"
                    if codec
                    else "has no video stream",
                )
            stream.thread_type = "AUTO"
        yield container, stream


def best_stream(container: Any) -> Any:
    """The best stream according to FFmpeg, except cover art; None if no stream can be decoded."""
    streams = _streams(container)
    best = container.streams.best("video")
    if best is not None and any(s.index == best.index for s in streams):
        return best
    return max(streams, key=lambda s: s.codec_context.width * s.codec_context.height, default=None)


def stream_warnings(container: Any, chosen: Any, name: str) -> list[str]:
    """A warning if a file has several video streams."""
    others = [s for s in _streams(container) if s.index != chosen.index]
    if not others:
        return []
    left = " and ".join(_described(s) for s in others)
    return [f"{name}: holds {len(others) + 1} video streams; {_described(chosen)} is read, {left} left out"]


def aspect_of(stream: Any) -> Fraction | None:
    """Width of a pixel divided by its height, if the file contains a plausible value."""
    aspect = stream.sample_aspect_ratio
    if not aspect or not Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT:
        return None
    return Fraction(aspect)


def promised_end(container: Any, stream: Any, rate: Fraction) -> tuple[Fraction | None, bool]:
    """When the last frame ends according to the header, and whether this may be the length of another stream.

    Returns
    -------
    end : Fraction or None
        Seconds on the container's own clock; None if the format does not contain it.
    shared : bool
        Whether the length is that of the whole file, whose sound may be longer.
    """
    kind = container.format.name
    if kind not in _FORMATS_WITH_LENGTH:
        return None, False
    base, start = Fraction(stream.time_base), stream.start_time or 0
    if kind == "avi" and stream.frames:
        # FFmpeg shortens the duration of an AVI that is cut short, but keeps the header's number of frames.
        return start * base + stream.frames / rate, False
    if stream.duration:
        return (start + stream.duration) * base, False
    length = Fraction(container.duration, 1_000_000) if container.duration else None
    tagged = _tagged_length(stream)
    if length is not None and tagged is not None and tagged <= length + 1:
        return tagged, False
    return length, len(container.streams) > 1


def ends_in_a_packet(path: str, container: Any) -> bool:
    """Whether a transport stream ends within one of its packets, which are of equal size."""
    size = os.path.getsize(path)
    return container.format.name == "mpegts" and all(size % packet for packet in _TS_PACKETS)


def last_picture_is_cut(path: str, container: Any, stream: Any) -> bool:
    """Whether the last picture of a transport stream seems cut: the end of a picture rarely fills its last packet.

    One in 184 complete files looks like this by chance, and many recordings of broadcasts stop at an arbitrary packet.
    """
    size = os.path.getsize(path)
    packet = next((length for length in _TS_PACKETS if size % length == 0), None)
    if container.format.name != "mpegts" or packet is None:
        return False
    with open(path, "rb") as file:
        file.seek(-min(size, 10_000 * packet), os.SEEK_END)
        tail = file.read()
    for place in range(len(tail) - packet, -1, -packet):
        sync, high, low, flags = tail[place + (4 if packet == 192 else 0) :][:4]
        if sync != 0x47:
            return False
        if (high & 0x1F) << 8 | low == stream.id:
            return not flags & 0x20  # no adaptation field, which pads a packet
    return False


class Holes:
    """Finds missing frames in formats whose reader skips damage silently.

    A hole is a place where bytes belong to no packet and the times jump. Either alone is not enough: the frame rate
    can vary, and a file can contain data that are not read.

    Parameters
    ----------
    frame : Fraction
        Seconds for which a frame is shown.
    """

    # In these formats, packets follow each other without gaps, and their positions are known.
    KINDS = ("matroska,webm", "flv", "nut")

    def __init__(self, frame: Fraction) -> None:
        self.frame = frame
        self._next: int | None = None
        self._reached: Fraction | None = None
        self.pending = False  # whether bytes were skipped since the last packet of the pictures

    def before(self, packet: Any, *, mine: bool) -> tuple[Fraction, Fraction] | None:
        """Begin and end, in the container's seconds, of what is missing before a packet; None if nothing is.

        Call this with the packets of all streams, and with ``mine`` for those of the pictures.
        """
        if packet.size and packet.pos is not None and packet.pos >= 0:
            self.pending |= self._next is not None and packet.pos - self._next > _MAX_OVERHEAD
            self._next = packet.pos + packet.size
        if not mine or packet.pts is None:
            return None
        time = packet.pts * Fraction(packet.time_base)
        before, hole, self.pending = self._reached, self.pending, False
        end = time + (packet.duration * Fraction(packet.time_base) if packet.duration else self.frame)
        self._reached = end if before is None else max(before, end)
        if hole and before is not None and time - before > self.frame / 2:
            return before, time
        return None


def _streams(container: Any) -> list[Any]:
    return [
        s
        for s in container.streams.video
        if not _is_cover(s) and s.codec_context is not None and s.codec_context.width
    ]


def _is_cover(stream: Any) -> bool:
    return bool(stream.disposition & import_av().stream.Disposition.attached_pic)


def _described(stream: Any) -> str:
    context = stream.codec_context
    return f"#{stream.index} ({context.name}, {context.width} x {context.height})"


def _tagged_length(stream: Any) -> Fraction | None:
    """Length of a track in Matroska, from a tag such as ``00:00:01.000000000``; the header has that of the file."""
    tag = stream.metadata.get("DURATION") or stream.metadata.get("DURATION-eng") or ""
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds)
    except (ValueError, ZeroDivisionError):
        return None
