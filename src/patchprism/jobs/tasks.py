"""Tasks of workers on shards: run the network, fold a pass, write pictures, write chunks of a store.

Tasks and their results are small and can be pickled. Tokens and pictures go through folders that all workers see,
never through the engine.
"""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import FeaturesError, PhotoError
from patchprism.features.extraction import Batches, Photos, PhotoTokens, extract
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.shards import Shards, Table
from patchprism.jobs.source import SHARD, Failure, read_named
from patchprism.photos.sources import (
    content_of,
    read_source,
)
from patchprism.support.memory import give_back_memory
from patchprism.support.reading import Note, reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.options import TokenOptions
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.layout import ArraySpec
    from patchprism.jobs.source import Source
    from patchprism.photos.framing import Framed, Framing
    from patchprism.prism.passes import Pass
    from patchprism.support.folders import Folder


def nothing() -> None:
    """Callback that does nothing."""


# ---------------------------------------------------------------- the network


@dataclass(frozen=True)
class PhotoRun:
    """A shard to do.

    Attributes
    ----------
    key : str
        Digest of all that its tokens depend on.
    names : list of str
        Paths or addresses.
    excluded : dict
        Photos that must not be read again, by their place in ``names``, with the reason.
    """

    shard: int
    key: str
    names: list[str]
    excluded: Mapping[int, str] = field(default_factory=dict)


@dataclass(eq=False)
class ExtractTask:
    """Photos of a shard -> its tokens and table in the work folder; the result is the table.

    Attributes
    ----------
    load : callable
        Returns the backbone; called once per worker.
    batch_size, batch_patches : int, optional
        As in :func:`~patchprism.features.extraction.extract`.
    reader : callable
        A name -> (H, W, 3) uint8.
    options : TokenOptions, optional
        Which tokens; the backbone's own patch tokens by default.
    seen : callable, optional
        Called for each photo that is done or has failed, before its shard is; only for tasks in this process.
    """

    needs_device = True

    load: Callable[[], Backbone]
    framing: Framing
    shards: Shards
    _: KW_ONLY
    batch_size: int | None = None
    batch_patches: int | None = None
    reader: Callable[[str], NDArray[np.uint8]] = read_source
    options: TokenOptions | None = None
    seen: Callable[[], None] | None = None
    _backbone: Backbone | None = field(default=None, init=False)

    def run(self, items: Iterable[PhotoRun]) -> Iterator[Table]:
        """See :class:`~patchprism.jobs.engines.Task`."""
        self._backbone = backbone = self._backbone or self.load()
        feed = _Feed(items, self.reader, self.seen or nothing)
        feed.shows = self.options is not None and self.options.refine > 1
        for tokens in extract(
            feed,
            backbone,
            self.framing,
            indices=feed.indices(),
            batches=Batches(size=self.batch_size, patches=self.batch_patches, shard=SHARD),
            failed=feed.fail,
            options=self.options,
        ):
            feed.done[tokens.index // SHARD].append(tokens)
            feed.seen()
            yield from self._commit(feed, backbone)
        yield from self._commit(feed, backbone)
        assert not feed.open, "every photo of a shard is done or has failed"

    def _commit(self, feed: _Feed, backbone: Backbone) -> Iterator[Table]:
        """Write the shards that are complete, in their order."""
        while feed.open:
            run = feed.open[0]
            done, failed = feed.done[run.shard], feed.failed[run.shard]
            if len(done) + len(failed) < len(run.names):
                return
            feed.forget(run)
            done.sort(key=lambda tokens: tokens.index)
            rows = [
                PhotoRow(
                    run.names[tokens.index % SHARD],
                    (tokens.tokens.shape[0], tokens.tokens.shape[1]),
                    tokens.size,
                    tokens.crop,
                    tokens.plain,
                    feed.contents.pop(tokens.index),
                )
                for tokens in done
            ]
            lost = [Failure(run.names[at], failed[at]) for at in sorted(failed)]
            notes = [
                Note(run.names[tokens.index % SHARD], text)
                for tokens in done
                for text in feed.notes.pop(tokens.index, ())
            ]
            width = done[0].tokens.shape[2] if rows else 0
            table = Table(run.key, rows, lost, width, notes, backbone.device.type, asdict(backbone.weights))
            self.shards.write(run.shard, table, [tokens.tokens for tokens in done])
            done.clear()
            give_back_memory()
            yield table


class _Feed(Photos):
    """The photos of the shards in progress; their index is ``shard * SHARD + place``."""

    def __init__(
        self,
        items: Iterable[PhotoRun],
        reader: Callable[[str], NDArray[np.uint8]],
        seen: Callable[[], None],
    ) -> None:
        super().__init__([], [])
        self.shows = False  # whether crops are needed in addition to pixels
        self.items, self.reader, self.seen = items, reader, seen
        self.open: deque[PhotoRun] = deque()
        self.runs: dict[int, PhotoRun] = {}
        self.done: dict[int, list[PhotoTokens]] = {}
        self.failed: dict[int, dict[int, str]] = {}
        self.contents: dict[int, str] = {}  # of photos that are read, until their shard is committed

    def indices(self) -> Iterator[int]:
        for run in self.items:
            self.runs[run.shard] = run
            self.done[run.shard], self.failed[run.shard] = [], dict(run.excluded)
            self.open.append(run)
            yield from (run.shard * SHARD + at for at in range(len(run.names)) if at not in run.excluded)

    def frame(self, index: int, framing: Framing) -> tuple[Framed, tuple[int, int]]:
        """A framed photo and its (H, W); the photo is not kept."""
        name = self.name(index)
        with reading() as heard:
            photo = self.reader(name)
            framed = framing.apply(photo, name=name, show=self.shows)
        self.notes[index] = tuple(heard.notes)
        self.contents[index] = content_of(photo)
        return framed, (photo.shape[0], photo.shape[1])

    def name(self, index: int) -> str:
        """Name of a photo, as in its run."""
        return self.runs[index // SHARD].names[index % SHARD]

    def fail(self, index: int, error: PhotoError) -> None:
        self.failed[index // SHARD][index % SHARD] = error.reason
        self.seen()

    def forget(self, run: PhotoRun) -> None:
        self.open.popleft()
        del self.runs[run.shard], self.done[run.shard], self.failed[run.shard]


@dataclass(eq=False)
class ProbeTask:
    """Reads and frames one photo and does nothing else, so that only the photo can crash the worker."""

    needs_device = False

    framing: Framing
    reader: Callable[[str], NDArray[np.uint8]] = read_source

    def run(self, items: Iterable[str]) -> Iterator[None]:
        """See :class:`~patchprism.jobs.engines.Task`."""
        for name in items:
            with contextlib.suppress(PhotoError):  # reported when the shard is done
                self.framing.apply(self.reader(name), name=name, show=False)
            yield None


# ---------------------------------------------------------------- passes


@dataclass(eq=False)
class FoldTask:
    """Runs of shards -> a pass over their photos, or over those in ``only``, which contains their places in the job."""

    needs_device = False

    make: Callable[[], Pass]
    source: Source
    only: Mapping[str, int] | None = None

    def run(self, items: Iterable[tuple[int, int]]) -> Iterator[Pass]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is the first shard and the one after the last."""
        for start, stop in items:
            made = self.make()
            for shard in range(start, stop):
                for index, row, tokens in self._photos(shard):
                    try:
                        made.update(tokens, index)
                    except FeaturesError as error:
                        raise FeaturesError(f"{row.name}: {error}") from error
            yield made

    def _photos(self, shard: int) -> Iterator[tuple[int, PhotoRow, Tokens]]:
        """The photos of a shard with their places in the job."""
        if self.only is None:
            for place, (row, tokens) in enumerate(self.source.read(shard)):
                yield shard * SHARD + place, row, tokens
            return
        for row, tokens in read_named(self.source, shard, self.only):
            yield self.only[row.name], row, tokens


# ---------------------------------------------------------------- stores


@dataclass(eq=False)
class ChunkTask:
    """Chunks of a store's tokens -> their files, from the shards that contain their rows."""

    needs_device = False

    shards: Shards
    spec: ArraySpec
    out: Folder

    def run(self, items: Iterable[tuple[int, list[tuple[int, int, int]]]]) -> Iterator[int]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is a chunk, and its runs of patches by shard."""
        for chunk, runs in items:
            rows = [
                self.shards.patches(shard, self.shards.table(shard), start, stop)
                for shard, start, stop in runs
            ]
            self.out.write(self.spec.key(chunk), self.spec.encode(np.concatenate(rows)))
            yield chunk
