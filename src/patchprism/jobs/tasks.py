"""What workers do with shards: run the network, fold a pass, write pictures, write a store's chunks.

Tasks keep what they are given small and picklable; results are small too. Tokens and pictures go through
folders that all workers see, never through the engine.
"""

from __future__ import annotations

import contextlib
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError, PhotoError
from patchprism.features.extraction import Photos, Tokens, extract
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.shards import SHARD, Lost, Shards, Table, digest
from patchprism.jobs.writers import write_arrays
from patchprism.photos.sources import (
    DRAWN_WITHOUT,
    content_of,
    read_again,
    read_source,
    read_stored,
    stamp_of,
)
from patchprism.pictures.histogram import count_scores
from patchprism.pictures.picture import PictureOptions, draw_picture, needs_photo, without_photo
from patchprism.pictures.render import write_picture
from patchprism.support.memory import give_back_memory
from patchprism.support.reading import BYTES_A_PIXEL, Note, claim, reading
from patchprism.support.written import Stamp, promise, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.features.extraction import TokenOptions
    from patchprism.features.store.layout import ArraySpec
    from patchprism.jobs.shards import Source
    from patchprism.photos.framing import Framed, Framing
    from patchprism.prism.estimator import PhotoColors, Prism
    from patchprism.prism.passes import Pass
    from patchprism.support.folders import Folder

WRITERS = 2


def nothing() -> None:
    """What is called where nobody wants to know."""


# ---------------------------------------------------------------- the network


@dataclass(frozen=True)
class PhotoRun:
    """A shard to do.

    Attributes
    ----------
    shard : int
    key : str
        Digest of all that its tokens depend on.
    names : list of str
        Paths or addresses.
    excluded : dict
        Reasons of photos that are not to be read again, by their place in ``names``.
    """

    shard: int
    key: str
    names: list[str]
    excluded: Mapping[int, str] = field(default_factory=dict)


class ExtractTask:
    """Photos of a shard -> its tokens and table in the work folder; the result is the table.

    Parameters
    ----------
    load : callable
        Gives the backbone; called once a worker.
    framing : Framing
    shards : Shards
    batch_size, batch_patches : int, optional
        As in :func:`~patchprism.features.extraction.extract`.
    reader : callable
        A name -> (H, W, 3) uint8.
    options : TokenOptions, optional
        Which tokens; the backbone's own patch tokens by default.
    seen : callable, optional
        Called for each photo that is done or has failed, long before its shard is; not for workers elsewhere.
    """

    needs_device = True

    def __init__(
        self,
        load: Callable[[], Backbone],
        framing: Framing,
        shards: Shards,
        *,
        batch_size: int | None = None,
        batch_patches: int | None = None,
        reader: Callable[[str], NDArray[np.uint8]] = read_source,
        options: TokenOptions | None = None,
        seen: Callable[[], None] | None = None,
    ) -> None:
        self.seen = seen
        self.load, self.framing, self.shards, self.reader = load, framing, shards, reader
        self.options = options
        self.batch_size, self.batch_patches = batch_size, batch_patches
        self._backbone: Backbone | None = None

    def run(self, items: Iterable[PhotoRun]) -> Iterator[Table]:
        """See :class:`~patchprism.jobs.engines.Task`."""
        self._backbone = backbone = self._backbone or self.load()
        feed = _Feed(items, self.reader, self.seen or nothing)
        for tokens in extract(
            feed,
            backbone,
            self.framing,
            indices=feed.indices(),
            batch_size=self.batch_size,
            batch_patches=self.batch_patches,
            shard=SHARD,
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
            lost = [Lost(run.names[at], failed[at]) for at in sorted(failed)]
            notes = [
                Note(run.names[tokens.index % SHARD], text)
                for tokens in done
                for text in feed.notes.pop(tokens.index, ())
            ]
            table = Table(run.key, rows, lost, done[0].tokens.shape[2] if rows else 0, notes)
            self.shards.write(run.shard, table, [tokens.tokens for tokens in done])
            done.clear()
            give_back_memory()
            yield table


class _Feed(Photos):
    """The photos of the shards under way; index ``shard * SHARD + place``."""

    def __init__(
        self,
        items: Iterable[PhotoRun],
        reader: Callable[[str], NDArray[np.uint8]],
        seen: Callable[[], None],
    ) -> None:
        super().__init__([], [])
        self.items, self.reader, self.seen = items, reader, seen
        self.open: deque[PhotoRun] = deque()
        self.runs: dict[int, PhotoRun] = {}
        self.done: dict[int, list[Tokens]] = {}
        self.failed: dict[int, dict[int, str]] = {}
        self.contents: dict[int, str] = {}  # of photos that are read, until their shard is committed

    def indices(self) -> Iterator[int]:
        for run in self.items:
            self.runs[run.shard] = run
            self.done[run.shard], self.failed[run.shard] = [], dict(run.excluded)
            self.open.append(run)
            yield from (run.shard * SHARD + at for at in range(len(run.names)) if at not in run.excluded)

    def frame(self, index: int, framing: Framing) -> tuple[Framed, tuple[int, int]]:
        """A photo framed, and its (H, W); nothing of it is kept."""
        name = self.name(index)
        with reading() as heard:
            photo = self.reader(name)
            framed = framing.apply(photo, name=name, show=False)
        self.notes[index] = tuple(heard.notes)
        self.contents[index] = content_of(photo)
        return framed, (photo.shape[0], photo.shape[1])

    def name(self, index: int) -> str:
        """As the run names it."""
        return self.runs[index // SHARD].names[index % SHARD]

    def fail(self, index: int, error: PhotoError) -> None:
        self.failed[index // SHARD][index % SHARD] = error.reason
        self.seen()

    def forget(self, run: PhotoRun) -> None:
        self.open.popleft()
        del self.runs[run.shard], self.done[run.shard], self.failed[run.shard]


class ProbeTask:
    """Reads and frames one photo, and nothing else: what kills a worker here is the photo."""

    needs_device = False

    def __init__(self, framing: Framing, reader: Callable[[str], NDArray[np.uint8]] = read_source) -> None:
        self.framing, self.reader = framing, reader

    def run(self, items: Iterable[str]) -> Iterator[None]:
        """See :class:`~patchprism.jobs.engines.Task`."""
        for name in items:
            with contextlib.suppress(PhotoError):  # reported where the shard is done
                self.framing.apply(self.reader(name), name=name, show=False)
            yield None


# ---------------------------------------------------------------- passes


class FoldTask:
    """Runs of shards -> a pass over their photos, or over those that ``only`` gives a place in the job."""

    needs_device = False

    def __init__(
        self, make: Callable[[], Pass], source: Source, only: Mapping[str, int] | None = None
    ) -> None:
        self.make, self.source, self.only = make, source, only

    def run(self, items: Iterable[tuple[int, int]]) -> Iterator[Pass]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is the first shard and the one after the last."""
        for start, stop in items:
            made = self.make()
            for shard in range(start, stop):
                for place, (row, tokens) in enumerate(self.source.read(shard)):
                    index = shard * SHARD + place if self.only is None else self.only.get(row.name)
                    if index is None:
                        continue
                    try:
                        made.update(tokens, index)
                    except FeaturesError as error:
                        raise FeaturesError(f"{row.name}: {error}") from error
            yield made


# ---------------------------------------------------------------- pictures


class DrawTask:
    """Shards -> their photos' pictures in the output folder; the result is what there is to report of them.

    Parameters
    ----------
    prism : Prism
    source : Source
    out, work : Folder
    options : PictureOptions
    key : str
        Digest of all that pictures depend on beside the photos of the shard, their tokens and their files' stems.
    places : collection of str, optional
        Where the tokens are a store's: as in :func:`~patchprism.photos.sources.read_stored`. Photos may be gone then.
        Where one is, from a store or not, its overlay is left out, and what else asks for it is drawn without it.
    reader, seen : callable
        As in :class:`ExtractTask`.
    """

    needs_device = False

    def __init__(
        self,
        prism: Prism,
        source: Source,
        out: Folder,
        work: Folder,
        options: PictureOptions,
        key: str,
        *,
        places: Collection[str] | None = None,
        reader: Callable[[str], NDArray[np.uint8]] = read_source,
        seen: Callable[[], None] | None = None,
        agreements: Mapping[int, float] | None = None,
    ) -> None:
        self.seen = seen
        self.agreements = agreements or {}
        self.prism, self.source, self.out, self.work = prism, source, out, work
        self.options, self.key, self.places, self.reader = options, key, places, reader

    def run(self, items: Iterable[tuple[int, Sequence[str]]]) -> Iterator[dict[str, Any]]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is a shard and the stems of its photos' files."""
        with ThreadPoolExecutor(WRITERS, thread_name_prefix="patchprism-write") as pool:
            for shard, stems in items:
                # Before the first of them: what a killed run has written is known by this.
                files = [self.names(stem) for stem in stems]
                self.work.write(
                    drawn_key(shard), json.dumps({"files": list(chain.from_iterable(files))}).encode()
                )
                rows, lost = [], {}
                written: dict[str, Stamp] = {}
                counts = np.zeros_like(count_scores(np.zeros(0)))
                inside = 0
                places = range(shard * SHARD, shard * SHARD + len(stems))
                jobs = zip(self.source.read(shard), stems, places, strict=True)
                for row, part_counts, kept, its, reason in _bounded(
                    pool, self._photo, jobs, ahead=2 * WRITERS
                ):
                    rows.append(row)
                    written |= its
                    if reason is not None:
                        lost[row["photo"]] = reason
                    counts += part_counts
                    inside += kept
                    (self.seen or nothing)()
                drawn = {
                    "key": self.key_of(shard, stems),
                    "photos": rows,
                    "counts": counts.tolist(),
                    "n_foreground": inside,
                    "lost": lost,
                    "files": written,
                }
                self.work.write(drawn_key(shard), json.dumps(drawn).encode())
                yield drawn

    def names(self, stem: str) -> list[str]:
        """The files that a photo may get."""
        options = self.options
        names = [f"{stem}.pca.{options.format}"]
        if options.overlay_alpha is not None:
            names.append(f"{stem}.overlay.{options.format}")
        return [*names, f"{stem}.npz"] if options.arrays else names

    def key_of(self, shard: int, stems: Sequence[str]) -> str:
        """Digest of all that a shard's pictures depend on."""
        photos = []
        if self.places is not None and self._needs_photo:
            photos = [stamp_of(row.name, exact=True) for row in self.source.rows(shard)]
        return digest(self.key, self.source.key(shard), list(stems), photos)

    @property
    def _needs_photo(self) -> bool:
        options = self.options
        return needs_photo(
            overlay_alpha=options.overlay_alpha, upsample=options.upsample, background=options.background
        )

    def _photo(
        self, job: tuple[tuple[PhotoRow, Any], str, int]
    ) -> tuple[dict[str, Any], NDArray[np.int64], int, dict[str, Stamp], str | None]:
        (row, _), _, _ = job
        with reading():
            claim(row.size[0] * row.size[1] * BYTES_A_PIXEL, row.name)
            return self._written(job)

    def _written(
        self, job: tuple[tuple[PhotoRow, Any], str, int]
    ) -> tuple[dict[str, Any], NDArray[np.int64], int, dict[str, Stamp], str | None]:
        (row, tokens), stem, index = job
        part = self.prism.split(tokens, name=row.name)
        options = self.options
        files: dict[str, Stamp] = {}
        style = {"upsample": options.upsample, "background": options.background, "basis": options.basis}
        photo, gone, reason = None, False, None
        if self._needs_photo:
            photo, reason = self.photo(row)
            if photo is None:
                gone = True
                style["upsample"], style["background"] = without_photo(options.upsample, options.background)

        def write(suffix: str, draw: Callable[[Path], None]) -> None:
            name = f"{stem}.{suffix}"
            with self.out.staged(name) as path:
                draw(path)
                files[name] = stamp(path)
                promise(self.out, name, files[name])

        def write_drawn(name: str, **changed: Any) -> None:
            def read() -> NDArray[np.uint8]:
                assert photo is not None
                return photo

            picture = draw_picture(part, read, crop=row.crop, size=row.size, **(style | changed))
            write(f"{name}.{options.format}", partial(write_picture, picture=picture))

        write_drawn("pca")
        if options.overlay_alpha is not None and not gone:
            write_drawn("overlay", overlay_alpha=options.overlay_alpha, background="black")
        if options.arrays:
            write("npz", partial(write_arrays, part))
        shown = self._row(row, part, list(files), gone)
        shown |= self.prism.doubts(tokens, part.foreground)
        if index in self.agreements:
            shown["agreement"] = round(self.agreements[index], 4)
        return shown, count_scores(part.score), int(part.foreground.sum()), files, reason

    def photo(self, row: PhotoRow) -> tuple[NDArray[np.uint8] | None, str | None]:
        """A photo, or None where it is gone, or another one by now; and why, unless a store names it."""
        if self.places is not None:
            return read_stored(row.name, row.size, self.places, self.reader), None
        try:
            return read_again(row.name, row.size, row.content, self.reader), None
        except PhotoError as error:
            return None, f"{error.reason}; {DRAWN_WITHOUT}"

    @staticmethod
    def _row(row: PhotoRow, part: PhotoColors, files: list[str], gone: bool) -> dict[str, Any]:
        return {
            "photo": row.name,
            "size": list(row.size),
            "grid": list(row.grid),
            "crop": [round(edge, 3) for edge in row.crop],
            "foreground": round(float(part.foreground.mean()), 6),
            "files": files,
            **({"photo_missing": True} if gone else {}),
            **({"plain": True} if row.plain else {}),
        }


def drawn_key(shard: int) -> str:
    """Where it is kept that a shard's pictures are written."""
    return f"drawn/{shard:08d}.json"


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[Any], Any], items: Iterable[Any], *, ahead: int
) -> Iterator[Any]:
    """``pool.map`` that takes no more items than it needs to keep busy."""
    futures: deque[Any] = deque()
    for item in items:
        futures.append(pool.submit(work, item))
        if len(futures) >= ahead:
            yield futures.popleft().result()
    while futures:
        yield futures.popleft().result()


# ---------------------------------------------------------------- stores


class ChunkTask:
    """Chunks of a store's tokens -> their files, out of the shards that hold their rows."""

    needs_device = False

    def __init__(self, shards: Shards, spec: ArraySpec, out: Folder) -> None:
        self.shards, self.spec, self.out = shards, spec, out

    def run(self, items: Iterable[tuple[int, list[tuple[int, int, int]]]]) -> Iterator[int]:
        """See :class:`~patchprism.jobs.engines.Task`; an item is a chunk, and its runs of patches by shard."""
        for chunk, runs in items:
            rows = [
                self.shards.patches(shard, self.shards.table(shard), start, stop)
                for shard, start, stop in runs
            ]
            self.out.write(self.spec.key(chunk), self.spec.encode(np.concatenate(rows)))
            yield chunk
