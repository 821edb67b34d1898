"""Video files as clips, through PyAV; one frame at a time."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.errors import PhotoError
from patchprism.jobs.video.frames import BT601, BT709, Frame, Problems, Span, converted, import_av, turning
from patchprism.jobs.video.opened import (
    Holes,
    aspect_of,
    damage_named,
    ends_in_a_packet,
    last_picture_is_cut,
    opened,
    promised_end,
    stream_warnings,
)
from patchprism.photos.paths import photo_name
from patchprism.photos.plans import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from patchprism.jobs.video.frames import Turn

DEFAULT_FPS = Fraction(25)
# Distances up to this many seconds are decoded instead of skipped; most encoders set a seek point every 2 to 10 s.
_STRIDE = 4.0
_MARGIN = Fraction(2)
# The reader gives up when this many reads in a row fail: the rest of the file is noise.
_MAX_BAD_READS = 64


class FileClip:
    """A video file as a clip.

    Attributes
    ----------
    rate : Fraction
        Frames per second, on average.
    duration : Fraction or None
        Length in seconds, if the file contains it.
    n_frames : int or None
        Estimated number of frames.
    time_base : Fraction
        Unit of the frames' times.
    matrix : int
        Colour space of the planes, in FFmpeg's numbers.
    problems : Problems
        Problems in the last call of :meth:`frames`.
    """

    def __init__(self, path: str) -> None:
        self.path, self.paths, self.name = path, [Path(path)], photo_name(path)
        self.problems = Problems()
        self.warnings: list[str] = []
        with self._opened() as (container, stream), damage_named(self.name):
            self.index = stream.index
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            self.time_base = Fraction(stream.time_base)
            self.kind = container.format.name
            self.sound = any(True for _ in container.streams.audio)
            self.origin = Fraction(container.start_time or 0, 1_000_000)
            self.promised, self.shared = promised_end(container, stream, self.rate)
            self.duration: Fraction | None = None
            if stream.duration:
                self.duration = stream.duration * self.time_base
            elif container.duration:
                self.duration = Fraction(container.duration, 1_000_000)
            if self.promised is not None and not self.shared:
                self.duration = max(self.promised - self.origin, self.duration or Fraction(0))
                if self.kind == "matroska,webm":
                    self.duration = self.promised - self.origin
            first = Fraction(stream.start_time) * self.time_base if stream.start_time is not None else None
            # A container can begin with priming samples of its sound, which are not played. The clip then begins with
            # the first picture.
            if first is not None and first - self.origin < Fraction(1, 10):
                self.origin = first
            self.counted = stream.frames
            self.n_frames = stream.frames or (round(self.duration * self.rate) if self.duration else None)
            self.aspect = aspect_of(stream)
            space = stream.codec_context.colorspace
            height = stream.codec_context.height
            self.warnings += stream_warnings(container, stream, self.name)
        # If the colour space is not given, it is guessed by the size, as players do.
        self.matrix = space if space == BT709 or space in BT601 else BT709 if height >= 720 else BT601[1]
        self._size: tuple[int, int] | None = None
        self._turn: Turn | None = None
        self._read = 0  # number of video packets, including those that are decoded but not shown
        self._lost_the_rest = False  # whether the last reading ended with bytes that belong to no packet

    def frames(self, span: Span, *, planes: bool) -> Iterator[Frame]:
        """The wanted frames in order."""
        self.problems = Problems()
        last: Fraction | None = None
        end = Fraction(0)
        seen = -1
        with self._opened() as (container, stream):
            # ``every`` counts from the start, so that the frames before it need not be decoded.
            # Without an index, a seek may land behind the requested place.
            margin = _MARGIN if self.kind in ("mpeg", "mpegts") else Fraction(0)
            jumped = self._seek(container, stream, max((span.start or Fraction(0)) - margin, Fraction(0)))
            for number, raw in enumerate(self._decode(container, stream, self.problems)):
                time = self._time(raw, number, last, stream)
                if time < (span.start or 0):
                    # After a seek, these frames may be out of order.
                    last = time if last is None else max(last, time)
                    end = max(end, time + self._shown(raw))
                    continue
                if last is not None and time <= last:
                    self.problems.add(
                        f"frame at {float(time):.3f} s: its time is not later than that of the frame before"
                    )
                    continue
                last, end = time, time + self._shown(raw)
                if span.end is not None and time >= span.end:
                    return
                seen += 1
                if seen % span.every == 0 and (frame := self._frame(raw, number, time, planes=planes)):
                    yield frame
            self._check_the_end(container, stream, last, end, span, jumped=jumped)
        # An edit list may hide most frames of a file on purpose. A clip that is shorter than one of its frames,
        # however, has broken times.
        if not jumped and 2 * self._read < self.counted and self.duration and self.rate * self.duration < 1:
            self._warn(
                f"{self.name}: its header promises {self.counted} frames, but only {self._read} of them have a time"
            )

    def _check_the_end(
        self, container: Any, stream: Any, last: Fraction | None, end: Fraction, span: Span, *, jumped: bool
    ) -> None:
        """Compare what was read with what the header promises, after the end of the file."""
        if ends_in_a_packet(self.path, container):
            self.problems.add(f"ends at {float(last or 0):.2f} s within a packet: the file is cut short")
            return
        if last_picture_is_cut(self.path, container, stream):
            self._warn(
                f"{self.name}: its last picture, at {float(last or 0):.2f} s, is incomplete; the file may be "
                "cut short"
            )
        if self.promised is None:
            return
        if last is None and not jumped:
            self.problems.add("no frame of it can be decoded: the file is damaged or cut short")
            return
        promised = self.promised - self.origin
        expected = promised if span.end is None else min(promised, span.end)
        # Half a frame is for rounding. Headers of long clips are less exact than those of short ones.
        frame = max(1 / self.rate, end - last if last is not None else Fraction(0))
        tolerance = max(Fraction(3, 2) * frame, min(Fraction(1, 2), promised / 50))
        if (span.start or 0) >= expected or expected - end <= tolerance:
            return
        if (
            self.shared
            and not self._lost_the_rest
            and promised - self._scan_end(Fraction(0), None, everything=True) <= tolerance
        ):
            return  # the sound or a subtitle is longer
        self.problems.add(f"ends at {float(last or 0):.2f} of {float(expected):.2f} s: the file is cut short")

    def _warn(self, what: str) -> None:
        if what not in self.warnings:
            self.warnings.append(what)

    def spread(self, count: int, span: Span) -> Iterator[Frame]:
        """At most ``count`` of the wanted frames, evenly spaced in time; seeks if the file allows it."""
        start = span.start or Fraction(0)
        end = self.duration if span.end is None else min(span.end, self.duration or span.end)
        if end is None or end <= start:
            end = self._scan_end(start, span.end)
        step = (end - start) / count
        next_target = 0  # index in the times start + (next_target + 1 / 2) * step
        quiet = Problems()
        with self._opened() as (container, stream):
            can_seek = stream.start_time is not None
            decoded = enumerate(self._decode(container, stream, quiet))
            held: tuple[int, Any, Fraction] | None = None  # the frame that is shown until the next one
            last: Fraction | None = None
            while next_target < count:
                target = start + (next_target + Fraction(1, 2)) * step
                if can_seek and target > (held[2] if held else 0) + Fraction(_STRIDE):
                    can_seek = self._seek(container, stream, target)
                    if can_seek:
                        decoded, held = enumerate(self._decode(container, stream, quiet)), None
                        last = None
                following = None
                for number, raw in decoded:
                    time = last = self._time(raw, number, last, stream)
                    if held and held[2] >= start and time > target:
                        following = (number, raw, time)
                        break
                    held = (number, raw, time)
                if held is None or held[2] < start or (span.end is not None and held[2] >= span.end):
                    return
                if frame := self._frame(held[1], held[0], held[2], planes=False):
                    yield frame
                if following is None:
                    return
                held = following
                # A frame that is still shown at the next target times counts once.
                next_target = max(next_target + 1, ceil((held[2] - start) / step - Fraction(1, 2)))

    def _scan_end(self, start: Fraction, end: Fraction | None, *, everything: bool = False) -> Fraction:
        """Seconds until the end of the last packet, for files that do not contain their length.

        All packets are read, but not decoded. With ``everything``, the packets of all streams count, not only
        those of the pictures.
        """
        last, count = Fraction(0), 0
        with self._opened() as (container, stream):
            for packet in self._packets(container, stream, Problems(), everything=everything):
                count += packet.size > 0
                if packet.pts is not None:
                    length = (packet.duration or 0) if everything else 0
                    last = max(last, (packet.pts + length) * packet.time_base - self.origin)
        if everything:
            return last
        last = (last or (count - 1) / self.rate) + 1 / self.rate
        return max(last if end is None else min(last, end), start + 1 / self.rate)

    # -- PyAV ----------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        return opened(self.path, self.name)

    def _seek(self, container: Any, stream: Any, time: Fraction | None) -> bool:
        if not time or stream.start_time is None:
            return False
        av = import_av()
        try:
            container.seek(int((time + self.origin) / self.time_base), stream=stream, backward=True)
        except (av.FFmpegError, OverflowError):
            return False
        return True

    def _packets(
        self, container: Any, stream: Any, problems: Problems, *, everything: bool = False
    ) -> Iterator[Any]:
        """The packets of the pictures, or with ``everything`` of all streams; damaged parts are skipped."""
        av = import_av()
        holes = Holes(1 / self.rate) if self.kind in Holes.KINDS else None
        bad = 0
        while bad < _MAX_BAD_READS:
            try:
                for packet in container.demux():
                    bad = 0
                    mine = packet.stream.index == self.index
                    if holes and (hole := holes.before(packet, mine=mine)):
                        start, end = (float(each - self.origin) for each in hole)
                        problems.add(
                            f"nothing can be read between {start:.3f} and {end:.3f} s: the file is damaged"
                        )
                    if mine or everything:
                        yield packet
                self._lost_the_rest = bool(holes and holes.pending)
                return
            except av.EOFError:
                return
            except IndexError:
                continue  # PyAV does not know streams that begin in the middle of a file
            except av.FFmpegError as error:
                bad += 1
                if bad == 1:
                    problems.add(f"damaged file: {error.strerror}")

    def _decode(self, container: Any, stream: Any, problems: Problems) -> Iterator[Any]:
        av = import_av()
        self._read = 0
        for packet in self._packets(container, stream, problems):
            self._read += packet.size > 0
            where = ""
            if packet.pts is not None:
                where = f" at {float(packet.pts * self.time_base - self.origin):.3f} s"
            try:
                frames = packet.decode()
            except av.EOFError:
                return
            except av.FFmpegError as error:
                problems.add(f"packet{where}: {error.strerror}")
                continue
            for frame in frames:
                if frame.is_corrupt:
                    problems.add(f"frame{where}: damaged, shown as far as it could be decoded")
                yield frame

    def _time(self, raw: Any, number: int, last: Fraction | None, stream: Any) -> Fraction:
        """Seconds from the clip's beginning, computed from the frame's number if the file has no times."""
        base = Fraction(raw.time_base or self.time_base)
        if self.kind == "avi":
            # AVI has no display times, only the order of decoding. With B-frames, the decoder's output lags behind it.
            if raw.dts is not None:
                return int(raw.dts - stream.codec_context.reorder_depth) * base - self.origin
            if last is not None:
                return last + 1 / self.rate
        if raw.pts is None:
            return number / self.rate
        return int(raw.pts) * base - self.origin

    def _shown(self, raw: Any) -> Fraction:
        """Seconds for which a frame is shown, estimated if the file does not contain them."""
        return raw.duration * Fraction(raw.time_base or self.time_base) if raw.duration else 1 / self.rate

    def _frame(self, raw: Any, number: int, time: Fraction, *, planes: bool) -> Frame | None:
        """Convert a decoded frame. If FFmpeg cannot do that, note a problem and return None."""
        width = max(2, round(raw.width * self.aspect)) if self.aspect else raw.width
        size = self._size = self._size or (width, raw.height)
        if max(size[0] * size[1], raw.width * raw.height) > MAX_PIXELS:
            raise PhotoError(
                self.name, f"has frames of {size[0]:,} x {size[1]:,} pixels, more than {MAX_PIXELS:,}"
            )
        # If a clip changes its size in the middle, all frames get the size of the first one.
        resize = {} if (raw.width, raw.height) == size else {"width": size[0], "height": size[1]}
        # Only the first frame is asked. In PyAV, a frame and its side data refer to each other, so that every frame
        # that is asked stays in memory until Python's garbage collector runs (130 MB of frames of 640 x 360).
        turn = self._turn = self._turn or turning(raw)
        try:
            rgb, yuv = converted(raw, self.matrix, resize, planes=planes)
        except (import_av().FFmpegError, ValueError, TypeError, OverflowError) as error:
            self.problems.add(f"frame at {float(time):.3f} s: cannot be converted to RGB ({error})")
            return None
        turned = (turn(yuv[0]), turn(yuv[1]), turn(yuv[2])) if yuv else None
        return Frame(index=number, time=time, rgb=turn(rgb), planes=turned)
