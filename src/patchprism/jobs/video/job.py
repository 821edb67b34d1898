"""A clip in, the same clip in colours out."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.backbones import find_record
from patchprism.errors import OptionError, PhotoError, PrismError
from patchprism.features.extraction import batch_for, tokens_of
from patchprism.features.patch_features import PatchFeatures
from patchprism.jobs.coloring import Coloring
from patchprism.jobs.engines import open_engine
from patchprism.jobs.hints import hints_about
from patchprism.jobs.network import load_network, open_network
from patchprism.jobs.run import nobody
from patchprism.jobs.settings import Settings, Stopwatch, check_backbone
from patchprism.jobs.video.canvas import Canvas
from patchprism.jobs.video.frames import Frame, Problems, Span, import_av
from patchprism.jobs.video.options import Seconds, VideoOptions
from patchprism.jobs.video.relay import read_ahead, write_behind
from patchprism.jobs.video.sink import check_output, is_pictures, open_sink
from patchprism.jobs.video.source import AnimationClip, FileClip, open_clip
from patchprism.jobs.video.steady import FrameColors, Steady
from patchprism.prism.estimator import Prism
from patchprism.prism.options import MASK_OPTIONS
from patchprism.support import checks
from patchprism.support.files import check_target
from patchprism.support.folders import local_path
from patchprism.support.threads import leave_the_cores

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone, BackboneRecord, WeightsOrigin
    from patchprism.jobs.network import Network
    from patchprism.jobs.run import Tell
    from patchprism.jobs.video.sink import Sink
    from patchprism.jobs.video.source import Clip
    from patchprism.photos.framing import Framed

# A batch holds its frames in memory, and they may be large however few patches they have.
MAX_BATCH = 8


@dataclass(kw_only=True)
class VideoReport:
    """What came of a clip.

    Attributes
    ----------
    out : Path
    frames : int
        Frames written.
    size : tuple of int
        Height and width of what was written.
    grid : tuple of int
        Rows and columns of patches a frame.
    fps : float
        Frames worked off a second, from the first to the last.
    sound : str
        ``"copied"``, ``"re-encoded from ... to ..."``, ``"left out"`` or ``"none"``.
    n_problems : int
        Packets, frames or photos that could not be read, or only in part.
    problems : list of str
        The first ten of them by name.
    warnings : list of str
        What else the user should know.
    hints : list of str
        What a person should know before believing the pictures, by the frames that the prism was fitted on.
    prism : Prism
    fitted_here : bool
        Whether the prism was fitted on this clip.
    record : BackboneRecord
    weights : WeightsOrigin
    seconds : dict
        Time spent in each stage: ``load model``, ``read photos and run network`` and ``fit prism`` for the frames
        of the fit, ``colour and write`` for all frames.
    network_seconds : float
        How much of ``colour and write`` was the network's.
    """

    out: Path
    frames: int = 0
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (0, 0)
    fps: float = 0.0
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


def render_video(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    layout: str | None = None,
    overlay: float | None = None,
    upsample: str | None = None,
    smooth: bool = False,
    steady: bool = True,
    start: Seconds | None = None,
    end: Seconds | None = None,
    every: int = 1,
    fps: float | None = None,
    fit_frames: int = 32,
    crf: int | None = None,
    sound: bool = True,
    model: str | None = None,
    weights: str | None = None,
    preset: str | None = None,
    size: int | None = None,
    stride: int | None = None,
    range: tuple[float, float] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    threshold: float | str | None = None,
    foreground: str | None = None,
    foreground_component: int | None = None,
    scaling: str | None = None,
    components: tuple[int, int, int] | None = None,
    space: str | None = None,
    layer: int | Sequence[int] | None = None,
    facet: str | None = None,
    final_norm: bool | None = None,
    token_norm: str | None = None,
    tile: int | None = None,
    refine: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    batch_size: int | None = None,
    prism: Prism | None = None,
    save_prism: str | os.PathLike[str] | None = None,
    force: bool = False,
    backbone: Backbone | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> VideoReport:
    """Colour the frames of a clip, all with one prism, in memory that does not grow with its length.

    Parameters
    ----------
    source : path
        A video file; an animated GIF, WebP or PNG; or an image sequence: a folder, or a pattern with ``*`` or a
        counter such as ``%04d``.
    out : path
        ``.mp4``, ``.mov`` and ``.mkv`` (H.264) or ``.webm`` (VP9), with even sides (an odd last row or column
        of a panel is cut off); or a folder, or a pattern such as ``frames/%04d.png``, for PNG pictures.
    layout : {"side", "overlay", "colors"}, default="side"
        The frame beside its colours, under them, or the colours alone.
    overlay : float in [0, 1], optional
        Opacity of the colours over the frame; without ``layout`` it means ``"overlay"``, where it is 0.6
        by default.
    upsample : {"nearest", "bilinear", "guided"}, default="nearest"
        How patches become pixels: each patch as a rectangle, blended from patch to patch, or along the edges of
        the frame.
    smooth : bool
        The old name of ``upsample="bilinear"``.
    steady : bool, default=True
        Keep patches still where nothing moves; see :class:`~patchprism.jobs.video.steady.Steady`. Without it every
        frame has the colours that it would have as a photo.
    start, end : float, optional
        Seconds: frames from ``start`` on and before ``end``.
    every : int
        Each how manyth frame is taken; it stays on show as long as all that it stands for.
    fps : float, optional
        Frames a second of an image sequence, 25 by default.
    fit_frames : int
        The prism is fitted on so many frames, evenly spread over the time that is wanted.
    crf : int, optional
        Quality of the video, less is better: H.264 18 of 0 to 51, VP9 30 of 0 to 63.
    sound : bool
        Keep the sound: copied where the format can hold it, else encoded anew.
    range : (low, high), optional
        As in :func:`~patchprism.visualize`, for an image sequence.
    model, weights, preset, size, mean, std, threshold, foreground, foreground_component, scaling, components, space
    layer, facet, final_norm, token_norm, device, dtype, batch_size
        As in :func:`~patchprism.visualize`.
    prism : Prism, optional
        Colour with this one instead of fitting.
    save_prism : path, optional
        Also save the prism here.
    force, backbone
        As in :func:`~patchprism.visualize`.
    progress : callable, optional
        Called as ``progress(stage, done, total or None)`` with the stages ``fit`` and ``frames``, and those of
        a download.

    Returns
    -------
    VideoReport

    Raises
    ------
    PatchPrismError
        One of its children: an option, the clip, the model, its weights, the prism or the output cannot be
        used. Nothing is at ``out`` then that was not there before.
    """
    if prism is not None and not isinstance(prism, Prism):
        checks.refuse("prism", "a Prism, as Prism.load reads one", prism)
    return color_clip(
        source,
        out,
        VideoOptions(
            layout=layout,
            overlay=overlay,
            upsample=upsample,
            smooth=smooth,
            steady=steady,
            start=start,
            end=end,
            every=every,
            fps=fps,
            fit_frames=fit_frames,
            crf=crf,
            sound=sound,
            save_prism=save_prism,  # type: ignore[arg-type]  # becomes a text
        ),
        Settings(
            model=model,
            weights=weights,
            preset=preset,
            size=size,
            stride=stride,
            tile=tile,
            refine=refine,
            range=range,
            mean=mean,
            std=std,
            threshold=threshold,
            foreground=foreground,
            foreground_component=foreground_component,
            scaling=scaling,
            components=components,
            space=space,
            layer=layer,
            facet=facet,
            final_norm=final_norm,
            token_norm=token_norm,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        ),
        Coloring(prism=prism, force=checks.flag("force", force)),
        backbone=backbone,
        progress=progress,
    )


def color_clip(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: VideoOptions,
    settings: Settings,
    coloring: Coloring,
    *,
    backbone: Backbone | None = None,
    progress: Callable[[str, int, int | None], None] | None = None,
) -> VideoReport:
    """The same as :func:`render_video`, with its options put together."""
    import_av()
    span = Span(start=options.start, end=options.end, every=options.every)  # type: ignore[arg-type]  # checked
    source, out = checks.path("source", source), checks.path("out", out)
    checks.callback("progress", progress)
    check_backbone("backbone", backbone)
    prism, save_prism, crf = coloring.prism, options.save_prism, options.crf
    if backbone:
        dtype = str(backbone.dtype).removeprefix("torch.")
        settings = replace(settings, model=backbone.record.name, dtype=dtype)
    values, settings = settings.range, settings.resolved(prism)
    # Everything that can be refused is refused before anything heavy is loaded.
    fitted = coloring.unfitted(settings)
    settings.framing(backbone.record if backbone else find_record(str(settings.model)))
    check_output(out, source, crf)
    clip = open_clip(source, fps=options.fps, range=settings.range)
    if values is not None and isinstance(clip, FileClip):
        raise OptionError(f"range is for image sequences; {clip.name} is a video")
    read = [clip.path] if isinstance(clip, FileClip | AnimationClip) else clip.paths
    used = [settings.weights, settings.model, prism.loaded_from if prism else None]
    if save_prism is not None:
        check_target(save_prism, read, read=[out, *used])
    if not is_pictures(local_path(out)):
        check_target(out, read, read=used)
    canvas = Canvas(
        layout=options.layout or ("side" if options.overlay is None else "overlay"),
        alpha=options.overlay,
        upsample=options.upsample or "nearest",
        matrix=clip.matrix,
    )
    watch, tell = Stopwatch(), progress or nobody
    with watch("load model"):
        backbone = backbone or load_network(settings, tell)
        network = open_network(settings, backbone=backbone, engine=open_engine(), tell=tell)
    if prism and any(getattr(prism, name) != unset for name, unset in MASK_OPTIONS.items()):
        raise PrismError(
            "videos show the foreground that was fitted: this prism shows another (it was saved with a "
            "mask, an opening or a closing); save it without"
        )
    coloring.check(network.origin)
    frames = _Frames(clip=clip, backbone=backbone, network=network, batch_size=settings.batch_size)
    hints = frames.fit(fitted, span, options.fit_frames, watch, tell) if prism is None else []
    if save_prism is not None:
        fitted.save(save_prism)
    report = VideoReport(
        out=local_path(out),
        prism=fitted,
        fitted_here=prism is None,
        hints=hints,
        record=backbone.record,
        weights=backbone.weights,
        seconds=watch.seconds,
    )
    steadied = Steady(fitted.threshold_, fitted.side_) if options.steady else None
    job = _Job(frames, span, FrameColors(fitted), steadied, canvas, watch, tell)
    job.run(report, crf=crf, sound=options.sound)
    return report


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """Frames of a clip to tokens: decoded and framed in a thread ahead of the network."""

    clip: Clip
    backbone: Backbone
    network: Network
    batch_size: int | None

    def framed(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Framed]]:
        """Each frame with what the network gets; for a thread of its own."""
        leave_the_cores()
        framing = self.network.framing
        for frame in frames:
            shown = self.network.options.refine > 1
            yield frame, framing.apply(frame.rgb, name=self.name(frame), show=shown)

    def name(self, frame: Frame) -> str:
        """What to call a frame in errors."""
        return f"{self.clip.name}, frame {frame.index}"

    def tokens(self, batch: list[tuple[Frame, Framed]]) -> NDArray[np.float32]:
        """Tokens of a batch, (B, h, w, D)."""
        framed = [framed for _, framed in batch]
        return np.stack(list(tokens_of(self.backbone, framed, self.network.options)))

    def batches(self, items: Iterator[tuple[Frame, Framed]]) -> Iterator[list[tuple[Frame, Framed]]]:
        """Framed frames, as many at a time as the network takes."""
        batch: list[tuple[Frame, Framed]] = []
        patches = self.network.batch_patches
        assert patches is not None  # the engine is the local one
        for item in items:
            batch.append(item)
            if len(batch) >= (self.batch_size or min(batch_for(item[1].grid, patches), MAX_BATCH)):
                yield batch
                batch = []
        if batch:
            yield batch

    def fit(self, prism: Prism, span: Span, count: int, watch: Stopwatch, tell: Tell) -> list[str]:
        """Fit a prism on at most ``count`` frames, evenly spread; what a person should know of it."""
        tokens: list[NDArray[np.float32]] = []
        names: list[str] = []
        plain: list[str] = []
        tell("fit", 0, count)
        with (
            watch("read photos and run network"),
            read_ahead(self.framed(self.clip.spread(count, span)), 2) as items,
        ):
            for batch in self.batches(items):
                tokens += list(self.tokens(batch))
                its = [f"{self.clip.name} at {float(frame.time):.3f} s" for frame, _ in batch]
                names += its
                plain += [name for name, (_, framed) in zip(its, batch, strict=True) if framed.plain]
                tell("fit", len(tokens), count)
        if not tokens:
            # Looked for once more, frame by frame, to say what is wrong.
            for _ in self.clip.frames(span, planes=False):
                pass
            raise PhotoError(self.clip.name, _nothing(self.clip, span))
        tell("fit", len(tokens), len(tokens))
        with watch("fit prism"):
            prism.fit(PatchFeatures(tokens, names))
            prism.origin = self.network.origin
            return _hints(prism, names, tokens, plain)


class _Job:
    """Frames through decode, network, colours and encode; the first and the last in threads beside the network."""

    def __init__(
        self,
        frames: _Frames,
        span: Span,
        colors: FrameColors,
        steady: Steady | None,
        canvas: Canvas,
        watch: Stopwatch,
        tell: Tell,
    ) -> None:
        self.frames, self.clip, self.span = frames, frames.clip, span
        self.colors, self.steady, self.canvas = colors, steady, canvas
        self.watch, self.tell = watch, tell

    def run(self, report: VideoReport, *, crf: int | None, sound: bool) -> None:
        pictures = is_pictures(report.out)
        whole = self.span.start is None
        total = _expected(self.clip, self.span)
        self.tell("frames", 0, total)
        wanted = self.clip.frames(self.span, planes=not pictures)
        with self.watch("colour and write"), read_ahead(self.frames.framed(wanted), 2) as items:
            batches = self.frames.batches(items)
            first_batch = next(batches, None)
            if first_batch is None:
                raise PhotoError(self.clip.name, _nothing(self.clip, self.span))
            first = first_batch[0][0]
            began = time.perf_counter()
            with (
                open_sink(
                    report.out,
                    self.clip,
                    self.canvas,
                    first=first,
                    every=self.span.every,
                    crf=crf,
                    whole=whole,
                    sound=sound,
                ) as sink,
                write_behind(partial(self._colour_and_write, sink), 4) as write,
            ):
                batch: list[tuple[Frame, Framed]] | None = first_batch
                while batch:
                    asked = time.perf_counter()
                    tokens = self.frames.tokens(batch)
                    report.network_seconds += time.perf_counter() - asked
                    for (frame, framed), each in zip(batch, tokens, strict=True):
                        write((frame, framed, each))
                        report.frames += 1
                    self.tell("frames", report.frames, total)
                    batch = next(batches, None)
            report.fps = report.frames / (time.perf_counter() - began)
        report.grid = first_batch[0][1].grid
        report.size = self.canvas.size(*first.rgb.shape[:2], even=not pictures)
        report.sound, report.warnings = sink.sound, [*self.clip.warnings, *sink.warnings]
        problems: Problems = self.clip.problems
        report.n_problems, report.problems = problems.count, problems.named

    def _colour_and_write(self, sink: Sink, item: tuple[Frame, Framed, NDArray[np.float32]]) -> None:
        """A frame's last steps, in the thread that encodes: meanwhile the network has the next frame."""
        frame, framed, tokens = item
        patches = self.colors.split(tokens, name=self.frames.name(frame))
        if self.steady:
            patches = self.steady(patches)
        sink.write(frame, patches, framed.crop)


def _hints(
    prism: Prism, names: Sequence[str], tokens: Sequence[NDArray[np.float32]], plain: Sequence[str]
) -> list[str]:
    """What a person should know before believing the pictures, by the frames that the prism was fitted on."""
    colors, frames = FrameColors(prism), []
    for index, (name, each) in enumerate(zip(names, tokens, strict=True)):
        foreground = colors.split(each, name=name).foreground
        found: dict[str, Any] = {"photo": name, "share": float(foreground.mean())}
        if index in prism.agreements:
            found["agreement"] = prism.agreements[index]
        frames.append(found | prism.doubts(each, foreground))
    shares = np.array([frame["share"] for frame in frames])
    return hints_about(shares, prism, fitted_here=True, plain=plain, photos=frames)


def _expected(clip: Clip, span: Span) -> int | None:
    if clip.duration is None:
        return None
    end = clip.duration if span.end is None else min(span.end, clip.duration)
    length = max(end - (span.start or 0), Fraction(0))
    count = clip.n_frames if clip.n_frames and length == clip.duration else round(length * clip.rate)
    return max(1, -(-count // span.every))


def _nothing(clip: Clip, span: Span) -> str:
    if clip.problems.count:
        return f"no frame could be read ({clip.problems.named[0]})"
    if span.start is not None or span.end is not None:
        until = "its end" if span.end is None else f"{float(span.end):g} s"
        length = "" if clip.duration is None else f"; it is {float(clip.duration):.2f} s long"
        return f"holds no frame from {float(span.start or 0):g} s to {until}{length}"
    return "holds no frame"
