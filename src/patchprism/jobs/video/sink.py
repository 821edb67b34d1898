"""Write videos and numbered pictures. An output appears only when it is complete."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from patchprism.errors import OptionError, OutputError
from patchprism.jobs.video.frames import import_av, planes_of
from patchprism.jobs.video.naming import Counter, counter_in
from patchprism.jobs.video.sound import Sound
from patchprism.jobs.video.source import FileClip
from patchprism.pictures.render import write_picture
from patchprism.support.files import (
    atomic_write,
    clean_parts,
    held_folder,
    part_beside,
    refuse_no_folder,
)
from patchprism.support.folders import address_text, is_remote, local_path, system_reason
from patchprism.support.words import counted
from patchprism.support.written import Output, promise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from patchprism.jobs.video.canvas import Canvas, Crop
    from patchprism.jobs.video.frames import Frame
    from patchprism.jobs.video.source import Clip
    from patchprism.jobs.video.steady import PatchColors

_CODECS = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx-vp9"}
DEFAULT_CRF = {"libx264": 18, "libvpx-vp9": 30}
_MAX_CRF = {"libx264": 51, "libvpx-vp9": 63}
# The preset superfast takes 0.6 of the time of veryfast, which takes a third of that of medium, x264's default. But its
# files are up to 90 % larger. Four fifths of this growth are due to one feature that superfast turns off, although it
# takes hardly any time: the macroblock tree, which spends more bits on what later frames are predicted from. Measured
# by benchmarks/video.py --only presets.
_OPTIONS = {
    "libx264": {"preset": "superfast", "x264-params": "mbtree=1:rc-lookahead=10"},
    "libvpx-vp9": {"b": "0", "deadline": "realtime", "cpu-used": "8", "row-mt": "1"},
}
_PICTURE = "frame-%06d.png"
# Largest side that the encoders of H.264 and VP9 accept.
_MAX_SIDE = {"libx264": 16384, "libvpx-vp9": 65535}


class Sink(Protocol):
    """Writes the frames of a clip, in order."""

    sound: str
    warnings: list[str]

    def write(self, frame: Frame, patches: PatchColors, crop: Crop) -> None:
        """Paint and write one frame."""


def check_output(out: str | os.PathLike[str], source: str | os.PathLike[str], crf: int | None) -> None:
    """Refuse an output that cannot be written, before anything heavy is done.

    Raises
    ------
    OptionError
        If the name has no known suffix, or ``crf`` is out of range.
    OutputError
        If the folder does not exist or cannot be written to, or ``out`` is the clip itself.
    """
    if is_remote(out):
        raise OutputError(
            address_text(out), "video can only write local files; write to this machine and copy the result"
        )
    path = local_path(out)
    suffix = path.suffix.lower()
    pictures = is_pictures(path)
    if not pictures and suffix not in _CODECS:
        raise OptionError(
            f"out must end in {', '.join(_CODECS)}, or be a folder or a pattern like frames/%04d.png for pictures, "
            f"got {str(path)!r}"
        )
    if crf is not None:
        if pictures:
            raise OptionError("crf is only for videos; PNG pictures are lossless")
        top = _MAX_CRF[_CODECS[suffix]]
        if not 0 <= crf <= top:
            raise OptionError(f"crf must lie from 0 to {top} for {suffix}, got {crf}")
    folder = _folder_and_name(path)[0].absolute() if pictures else path.absolute()
    if not pictures and path.is_dir():
        raise OutputError(str(path), "it is a folder")
    if os.path.exists(source) and path.exists() and os.path.samefile(source, path):
        raise OutputError(str(path), "this job reads it")
    if pictures:
        refuse_no_folder(_folder_and_name(path)[0])
    if not folder.parent.is_dir():
        raise OutputError(str(path), "its folder does not exist; create it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(str(path), "permission denied")
    if pictures and folder.is_dir():
        counter = _folder_and_name(path)[1]
        if any(counter.number(name) is not None for name in os.listdir(folder)):
            raise OutputError(
                str(folder),
                "it already holds numbered pictures, which would get mixed up with the new ones; choose "
                "another folder",
            )
    clean_parts(folder.parent)


def is_pictures(out: Path) -> bool:
    """Whether an output means numbered PNG pictures: a folder, or a pattern with a counter."""
    return (
        out.is_dir()
        or not out.suffix
        or (out.suffix.lower() == ".png" and counter_in(out.name, "out") is not None)
    )


def _folder_and_name(out: Path) -> tuple[Path, Counter]:
    counter = None if out.is_dir() else counter_in(out.name, "out")
    if counter:
        return out.parent, counter
    default = counter_in(_PICTURE, "out")
    assert default is not None
    return out, default


@contextmanager
def open_sink(
    out: Path,
    clip: Clip,
    canvas: Canvas,
    *,
    first: Frame,
    every: int,
    crf: int | None,
    from_start: bool,
    sound: bool,
) -> Iterator[Sink]:
    """Open a sink. Its result appears at ``out`` only if the block ends without an exception."""
    if is_pictures(out):
        with _PictureSink(out, canvas, has_sound=clip.sound and sound) as pictures:
            yield pictures
        return
    with atomic_write(out) as part:
        av = import_av()
        try:
            with _VideoSink(part, clip, canvas, first, every, crf, from_start, sound) as video:
                yield video
        except OSError:
            raise  # atomic_write reports it
        except av.FFmpegError as error:
            reason = f"the encoder or the file format failed ({error.strerror or error})"
            raise OutputError(str(out), reason) from error


@dataclass
class _VideoSink:
    path: Path
    clip: Clip
    canvas: Canvas
    first: Frame
    every: int
    crf: int | None
    from_start: bool
    with_sound: bool
    sound: str = "none"
    warnings: list[str] = field(default_factory=list)

    def __enter__(self) -> _VideoSink:
        av = import_av()
        suffix = self.path.suffix.lower()
        codec = _CODECS[suffix]
        height, width = self.canvas.size(*self.first.rgb.shape[:2], even=True)
        if not height or not width:
            raise OptionError(
                f"a video needs frames of 2 x 2 pixels or more, got {self.first.rgb.shape[1::-1]}"
            )
        if max(height, width) > _MAX_SIDE[codec]:
            raise OptionError(
                f"{suffix} holds at most {_MAX_SIDE[codec]:,} pixels per side, got {width:,} x {height:,}; "
                "write PNG pictures, or only the colors (layout='colors')"
            )
        self.origin, self.base = self.first.time, Fraction(self.clip.time_base)
        options = _OPTIONS[codec] | {"crf": str(DEFAULT_CRF[codec] if self.crf is None else self.crf)}
        self.container = av.open(
            os.fspath(self.path),
            "w",
            options={"movflags": "+faststart"} if suffix in (".mp4", ".mov") else {},
        )
        rate = Fraction(self.clip.rate / self.every).limit_denominator(1001)
        self.stream = self.container.add_stream(codec, rate=rate, options=options)
        self.stream.width, self.stream.height, self.stream.pix_fmt = width, height, "yuv420p"
        context = self.stream.codec_context
        context.time_base = self.base
        # FFmpeg's numbers: BT.709, or BT.601 of 625 or 525 lines, whose transfer curve is the same; video range.
        space = self.canvas.matrix if self.canvas.matrix in (1, 5) else 6
        context.colorspace = context.color_primaries = space
        context.color_trc = 1 if space == 1 else 6
        context.color_range = 1
        self._sound: Sound | None = None
        if self.with_sound and isinstance(self.clip, FileClip) and self.clip.sound:
            self._add_sound(self.clip, suffix)
        self._last: int | None = None  # time of the last frame
        self._first_dts: int | None = None
        self._gap = max(1, round(1 / (rate * self.base)))
        self._until: Fraction | None = None
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._close()

    def _add_sound(self, clip: FileClip, suffix: str) -> None:
        av = import_av()
        carried = None
        try:
            from_start = self.from_start and not self.origin
            carried = Sound(clip.path, suffix, origin=clip.origin + self.origin, from_start=from_start)
            carried.add_to(self.container)
        except (av.FFmpegError, ValueError, TypeError) as error:
            if carried:
                carried.close()
            self.sound = "left out"
            self.warnings.append(f"the sound is left out: {suffix} cannot hold it ({error})")
            return
        self._sound, self.sound = carried, carried.how

    def write(self, frame: Frame, patches: PatchColors, crop: Crop) -> None:
        av = import_av()
        picture = av.VideoFrame(self.stream.width, self.stream.height, "yuv420p")
        self.canvas.paint_planes(frame, patches, crop, planes_of(picture))
        time = frame.time - self.origin
        picture.pts, picture.time_base = round(time / self.base), self.base
        if self._last is not None:
            self._gap = max(picture.pts - self._last, 1)
        self._last, self._until = picture.pts, frame.until
        self._mux(self.stream.encode(picture))
        if self._sound:
            self._sound.until(time)

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            if self._first_dts is None:
                self._first_dts = packet.dts
            self.container.mux(packet)

    def _finish(self) -> None:
        end = Fraction(0)
        if self._last is not None:
            # Few clips contain how long their last frame is shown. In others, it is shown as long as the one before.
            end = (self._last + self._gap) * self.base
            if self._until is not None:
                end = self._until - self.origin
        packets = self.stream.encode(None)
        if packets and packets[-1].time_base == self.base:
            first = packets[0].dts if self._first_dts is None else self._first_dts
            # MP4 computes the length of a track from its packets in decoding order, which differs from the display
            # order, and the displayed part from the largest end of a packet.
            last, ticks = packets[-1], round(end / self.base)
            last.duration = ticks - min(last.dts - first, last.pts)
        self._mux(packets)
        if self._sound:
            self._sound.until(end)
            if self._sound.problems:
                damaged = counted(self._sound.problems, "damaged packet")
                self.warnings.append(f"the sound lacks {damaged}")

    def _close(self) -> None:
        # Closing writes the index, which fails if nothing was written before.
        av = import_av()
        if self._sound:
            self._sound.close()
        try:
            self.container.close()
        except av.FFmpegError:
            if self._last is not None:
                raise


class _PictureSink:
    def __init__(self, out: Path, canvas: Canvas, *, has_sound: bool) -> None:
        self.canvas = canvas
        self.folder, self.counter = _folder_and_name(out)
        self.count = 0
        self.sound = "left out" if has_sound else "none"
        self.warnings = ["the sound is left out: pictures hold none"] if has_sound else []
        self.part = part_beside(self.folder.absolute())
        self.output = Output(self.part)
        self._held = held_folder(self.part)

    def __enter__(self) -> _PictureSink:
        try:
            self._held.__enter__()
        except OSError as error:
            raise OutputError(str(self.folder), system_reason(error)) from error
        return self

    def write(self, frame: Frame, patches: PatchColors, crop: Crop) -> None:
        self.count += 1
        name = self.counter.name(self.count)
        try:
            with self.output.staged(name) as path:
                write_picture(path, self.canvas.paint_rgb(frame, patches, crop))
        except OutputError as error:
            raise OutputError(str(self.folder / name), error.reason) from error

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and not self.folder.exists():
                self.output.finish()
                os.replace(self.part, self.folder)
            elif kind is None:
                output = Output(self.folder)
                output.claim(self.output.written)
                for name, made in self.output.written.items():
                    promise(output.folder, name, made)
                    os.replace(self.part / name, self.folder / name)
                output.written |= self.output.written
                output.finish()
        except OSError as error:
            raise OutputError(str(self.folder), system_reason(error)) from error
        finally:
            shutil.rmtree(self.part, ignore_errors=True)
            self._held.__exit__(None, None, None)
