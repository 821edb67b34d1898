"""Animated pictures as clips: GIF, WebP and PNG. Each frame is composed with the earlier ones as the file specifies.

Pillow reads them, as it reads photos, so that transparency and colour profiles are handled in the same way. The FFmpeg
in PyAV 18 does not read animated WebP, and for animated PNG it gives the colours behind the transparency.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.errors import PhotoError
from patchprism.jobs.video.frames import BT709, Frame, Problems, Span, rgb_to_planes
from patchprism.photos.images import read_photo
from patchprism.photos.paths import photo_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADS = (b"GIF8", b"\x89PNG", b"RIFF")
# Like browsers and FFmpeg, use the default for shorter durations, because old programs wrote 0 for "some time".
_MIN_SECONDS, _DEFAULT_SECONDS = Fraction(2, 100), Fraction(1, 10)


def open_animation(path: str) -> AnimationClip | None:
    """The clip in a picture file that holds several frames; None for any other file.

    Raises
    ------
    PhotoError
        If it is an animation, but no frame can be read.
    """
    from PIL import Image

    head = b""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
        if not head.startswith(_HEADS):
            return None
        with Image.open(path, formats=("GIF", "PNG", "WEBP")) as image:
            # The first picture of a PNG may be meant for programs that do not show animations.
            skipped = int(bool(image.info.get("default_image")))
            count = getattr(image, "n_frames", 1) - skipped
    except Exception as error:
        if head[12:16] == b"VP8X" and head[20:21] and head[20] & 2:
            # Pillow opens an animated WebP only if it is complete.
            raise PhotoError(photo_name(path), f"is damaged or cut short ({error})") from error
        # The reader of photos or videos reports the error.
        return None
    return AnimationClip(path, skipped=skipped, promised=count) if count > 1 else None


class AnimationClip:
    """An animated picture as a clip. Of a damaged file, it has the frames that can be read.

    Parameters
    ----------
    skipped : int
        Number of pictures at the beginning that are not part of the animation.
    promised : int
        Number of frames according to the file.
    """

    def __init__(self, path: str, *, skipped: int, promised: int) -> None:
        self.path, self.paths, self.name = path, [Path(path)], photo_name(path)
        self.skipped, self.promised = skipped, promised
        self.problems = Problems()
        self.warnings: list[str] = []
        self.sound = False
        self.matrix = BT709
        self.time_base = Fraction(1, 1000)
        # Time at which each frame appears, and the end of the last. Known only after the file has been read.
        self.times = [Fraction(0)]
        self._failure = ""
        for image in self._images():
            self.times.append(self.times[-1] + _duration(image))
        self.n_frames, self.duration = len(self.times) - 1, self.times[-1]
        if not self.n_frames:
            raise PhotoError(self.name, self._failure)
        self.rate = self.n_frames / self.duration

    def frames(self, span: Span, *, planes: bool) -> Iterator[Frame]:
        """The wanted frames in order."""
        self.problems = Problems()
        wanted = self._indices(span)
        yield from self._read(wanted, span, planes=planes)
        if self.n_frames < self.promised and (span.end is None or span.end > self.duration):
            self.problems.add(
                f"ends after {self.n_frames} of {self.promised} frames: {self._failure or 'the file is cut short'}"
            )

    def spread(self, count: int, span: Span) -> Iterator[Frame]:
        """At most ``count`` of the wanted frames, evenly spaced in time."""
        start = span.start or Fraction(0)
        end = self.duration if span.end is None else min(span.end, self.duration)
        inside = [i for i in range(self.n_frames) if start <= self.times[i] < end]
        chosen, position = set(inside), 0
        if count < len(inside):
            chosen = set()
            for i in range(count):
                target = start + (end - start) * Fraction(2 * i + 1, 2 * count)
                while position + 1 < len(inside) and self.times[inside[position + 1]] <= target:
                    position += 1
                chosen.add(inside[position])
        yield from self._read(sorted(chosen), span, planes=False)

    def _indices(self, span: Span) -> list[int]:
        return [
            i
            for i in range(self.n_frames)
            if self.times[i] >= (span.start or 0) and (span.end is None or self.times[i] < span.end)
        ][:: span.every]

    def _read(self, wanted: list[int], span: Span, *, planes: bool) -> Iterator[Frame]:
        following = dict(zip(wanted, [*wanted[1:], None], strict=True))
        for index, image in enumerate(self._images()):
            if index not in following:
                continue
            # A copy contains only this frame, whereas the opened file contains all frames.
            rgb = read_photo(image.copy(), name=f"{self.name}, frame {index}")
            after = following[index]
            end = self.times[min(index + span.every, self.n_frames) if after is None else after]
            yield Frame(
                index=index,
                time=self.times[index],
                rgb=rgb,
                planes=rgb_to_planes(rgb) if planes else None,
                until=end if span.end is None else min(end, span.end),
            )
            if after is None:
                return

    def _images(self) -> Iterator[Any]:
        """The file's pictures in order, each fully composed, up to the first that cannot be read."""
        from PIL import Image

        with Image.open(Path(self.path), formats=("GIF", "PNG", "WEBP")) as image:
            for index in range(self.skipped, self.skipped + self.promised):
                try:
                    image.seek(index)
                    image.load()
                except Exception as error:
                    # For damaged files, Pillow raises nearly every kind of exception.
                    self._failure = f"the file is damaged or cut short ({error})"
                    return
                yield image


def _duration(image: Any) -> Fraction:
    """Seconds for which a frame is shown."""
    seconds = Fraction(image.info.get("duration") or 0).limit_denominator(100_000) / 1000
    return seconds if seconds > 0 and (image.format != "GIF" or seconds >= _MIN_SECONDS) else _DEFAULT_SECONDS
