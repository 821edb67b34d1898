"""Animated pictures as clips: GIF, WebP and PNG, each frame laid over those before it as the file says.

Read by Pillow, as photos are, so that transparency and colour profiles come out as in photos. The FFmpeg that comes
with PyAV 18 does not read animated WebP, and of an animated PNG it gives what lies behind the transparency.
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
# Browsers and FFmpeg use this time for shorter ones, because old programs wrote 0 for "some time".
_SHORTEST, _INSTEAD = Fraction(2, 100), Fraction(1, 10)


def open_animation(path: str) -> AnimationClip | None:
    """The clip in a picture file that holds several frames; None for any other file.

    Raises
    ------
    PhotoError
        If it is an animation of which nothing can be read.
    """
    from PIL import Image

    head = b""
    try:
        with open(path, "rb") as file:
            head = file.read(32)
        if not head.startswith(_HEADS):
            return None
        with Image.open(path, formats=("GIF", "PNG", "WEBP")) as image:
            # The first picture of a PNG may be one for programs that show no animations.
            skipped = int(bool(image.info.get("default_image")))
            count = getattr(image, "n_frames", 1) - skipped
    except Exception as error:
        if head[12:16] == b"VP8X" and head[20:21] and head[20] & 2:
            # Pillow can open an animated WebP only as a whole.
            raise PhotoError(photo_name(path), f"is damaged or cut short ({error})") from error
        # The reader of photos or videos reports the error.
        return None
    return AnimationClip(path, skipped=skipped, promised=count) if count > 1 else None


class AnimationClip:
    """An animated picture as a clip; what can be read of a damaged one.

    Parameters
    ----------
    skipped : int
        Pictures at the beginning that are not part of the animation.
    promised : int
        Frames that the file says it holds.
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
        """At most ``count`` frames, evenly over the wanted ones in time."""
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
            # A copy contains only this frame; the object of the file stands for all frames.
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
        """The file's pictures one after the other, each composed; ends where one cannot be read."""
        from PIL import Image

        with Image.open(Path(self.path), formats=("GIF", "PNG", "WEBP")) as image:
            for index in range(self.skipped, self.skipped + self.promised):
                try:
                    image.seek(index)
                    image.load()
                except Exception as error:
                    # On bad files Pillow raises nearly everything.
                    self._failure = f"the file is damaged or cut short ({error})"
                    return
                yield image


def _duration(image: Any) -> Fraction:
    """Seconds that a frame is on show."""
    seconds = Fraction(image.info.get("duration") or 0).limit_denominator(100_000) / 1000
    return seconds if seconds > 0 and (image.format != "GIF" or seconds >= _SHORTEST) else _INSTEAD
