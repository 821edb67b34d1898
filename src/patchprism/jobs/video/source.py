"""Open the clip that a name stands for; read image sequences with the reader of photos."""

from __future__ import annotations

import glob
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.errors import OptionError, PhotoError
from patchprism.features.store import is_store
from patchprism.jobs.video.animation import AnimationClip, open_animation
from patchprism.jobs.video.file import DEFAULT_FPS, FileClip
from patchprism.jobs.video.frames import BT709, Frame, Problems, Span, rgb_to_planes
from patchprism.jobs.video.naming import counter_in
from patchprism.jobs.video.options import MAX_FPS, MIN_FPS
from patchprism.photos.images import read_photo
from patchprism.photos.paths import PHOTO_SUFFIXES, find_photos, photo_name, photo_suffixes
from patchprism.support import checks
from patchprism.support.folders import address_text, is_remote, local_path
from patchprism.support.reading import reading
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.jobs.video.naming import Counter

    Clip: TypeAlias = "FileClip | AnimationClip | PhotoClip"

__all__ = ["AnimationClip", "Clip", "FileClip", "PhotoClip", "open_clip"]

_READERS = 2


def open_clip(
    source: str | os.PathLike[str],
    *,
    fps: float | Fraction | None = None,
    range: Sequence[float] | None = None,
) -> Clip:
    """The clip that a name stands for: a video file, an animated picture, or a folder or pattern of photos.

    Parameters
    ----------
    source : path
        A file; a folder; a pattern with ``*`` or with a counter such as ``%04d``.
    fps : float, optional
        Frames per second of an image sequence, 25 by default. Not allowed for a video file or an animation.
    range : (low, high), optional
        As in :func:`~patchprism.read_photo`, for an image sequence; a video file has its own.

    Raises
    ------
    PhotoError
        If there is no such file, or it is not a video.
    OptionError
        If ``fps`` is not from 0.001 to 1000, or given with a video file.
    """
    if is_remote(source):
        raise PhotoError(
            address_text(source), "video can only read local files; copy it to this machine first"
        )
    name = os.fspath(local_path(source)) if address_text(source).startswith("file://") else os.fspath(source)
    rate = DEFAULT_FPS
    if fps is not None:
        rate = Fraction(checks.number("fps", fps, low=MIN_FPS, high=MAX_FPS)).limit_denominator(100_000)
    animation = open_animation(name) if os.path.isfile(name) else None
    photos = tuple(suffix for suffix in PHOTO_SUFFIXES if suffix not in (".gif", ".apng"))
    if animation or (os.path.isfile(name) and not name.lower().endswith(photos)):
        if fps is not None:
            raise OptionError(f"fps is only for sequences of photos; {name} has its own frame times")
        return animation or FileClip(name)
    if os.path.isfile(name):
        raise PhotoError(
            photo_name(name),
            "is a single photo: use `patchprism render`; a clip is a video file, or a folder or pattern "
            "of photos",
        )
    if is_store(name):
        raise PhotoError(photo_name(name), "is a feature store: use `patchprism render`")
    if os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name):
        raise PhotoError(photo_name(name), "is a pipe or a device, not a file")
    folder, base = os.path.split(name)
    counter = None if os.path.exists(name) else counter_in(base, "IN")
    if counter:
        shape = f"{glob.escape(counter.before)}*{glob.escape(counter.after)}"
        pattern = os.path.join(glob.escape(folder), shape)
        # A counter selects its files explicitly, like a path, so pictures of an earlier video are read, too.
        matches = [path for path in map(Path, glob.iglob(pattern)) if path.is_file()]
        numbers = {path: number for path in matches if (number := counter.number(path.name)) is not None}
        if not numbers or not base.lower().endswith(photo_suffixes()):
            raise PhotoError(photo_name(name), "matches no photo")
        paths = sorted(numbers, key=lambda path: (numbers[path], path.name))
        clip = PhotoClip(paths, rate, name=photo_name(source), range=range)
        clip.warnings += _gaps(clip.paths, counter, name)
        return clip
    if not os.path.exists(name) and counter_in(folder, "IN"):
        raise PhotoError(
            photo_name(name), "the counter must be in the name of the file; use * in names of folders"
        )
    with reading() as heard:
        paths = find_photos([name])
    clip = PhotoClip(paths, rate, name=photo_name(source), range=range)
    clip.warnings += heard.notes
    return clip


def _gaps(paths: list[Path], counter: Counter, pattern: str) -> list[str]:
    """Warning if the numbers of a counter are not consecutive."""
    numbers = {number for path in paths if (number := counter.number(path.name)) is not None}
    missing = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    if not missing:
        return []
    return [
        f"{pattern}: {counted(missing, 'number')} between {min(numbers)} and {max(numbers)} missing; "
        "the other frames follow each other without a gap"
    ]


class PhotoClip:
    """An image sequence as a clip. Photos that cannot be read or have another size are reported and left out."""

    def __init__(
        self, paths: list[Path], fps: Fraction, *, name: str, range: Sequence[float] | None = None
    ) -> None:
        self.paths, self.rate, self.name, self.range = paths, fps, name, range
        self.n_frames, self.duration = len(paths), len(paths) / fps
        self.time_base = 1 / fps
        self.problems = Problems()
        self.warnings: list[str] = []
        self._noted: set[str] = set()
        self.sound = False
        self.matrix = BT709

    def frames(self, span: Span, *, planes: bool) -> Iterator[Frame]:
        """The wanted frames in order; threads read ahead."""
        size: tuple[int, ...] | None = None
        ahead: deque[tuple[int, Future[tuple[NDArray[np.uint8], list[str]]]]] = deque()
        todo = iter(self._indices(span))
        with ThreadPoolExecutor(_READERS, thread_name_prefix="patchprism-read") as pool:
            try:
                while True:
                    while len(ahead) < 2 * _READERS and (index := next(todo, None)) is not None:
                        ahead.append((index, pool.submit(self._read, self.paths[index])))
                    if not ahead:
                        return
                    index, future = ahead.popleft()
                    try:
                        rgb, notes = future.result()
                    except PhotoError as error:
                        self.problems.add(str(error))
                        continue
                    for text in notes:
                        warning = f"{self.paths[index]}: {text}"
                        if text not in self._noted:  # only for the first photo that has this note
                            self.warnings.append(warning)
                        self._noted.add(text)
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

    def _read(self, path: Path) -> tuple[NDArray[np.uint8], list[str]]:
        with reading() as heard:
            return read_photo(path, range=self.range), heard.notes

    def spread(self, count: int, span: Span) -> Iterator[Frame]:
        """At most ``count`` of the wanted frames, evenly spaced."""
        indices = self._indices(span)
        count = min(count, len(indices))
        chosen = {indices[int((i + 0.5) * len(indices) / count)] for i in range(count)} if indices else set()
        clip = PhotoClip([self.paths[i] for i in sorted(chosen)], self.rate, name=self.name, range=self.range)
        yield from clip.frames(Span(), planes=False)

    def _indices(self, span: Span) -> list[int]:
        return [
            i
            for i, _ in enumerate(self.paths)
            if i / self.rate >= (span.start or 0) and (span.end is None or i / self.rate < span.end)
        ][:: span.every]
