"""Draw a clip: decode, network, colours, encode. Decoding and encoding run in threads beside the network."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from patchprism.errors import PhotoError
from patchprism.jobs.video.fitting import why_no_frame
from patchprism.jobs.video.relay import read_ahead, write_behind
from patchprism.jobs.video.sink import is_pictures, open_sink
from patchprism.jobs.video.steady import all_foreground

if TYPE_CHECKING:
    from pathlib import Path

    from patchprism.backbones import BackboneRecord, WeightsOrigin
    from patchprism.jobs.lens import FrameLens
    from patchprism.jobs.run import Tell
    from patchprism.jobs.video.canvas import Canvas
    from patchprism.jobs.video.fitting import Frames, Seen
    from patchprism.jobs.video.frames import Span
    from patchprism.jobs.video.sink import Sink
    from patchprism.jobs.video.source import Clip
    from patchprism.jobs.video.steady import FrameColors, PatchColors, Steady
    from patchprism.prism.estimator import Prism


@dataclass(kw_only=True)
class VideoReport:
    """The outcome of a video job.

    Attributes
    ----------
    frames : int
        Number of frames written.
    size : tuple of int
        Height and width of the output.
    grid : tuple of int
        Rows and columns of patches per frame.
    fps : float
        Frames processed per second, from the first to the last.
    lens : str
        Meaning of the colours of a lens; empty for the colours of the prism.
    sound : str
        ``"copied"``, ``"re-encoded from ... to ..."``, ``"left out"`` or ``"none"``.
    n_problems : int
        Number of packets, frames or photos that could not be read completely.
    problems : list of str
        Descriptions of the first ten of them.
    warnings : list of str
        Further notes for the user.
    hints : list of str
        What to know before you rely on the pictures, according to the frames of the fit.
    fitted_here : bool
        Whether the prism was fitted on this clip.
    seconds : dict
        Time spent in each stage: ``load model``, ``read photos and run network`` and ``fit prism`` for the frames
        of the fit, ``colour and write`` for all frames.
    network_seconds : float
        Time of the network within ``colour and write``.
    """

    out: Path
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (0, 0)
    fps: float = 0.0
    lens: str = ""
    sound: str = "none"
    n_problems: int = 0
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    prism: Prism
    fitted_here: bool
    record: BackboneRecord
    weights: WeightsOrigin
    seconds: dict[str, float]
    network_seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How a clip is drawn and written."""

    frames: Frames
    colors: FrameColors
    lens: FrameLens | None
    steady: Steady | None
    canvas: Canvas
    crf: int | None
    sound: bool

    def write(self, report: VideoReport, tell: Tell) -> None:
        """Colour and write all wanted frames, and complete the report."""
        clip, frames, span = self.frames.clip, self.frames, self.frames.span
        pictures = is_pictures(report.out)
        total = expected_frames(clip, span)
        tell("frames", 0, total)
        before = frames.seconds
        with read_ahead(frames.framed(clip.frames(span, planes=not pictures)), 2) as items:
            began = time.perf_counter()
            seen = frames.tokens(items)
            first = next(seen, None)
            if first is None:
                raise PhotoError(clip.name, why_no_frame(clip, span))
            with (
                open_sink(
                    report.out,
                    clip,
                    self.canvas,
                    first=first[0],
                    every=span.every,
                    crf=self.crf,
                    from_start=span.start is None,
                    sound=self.sound,
                ) as sink,
                write_behind(partial(self._color_and_write, sink), 4) as write,
            ):
                for each in chain([first], seen):
                    write((each, self._through_lens(each)))
                    report.frames += 1
                    tell("frames", report.frames, total)
            report.fps = report.frames / (time.perf_counter() - began)
        report.network_seconds = frames.seconds - before
        report.grid = first[2].shape[:2]
        report.size = self.canvas.size(*first[0].rgb.shape[:2], even=not pictures)
        report.sound, report.warnings = sink.sound, [*report.warnings, *clip.warnings, *sink.warnings]
        report.n_problems, report.problems = clip.problems.count, clip.problems.named

    def _through_lens(self, seen: Seen) -> PatchColors | None:
        """Colours of a frame from the lens, in the network's thread, because a lens may run the network, too."""
        if self.lens is None:
            return None
        frame, framed, tokens = seen
        score = self.colors.split(tokens, name=self.frames.name(frame)).score
        return all_foreground(self.lens.paint(tokens, score, framed.pixels))

    def _color_and_write(self, sink: Sink, item: tuple[Seen, PatchColors | None]) -> None:
        """Do the last steps of a frame in the encoding thread, while the network works on the next frame."""
        (frame, framed, tokens), patches = item
        if patches is None:
            patches = self.colors.split(tokens, name=self.frames.name(frame))
        if self.steady:
            patches = self.steady(patches)
        sink.write(frame, patches, framed.crop)


def expected_frames(clip: Clip, span: Span) -> int | None:
    """Expected number of frames; None if the clip does not contain its length."""
    if clip.duration is None:
        return None
    end = clip.duration if span.end is None else min(span.end, clip.duration)
    length = max(end - (span.start or 0), Fraction(0))
    count = clip.n_frames if clip.n_frames and length == clip.duration else round(length * clip.rate)
    return max(1, -(-count // span.every))
