"""Reading clips: files through PyAV, image sequences through the photo reader; one frame at a time."""

from __future__ import annotations

import glob
import os
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism import checks
from patchprism.errors import OptionError, PhotoError
from patchprism.images import read_photo
from patchprism.paths import PHOTO_SUFFIXES, find_photos, photo_name
from patchprism.video.frames import (
    BT601,
    BT709,
    Frame,
    Problems,
    Span,
    import_av,
    planes_of,
    rgb_to_planes,
    turning,
)
from patchprism.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.video.frames import Turn

DEFAULT_FPS = Fraction(25)
# Time bases are fractions of small numbers.
MIN_FPS, MAX_FPS = 0.001, 1000
# Seconds that are rather decoded than jumped over: most encoders place a point to jump to every 2 to 10 s.
_STRIDE = 4.0
# The reader gives up when this many reads in a row fail: the rest of the file is noise.
_MAX_BAD_READS = 64
_READERS = 2


def open_clip(source: str | os.PathLike[str], *, fps: float | Fraction | None = None) -> FileClip | PhotoClip:
    """The clip that a name means: a video file, or a folder or pattern of photos.

    Parameters
    ----------
    source : path
        A file; a folder; a pattern with ``*`` or with a counter such as ``%04d``.
    fps : float, optional
        Frames a second of an image sequence, 25 by default; of a video file it is an error.

    Raises
    ------
    PhotoError
        If there is no such file, or it is no video.
    OptionError
        If ``fps`` is not from 0.001 to 1000, or given with a video file.
    """
    name = os.fspath(source)
    rate = DEFAULT_FPS
    if fps is not None:
        rate = Fraction(checks.number("fps", fps, low=MIN_FPS, high=MAX_FPS)).limit_denominator(100_000)
    if os.path.isfile(name) and not name.lower().endswith(tuple(s for s in PHOTO_SUFFIXES if s != ".gif")):
        if fps is not None:
            raise OptionError(f"fps is for image sequences; {name} has its own frame times")
        return FileClip(name)
    counter = re.search(r"%0?(\d*)d", name)
    if counter and not os.path.exists(name):
        pattern = glob.escape(name[: counter.start()]) + "[0-9]*" + glob.escape(name[counter.end() :])
        if not any(Path(match).is_file() for match in glob.iglob(pattern)):
            raise PhotoError(photo_name(name), "matches no photo")
        clip = PhotoClip(find_photos([pattern]), rate, name=photo_name(source))
        clip.warnings += _gaps(clip.paths, name)
        return clip
    return PhotoClip(find_photos([name]), rate, name=photo_name(source))


def _gaps(paths: list[Path], pattern: str) -> list[str]:
    """What to say where a counter's numbers do not follow each other."""
    # Of the files' own names: a counter in a folder's name is nobody's.
    shape = re.compile(r"(\d+)".join(map(re.escape, re.split(r"%0?\d*d", Path(pattern).name, maxsplit=1))))
    numbers = {int(found[1]) for path in paths if shape.groups and (found := shape.fullmatch(path.name))}
    missing = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    if not missing:
        return []
    return [
        f"{pattern}: {counted(missing, 'number')} between {min(numbers)} and {max(numbers)} not there; "
        "the frames follow each other all the same"
    ]


class PhotoClip:
    """An image sequence as a clip. Photos that cannot be read, or have another size, are named and left out."""

    def __init__(self, paths: list[Path], fps: Fraction, *, name: str) -> None:
        self.paths, self.rate, self.name = paths, fps, name
        self.n_frames, self.duration = len(paths), len(paths) / fps
        self.time_base = 1 / fps
        self.problems = Problems()
        self.warnings: list[str] = []
        self.sound = False
        self.matrix = BT709

    def frames(self, span: Span, *, planes: bool) -> Iterator[Frame]:
        """The wanted frames in order, read ahead of whoever takes them."""
        size: tuple[int, ...] | None = None
        ahead: deque[tuple[int, Future[NDArray[np.uint8]]]] = deque()
        todo = iter(self._indices(span))
        with ThreadPoolExecutor(_READERS, thread_name_prefix="patchprism-read") as pool:
            try:
                while True:
                    while len(ahead) < 2 * _READERS and (index := next(todo, None)) is not None:
                        ahead.append((index, pool.submit(read_photo, self.paths[index])))
                    if not ahead:
                        return
                    index, future = ahead.popleft()
                    try:
                        rgb = future.result()
                    except PhotoError as error:
                        self.problems.add(str(error))
                        continue
                    size = size or rgb.shape
                    if rgb.shape != size:
                        self.problems.add(
                            f"{self.paths[index]}: has {rgb.shape[1]} x {rgb.shape[0]} pixels, "
                            f"the first frame {size[1]} x {size[0]}"
                        )
                        continue
                    yield Frame(
                        index=index,
                        time=index / self.rate,
                        rgb=rgb,
                        planes=rgb_to_planes(rgb) if planes else None,
                    )
            finally:
                for _, future in ahead:
                    future.cancel()

    def spread(self, count: int, span: Span) -> Iterator[Frame]:
        """At most ``count`` frames, evenly over the wanted ones."""
        indices = self._indices(span)
        chosen = {indices[int((i + 0.5) * len(indices) / count)] for i in range(count)} if indices else set()
        clip = PhotoClip([self.paths[i] for i in sorted(chosen)], self.rate, name=self.name)
        yield from clip.frames(Span(), planes=False)

    def _indices(self, span: Span) -> list[int]:
        return [
            i
            for i in range(len(self.paths))
            if i / self.rate >= (span.start or 0) and (span.end is None or i / self.rate < span.end)
        ][:: span.every]


class FileClip:
    """A video file as a clip.

    Attributes
    ----------
    name : str
    rate : Fraction
        Frames a second, on average.
    duration : Fraction or None
        Seconds, where the file says.
    n_frames : int or None
        An estimate.
    time_base : Fraction
        Unit of the frames' times.
    sound : bool
    matrix : int
        What the planes' colours mean, in FFmpeg's numbers.
    problems : Problems
        What went wrong in the last call of :meth:`frames`.
    """

    def __init__(self, path: str) -> None:
        self.path, self.name = path, photo_name(path)
        with self._opened() as (_, stream):
            self.rate = Fraction(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            self.time_base = Fraction(stream.time_base)
            container = stream.container
            self.sound = any(True for _ in container.streams.audio)
            self.origin = Fraction(container.start_time or 0, 1_000_000)
            self.duration: Fraction | None = None
            if stream.duration:
                self.duration = stream.duration * self.time_base
            elif container.duration:
                self.duration = Fraction(container.duration, 1_000_000)
            first = Fraction(stream.start_time) * self.time_base if stream.start_time is not None else None
            # A container may begin with the run-in of its sound, which nobody hears; the picture begins the clip then.
            if first is not None and first - self.origin < Fraction(1, 10):
                self.origin = first
            self.n_frames = stream.frames or (round(self.duration * self.rate) if self.duration else None)
            self.aspect = stream.sample_aspect_ratio  # of a pixel; None or 0 where nobody says
            said = stream.codec_context.colorspace
            height = stream.codec_context.height
        # What nobody says is guessed as players do: by size.
        self.matrix = said if said == BT709 or said in BT601 else BT709 if height >= 720 else BT601[1]
        self.problems = Problems()
        self.warnings: list[str] = []
        self._size: tuple[int, int] | None = None
        self._turn: Turn | None = None

    def frames(self, span: Span, *, planes: bool) -> Iterator[Frame]:
        """The wanted frames in order."""
        self.problems = Problems()
        last: Fraction | None = None
        seen = -1
        with self._opened() as (container, stream):
            # With --every the frames before the start are not counted, so that they need not be decoded.
            self._seek(container, stream, span.start)
            for number, raw in enumerate(self._decode(container, stream, self.problems)):
                time = self._time(raw, number)
                if time < (span.start or 0):
                    continue
                if span.end is not None and time >= span.end:
                    return
                if last is not None and time <= last:
                    self.problems.add(f"frame at {float(time):.3f} s: not after the one before it")
                    continue
                last, seen = time, seen + 1
                if seen % span.every == 0:
                    yield self._frame(raw, number, time, planes=planes)
            expected = min(x for x in (self.duration, span.end) if x is not None) if self.duration else None
            if last is not None and expected and expected - last > max(Fraction(1), 3 / self.rate):
                self.problems.add(
                    f"ends at {float(last):.2f} of {float(expected):.2f} s: the file is cut short"
                )

    def spread(self, count: int, span: Span) -> Iterator[Frame]:
        """At most ``count`` frames, evenly over the wanted ones in time; jumps where it can."""
        start = span.start or Fraction(0)
        end = self.duration if span.end is None else min(span.end, self.duration or span.end)
        if end is None or end <= start:
            end = self._scan_end(start, span.end)
        targets = deque(start + (end - start) * Fraction(2 * i + 1, 2 * count) for i in range(count))
        quiet = Problems()
        with self._opened() as (container, stream):
            can_seek = stream.start_time is not None
            decoded = enumerate(self._decode(container, stream, quiet))
            held: tuple[int, Any, Fraction] | None = None  # what is on show until the next frame comes
            while targets:
                if can_seek and targets[0] > (held[2] if held else 0) + Fraction(_STRIDE):
                    can_seek = self._seek(container, stream, targets[0])
                    if can_seek:
                        decoded, held = enumerate(self._decode(container, stream, quiet)), None
                following = None
                for number, raw in decoded:
                    time = self._time(raw, number)
                    if held and held[2] >= start and time > targets[0]:
                        following = (number, raw, time)
                        break
                    held = (number, raw, time)
                if held is None or held[2] < start or (span.end is not None and held[2] >= span.end):
                    return
                yield self._frame(held[1], held[0], held[2], planes=False)
                if following is None:
                    return
                held = following
                # A frame that is still on show for the next targets counts once.
                while targets and targets[0] < held[2]:
                    targets.popleft()

    def _scan_end(self, start: Fraction, end: Fraction | None) -> Fraction:
        """Seconds until the last packet, by reading all of them without decoding; for files that do not say."""
        last, count = Fraction(0), 0
        with self._opened() as (container, stream):
            for packet in self._packets(container, stream, Problems()):
                count += packet.size > 0
                if packet.pts is not None:
                    last = max(last, packet.pts * self.time_base - self.origin)
        last = (last or (count - 1) / self.rate) + 1 / self.rate
        return max(last if end is None else min(last, end), start + 1 / self.rate)

    # -- PyAV ----------------------------------------------------------------------------------------------

    def _opened(self) -> Any:
        return _Opened(self.path, self.name)

    def _seek(self, container: Any, stream: Any, time: Fraction | None) -> bool:
        if not time or stream.start_time is None:
            return False
        av = import_av()
        try:
            container.seek(int((time + self.origin) / self.time_base), stream=stream, backward=True)
        except av.FFmpegError:
            return False
        return True

    def _packets(self, container: Any, stream: Any, problems: Problems) -> Iterator[Any]:
        av = import_av()
        bad = 0
        while bad < _MAX_BAD_READS:
            try:
                for packet in container.demux(stream):
                    bad = 0
                    yield packet
                return
            except av.EOFError:
                return
            except av.FFmpegError as error:
                bad += 1
                if bad == 1:
                    problems.add(f"damaged file: {error.strerror}")

    def _decode(self, container: Any, stream: Any, problems: Problems) -> Iterator[Any]:
        av = import_av()
        for packet in self._packets(container, stream, problems):
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

    def _time(self, raw: Any, number: int) -> Fraction:
        """Seconds from the clip's beginning; by the count where the file has no times."""
        if raw.pts is None:
            return number / self.rate
        return int(raw.pts) * Fraction(raw.time_base or self.time_base) - self.origin

    def _frame(self, raw: Any, number: int, time: Fraction, *, planes: bool) -> Frame:
        width = max(2, round(raw.width * self.aspect)) if self.aspect else raw.width
        size = self._size = self._size or (width, raw.height)
        # A clip may change its size in the middle; it keeps that of its first frame here.
        resize = {} if (raw.width, raw.height) == size else {"width": size[0], "height": size[1]}
        # Asked of the first frame alone: what PyAV hands out holds the frame, and the frame it, so that of every frame
        # asked the picture stayed in memory until Python looked for such circles (130 MB of frames of 640 x 360).
        turn = self._turn = self._turn or turning(raw)
        matrix = self.matrix if raw.format.name.startswith(("yuv", "nv", "p0")) else None
        rgb = planes_of(raw.reformat(format="rgb24", src_colorspace=matrix, **resize))[0]
        if not planes:
            return Frame(index=number, time=time, rgb=turn(rgb), planes=None)
        options = {"src_colorspace": matrix, "dst_colorspace": matrix or BT709}
        if raw.format.name == "yuv420p" and not resize and raw.color_range != 2:
            yuv = raw
        else:
            yuv = raw.reformat(format="yuv420p", dst_color_range="MPEG", **options, **resize)
        y, u, v = planes_of(yuv)
        return Frame(index=number, time=time, rgb=turn(rgb), planes=(turn(y), turn(u), turn(v)))


class _Opened:
    """An open container and its video stream, with PyAV's errors named."""

    def __init__(self, path: str, name: str) -> None:
        self.path, self.name = path, name

    def __enter__(self) -> tuple[Any, Any]:
        av = import_av()
        try:
            self.container = av.open(self.path)
        except OSError as error:
            raise PhotoError(self.name, (error.strerror or str(error)).lower()) from error
        except av.FFmpegError as error:
            empty = os.path.getsize(self.path) == 0
            reason = "is empty" if empty else "is no video that can be read, or is cut short"
            raise PhotoError(self.name, reason) from error
        pictures = [
            s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic
        ]
        if not pictures or not pictures[0].codec_context.width:
            self.container.close()
            raise PhotoError(self.name, "has no video stream")
        pictures[0].thread_type = "AUTO"
        return self.container, pictures[0]

    def __exit__(self, *_: object) -> None:
        self.container.close()
