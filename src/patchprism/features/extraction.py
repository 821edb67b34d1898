"""Photos -> patch tokens. Photos are read and framed ahead of the network, and photos of one shape form batches."""

from __future__ import annotations

import copy
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.errors import PhotoError
from patchprism.features.batching import MOST_PATCHES, patches_per_batch
from patchprism.features.finer import finer
from patchprism.features.options import TokenOptions, check_batch_size
from patchprism.features.patch_features import check_tokens
from patchprism.features.tiles import tiled, window_grid
from patchprism.photos.framing import check_range
from patchprism.photos.images import read_photo
from patchprism.photos.sources import DRAWN_WITHOUT, SourceReader, StoredPhoto, content_of, grey, read_again
from patchprism.support.reading import reading
from patchprism.support.threads import leave_the_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.photos.framing import Framed, Framing

READERS = min(4, os.cpu_count() or 1)

# Up to this many bytes of decoded photos and their crops are kept for the pictures. Other photos are read again.
KEPT_BYTES = 512 << 20


@dataclass(frozen=True, kw_only=True)
class PhotoTokens:
    """The patch tokens of a photo.

    Attributes
    ----------
    index : int
        Index of the photo.
    tokens : ndarray, shape (h, w, D), float32
    crop : tuple of float
        The part that the network saw, as in :class:`~patchprism.photos.framing.Framed`.
    size : tuple of int
        The photo's (H, W) in pixels.
    plain : bool
        Whether the photo has a single colour, or is noise.
    """

    index: int
    tokens: NDArray[np.float32]
    crop: tuple[float, float, float, float]
    size: tuple[int, int]
    plain: bool = False


class Photos:
    """The photos of a job and their names. Photos are read on demand, and the first ones are kept in memory.

    Parameters
    ----------
    sources : sequence
        Paths, PIL images or arrays, or photos that a store names.
    names : sequence of str
        One name per photo.
    range : (low, high), optional
        As in :func:`~patchprism.read_photo`.

    Attributes
    ----------
    notes : dict
        Notes about photos that were framed: a tuple of str for each index.
    lost : dict
        Why photos could not be read again, by index.
    """

    def __init__(
        self, sources: Sequence[Any], names: Sequence[str], *, range: Sequence[float] | None = None
    ) -> None:
        self.sources, self.names, self.range = list(sources), list(names), range
        self.notes: dict[int, tuple[str, ...]] = {}
        self._kept: dict[tuple[int, Framing | None], NDArray[np.uint8]] = {}
        self._bytes = 0
        self._lock = threading.Lock()
        self._seen: dict[int, tuple[tuple[int, int], str]] = {}  # size and content of photos that were read
        self.lost: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.sources)

    def name(self, index: int) -> str:
        """The name of a photo."""
        return self.names[index]

    def content(self, index: int) -> str:
        """Digest of the pixels of a photo that was read."""
        return self._seen[index][1]

    def __getstate__(self) -> dict[str, Any]:
        # The lock cannot be pickled, and photos that are kept can be read again.
        kept = ("sources", "names", "range", "notes", "lost", "_seen")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__([], [])  # type: ignore[misc]
        self.__dict__ |= state

    def __deepcopy__(self, memo: dict[int, Any]) -> Photos:
        # The copies share the arrays that are kept, which never change.
        copied = self.subset(range(len(self)))
        copied.sources = copy.deepcopy(self.sources, memo)
        return copied

    def subset(self, indices: Sequence[int]) -> Photos:
        """Some of the photos, in the order of ``indices``, with their notes and the arrays that are kept."""
        part = Photos([self.sources[i] for i in indices], [self.names[i] for i in indices], range=self.range)
        new = {old: i for i, old in enumerate(indices)}
        part._kept = {(new[i], framing): kept for (i, framing), kept in self._kept.items() if i in new}
        part.notes = {new[i]: notes for i, notes in self.notes.items() if i in new}
        part._bytes = sum(kept.nbytes for kept in part._kept.values())
        part._seen = {new[i]: seen for i, seen in self._seen.items() if i in new}
        part.lost = {new[i]: reason for i, reason in self.lost.items() if i in new}
        return part

    def read(self, index: int) -> NDArray[np.uint8]:
        """A photo, (H, W, 3) uint8, read from its file unless it is kept in memory.

        If a photo was read before and is now missing or has changed, plain grey is returned; see :attr:`lost`.
        """
        try:
            return self._keep((index, None), lambda: self._read(index))
        except PhotoError:
            if index not in self.lost:
                raise
            return grey(self._seen[index][0])

    def _read(self, index: int) -> NDArray[np.uint8]:
        source, name = self.sources[index], self.names[index]
        if isinstance(source, StoredPhoto):
            return source.read()

        def read(name: str) -> NDArray[np.uint8]:
            if isinstance(source, (str, os.PathLike)):
                return SourceReader(check_range("range", self.range))(os.fspath(source))
            return read_photo(source, name=name, range=self.range)

        if index in self.lost:  # it is not looked up again
            raise PhotoError(name, self.lost[index])
        if index in self._seen:
            try:
                return read_again(name, *self._seen[index], read)
            except PhotoError as error:
                self.lost[index] = f"{error.reason}; {DRAWN_WITHOUT}"
                raise
        photo = read(name)
        self._seen[index] = (photo.shape[0], photo.shape[1]), content_of(photo)
        return photo

    @property
    def gone(self) -> list[str]:
        """Names of missing photos; photos of a store that were not yet read are read to find out."""
        return [name for index, name in enumerate(self.names) if self.is_gone(index)]

    def is_gone(self, index: int) -> bool:
        """Whether a photo is missing, so that plain grey replaces it; a photo of a store is read to find out."""
        source = self.sources[index]
        if not isinstance(source, StoredPhoto):
            return index in self.lost
        if source.gone is None:
            self.read(index)
        return bool(source.gone)

    def frame(self, index: int, framing: Framing) -> tuple[Framed, tuple[int, int]]:
        """A framed photo, and the photo's (H, W). A missing photo raises an error, and is not replaced by grey."""
        with reading() as heard:
            photo = self._keep((index, None), lambda: self._read(index))
            framed = framing.apply(photo, name=self.names[index])
        if heard.notes:  # without new notes, earlier ones stay: a photo that is kept in memory gives none
            self.notes[index] = tuple(heard.notes)
        shown = framed.shown
        if shown is not None:
            self._keep((index, framing), lambda: shown)
        return framed, (photo.shape[0], photo.shape[1])

    def shown(self, index: int, framing: Framing) -> NDArray[np.uint8]:
        """The crop of a photo that the network sees, before normalisation, (H, W, 3) uint8."""
        return self._keep((index, framing), lambda: framing.show(self.read(index), name=self.names[index]))

    def _keep(
        self, key: tuple[int, Framing | None], make: Callable[[], NDArray[np.uint8]]
    ) -> NDArray[np.uint8]:
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept and self._bytes + made.nbytes <= KEPT_BYTES:
                self._kept[key] = made
                self._bytes += made.nbytes
        return made


def photo_names(sources: Sequence[Any]) -> list[str]:
    """A name for each photo, for errors and tables: its path, or ``photo-1``, ``photo-2``, ..."""
    return [
        os.fspath(source) if isinstance(source, (str, Path)) else f"photo-{i + 1}"
        for i, source in enumerate(sources)
    ]


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How photos are grouped for a forward pass.

    Attributes
    ----------
    size : int, optional
        Maximum number of photos; by default determined by ``patches``.
    patches : int, optional
        Maximum number of patches, used if ``size`` is not given; by default determined from the free memory
        (:mod:`patchprism.features.batching`).
    shard : int, optional
        Number of photos in a shard. No batch contains photos of two shards, so the batches of a shard, and with them
        the last bits of its tokens, depend only on the photos of this shard. Indices must increase.
    """

    size: int | None = None
    patches: int | None = None
    shard: int | None = None


def extract(
    photos: Photos,
    backbone: Backbone,
    framing: Framing,
    *,
    indices: Iterable[int] | None = None,
    batches: Batches | None = None,
    failed: Callable[[int, PhotoError], None] | None = None,
    options: TokenOptions | None = None,
) -> Iterator[PhotoTokens]:
    """Patch tokens of photos, in no fixed order, with memory that does not grow with the number of photos.

    Parameters
    ----------
    photos : Photos
    backbone : Backbone
    framing : Framing
    indices : iterable of int, optional
        Which photos; all by default.
    batches : Batches, optional
    failed : callable, optional
        ``failed(index, error)`` is called for each photo that cannot be read or framed. Without it, the first such
        photo raises an error.
    options : TokenOptions, optional
        Which tokens; the backbone's patch tokens by default.

    Yields
    ------
    PhotoTokens

    Raises
    ------
    OptionError
        If the size of a batch is not a positive number.
    PhotoError
        If a photo cannot be read or framed and ``failed`` is not given.
    FeaturesError
        If the tokens of a photo are not finite, or larger than 1e12.
    """
    batches = batches or Batches()
    batch_size = check_batch_size("batch_size", batches.size)
    patches, shard = batches.patches or patches_per_batch(backbone), batches.shard
    options = options or TokenOptions()
    waiting: dict[tuple[int, int], list[tuple[int, Framed, tuple[int, int]]]] = {}
    current = 0
    for index, framed, size in _framed_ahead(photos, framing, indices, batch_size, failed):
        if shard and index // shard != current:
            for batch in waiting.values():
                yield from _forward(photos, backbone, batch, options)
            waiting, current = {}, index // shard
        batch = waiting.setdefault(framed.grid, [])
        batch.append((index, framed, size))
        if len(batch) >= (batch_size or batch_for(framed.grid, patches)):
            yield from _forward(photos, backbone, waiting.pop(framed.grid), options)
        elif sum(map(len, waiting.values())) > max(batch_size or batch_for(framed.grid, patches), 16):
            # Photos have many shapes: run the fullest batch, so that the pixels that wait do not fill the memory.
            fullest = max(waiting, key=lambda grid: len(waiting[grid]))
            yield from _forward(photos, backbone, waiting.pop(fullest), options)
    for batch in waiting.values():
        yield from _forward(photos, backbone, batch, options)


def batch_for(grid: tuple[int, int], patches: int = MOST_PATCHES["cpu"]) -> int:
    """Number of photos of a grid in a batch of at most ``patches`` patches; at least one."""
    return max(1, patches // (grid[0] * grid[1]))


def _framed_ahead(
    photos: Photos,
    framing: Framing,
    indices: Iterable[int] | None,
    batch_size: int | None,
    failed: Callable[[int, PhotoError], None] | None,
) -> Iterator[tuple[int, Framed, tuple[int, int]]]:
    """Framed photos in order; a limited number of them is framed in advance."""
    todo = iter(range(len(photos)) if indices is None else indices)
    ahead: deque[tuple[int, Future[tuple[Framed, tuple[int, int]]]]] = deque()
    with ThreadPoolExecutor(
        READERS, thread_name_prefix="patchprism-read", initializer=leave_the_cores
    ) as pool:
        try:
            while True:
                while len(ahead) < max(2 * READERS, batch_size or 0):
                    index = next(todo, None)
                    if index is None:
                        break
                    ahead.append((index, pool.submit(photos.frame, index, framing)))
                if not ahead:
                    return
                index, future = ahead.popleft()
                try:
                    framed, size = future.result()
                except PhotoError as error:
                    if failed is None:
                        raise
                    failed(index, error)
                    continue
                yield index, framed, size
        finally:
            for _, future in ahead:
                future.cancel()


def _forward(
    photos: Photos,
    backbone: Backbone,
    batch: Sequence[tuple[int, Framed, tuple[int, int]]],
    options: TokenOptions,
) -> Iterator[PhotoTokens]:
    for (index, framed, size), each in zip(
        batch, tokens_of(backbone, [framed for _, framed, _ in batch], options), strict=True
    ):
        check_tokens(each, f"{photos.name(index)}, as the network gives it")
        yield PhotoTokens(index=index, tokens=each, crop=framed.crop, size=size, plain=framed.plain)


def tokens_of(
    backbone: Backbone, batch: Sequence[Framed], options: TokenOptions
) -> Iterator[NDArray[np.float32]]:
    """Tokens of framed photos of one grid, (h, w, D) float32 each; refined tokens have a larger grid."""
    import torch

    patch, grid, enlargement = backbone.record.patch_size, batch[0].grid, batch[0].enlargement
    side = window_grid(options.tile, patch // enlargement) if options.tile else max(grid)
    if max(grid) > side:
        at_once = batch_for((side, side), patches_per_batch(backbone))
        network = partial(options.tokens, backbone)
        for framed in batch:
            found = tiled(
                framed.pixels, network, patch=patch, side=side, at_once=at_once, enlargement=enlargement
            )
            yield _refined(found, framed, options)
        return
    tokens = options.tokens(backbone, torch.stack([framed.pixels for framed in batch])).cpu().numpy()
    for framed, each in zip(batch, tokens, strict=True):
        yield _refined(each, framed, options)


def _refined(tokens: NDArray[np.float32], framed: Framed, options: TokenOptions) -> NDArray[np.float32]:
    if options.refine == 1:
        return tokens
    assert framed.shown is not None
    height, width = framed.shown.shape[:2]
    doublings = options.refine.bit_length() - 1
    return finer(tokens, framed.shown, (0, 0, width, height), doublings=doublings)
