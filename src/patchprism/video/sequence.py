"""Image sequences as clips, through the photo reader."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from patchprism.errors import PhotoError
from patchprism.images import read_photo
from patchprism.video.frames import BT709, Frame, Problems, Span, rgb_to_planes
from patchprism.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_READERS = 2


def gaps(numbers: set[int], pattern: str) -> list[str]:
    """What to say where a counter's numbers do not follow each other."""
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
        count = min(count, len(indices))
        chosen = {indices[int((i + 0.5) * len(indices) / count)] for i in range(count)} if indices else set()
        clip = PhotoClip([self.paths[i] for i in sorted(chosen)], self.rate, name=self.name)
        yield from clip.frames(Span(), planes=False)

    def _indices(self, span: Span) -> list[int]:
        return [
            i
            for i in range(len(self.paths))
            if i / self.rate >= (span.start or 0) and (span.end is None or i / self.rate < span.end)
        ][:: span.every]
