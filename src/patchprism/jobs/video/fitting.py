"""Run frames of a clip through the network, and fit a prism on some of them."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from patchprism.errors import PhotoError
from patchprism.features.extraction import Photos, batch_for, tokens_of
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.fitting import fit
from patchprism.jobs.opened import Opened
from patchprism.jobs.report import Colored, photo_entry
from patchprism.jobs.shards import Shards, Table
from patchprism.jobs.source import SHARD, MemorySource, read_all
from patchprism.jobs.video.frames import Span
from patchprism.jobs.video.relay import read_ahead
from patchprism.support.folders import LocalFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.jobs.lens import ClipLooking, FrameLens
    from patchprism.jobs.network import Network
    from patchprism.jobs.run import Run
    from patchprism.jobs.source import Source
    from patchprism.jobs.video.frames import Frame
    from patchprism.jobs.video.source import Clip
    from patchprism.photos.framing import Framed
    from patchprism.prism.estimator import Prism

    Seen = tuple[Frame, Framed, NDArray[np.float32]]

# A batch holds its frames in memory, and frames with few patches may still be large.
MAX_BATCH = 8


@dataclass(kw_only=True)
class Frames:
    """The frames of a clip and the network that computes their tokens."""

    clip: Clip
    span: Span
    backbone: Backbone
    network: Network
    batch_size: int | None
    seconds: float = field(default=0.0, init=False)  # spent in the network

    def name(self, frame: Frame) -> str:
        """Name of a frame in errors."""
        return f"{self.clip.name}, frame {frame.index}"

    def framed(self, frames: Iterator[Frame]) -> Iterator[tuple[Frame, Framed]]:
        """Each frame with its framed pixels."""
        show = self.network.options.refine > 1
        for frame in frames:
            yield frame, self.network.framing.apply(frame.rgb, name=self.name(frame), show=show)

    def tokens(self, items: Iterator[tuple[Frame, Framed]]) -> Iterator[Seen]:
        """Framed frames with their tokens, (h, w, D), in order."""
        batch: list[tuple[Frame, Framed]] = []
        patches = self.network.batch_patches
        assert patches is not None  # the engine is the local one
        for item in items:
            batch.append(item)
            if len(batch) >= (self.batch_size or min(batch_for(item[1].grid, patches), MAX_BATCH)):
                yield from self._forward(batch)
                batch = []
        if batch:
            yield from self._forward(batch)

    def _forward(self, batch: list[tuple[Frame, Framed]]) -> Iterator[Seen]:
        asked = time.perf_counter()
        tokens = list(tokens_of(self.backbone, [framed for _, framed in batch], self.network.options))
        self.seconds += time.perf_counter() - asked
        for (frame, framed), each in zip(batch, tokens, strict=True):
            yield frame, framed, each

    def at(self, time: Fraction) -> tuple[PhotoRow, NDArray[np.float32]]:
        """The first frame at or after a time, in seconds, with its tokens, (h, w, D)."""
        found = next(self.clip.frames(Span(start=time), planes=False), None)
        if found is None:
            raise PhotoError(self.clip.name, why_no_frame(self.clip, Span(start=time)))
        ((frame, framed, tokens),) = self.tokens(self.framed(iter([found])))
        return self.row(frame, framed, tokens), tokens

    def pixels(self, count: int) -> Iterator[Any]:
        """Framed pixels of at most ``count`` frames, evenly spread, each (3, H, W)."""
        for _, framed in self.framed(self.clip.spread(count, self.span)):
            yield framed.pixels

    def row(self, frame: Frame, framed: Framed, tokens: NDArray[np.float32]) -> PhotoRow:
        """The entry of a frame, like that of a photo."""
        name = f"{self.clip.name} at {float(frame.time):.3f} s"
        return PhotoRow(name, tokens.shape[:2], frame.rgb.shape[:2], framed.crop, framed.plain)


def fit_frames(
    prism: Prism, frames: Frames, count: int, run: Run, *, fitted: bool = False, looking: ClipLooking | None
) -> tuple[list[str], FrameLens | None]:
    """Fit a prism and a lens on at most ``count`` frames, evenly spread.

    Parameters
    ----------
    fitted : bool
        Whether the prism is fitted already.

    Returns
    -------
    list of str
        Hints about the prism.
    FrameLens or None
        None without a lens.
    """
    network = frames.network
    with _source_of_fit(frames, count, run) as source:
        opened = Opened(
            source=source,
            origin=network.origin,
            failures=[],
            framing=network.framing,
            record=network.record,
            weights=network.weights,
            settings={"layer": network.origin.get("layer", -1)},
        )
        hints: list[str] = []
        colored = Colored(opened=opened, prism=prism, fitted_here=not fitted)
        if not fitted:
            fit(prism, opened, run)
            if looking is None or looking.shows_foreground:
                with run.watch("fit prism"):
                    hints = colored.hints(_entries(prism, source))
        if looking is None:
            return hints, None
        with run.watch("fit lens"):
            return hints, looking.fit(colored, run, frames)


@contextmanager
def _source_of_fit(frames: Frames, count: int, run: Run) -> Iterator[Source]:
    """The frames of the fit, with their tokens: in memory, or on disk if there is more than one shard."""
    span = frames.span
    with ExitStack() as until:
        work = None
        if count > SHARD:
            scratch = until.enter_context(TemporaryDirectory(prefix="patchprism-"))
            work = Shards(LocalFolder(Path(scratch)), 0, "float32")
        rows: list[PhotoRow] = []
        tokens: list[NDArray[np.float32]] = []
        done = 0
        run.tell("fit", 0, count)
        with (
            run.watch("read photos and run network"),
            read_ahead(frames.framed(frames.clip.spread(count, span)), 2) as items,
        ):
            for frame, framed, each in frames.tokens(items):
                if len(rows) == SHARD:
                    _commit(work, rows, tokens)
                rows.append(frames.row(frame, framed, each))
                tokens.append(each)
                done += 1
                run.tell("fit", done, count)
        if not done:
            # Read again frame by frame to report the error.
            for _ in frames.clip.frames(span, planes=False):
                pass
            raise PhotoError(frames.clip.name, why_no_frame(frames.clip, span))
        run.tell("fit", done, done)
        if work is None:
            names = [row.name for row in rows]
            yield MemorySource(Photos(names, names), rows, tokens)
        else:
            _commit(work, rows, tokens)
            yield work


def _commit(work: Shards | None, rows: list[PhotoRow], tokens: list[NDArray[np.float32]]) -> None:
    """Write the frames of one shard, and clear the lists."""
    assert work is not None  # there are more frames than one shard holds
    work.write(work.n_shards, Table("", rows, width=tokens[0].shape[-1]), tokens)
    work.n_shards += 1
    rows.clear()
    tokens.clear()


def _entries(prism: Prism, source: Source) -> Iterator[dict[str, Any]]:
    """Entries of the frames, like those of photos in a report."""
    for index, (row, tokens) in enumerate(read_all(source)):
        part = prism.split(tokens, name=row.name)
        known = {"agreement": prism.agreements[index]} if index in prism.agreements else {}
        yield photo_entry(row, part, prism.doubts(tokens, part.foreground) | known)


def why_no_frame(clip: Clip, span: Span) -> str:
    """Why a clip has no frame."""
    if clip.problems.count:
        return f"no frame could be read ({clip.problems.named[0]})"
    if span.start is not None or span.end is not None:
        until = "its end" if span.end is None else f"{float(span.end):g} s"
        length = "" if clip.duration is None else f"; it is {float(clip.duration):.2f} s long"
        return f"holds no frame from {float(span.start or 0):g} s to {until}{length}"
    return "holds no frame"
