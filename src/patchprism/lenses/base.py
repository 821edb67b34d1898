"""What a lens is given, and what it gives. Importing it loads neither torch nor scikit-learn."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.jobs.shards import SHARD
from patchprism.photos.sources import grey
from patchprism.pictures.captions import caption
from patchprism.pictures.sheet import (
    MAX_CELLS,
    Bar,
    Cell,
    heat,
    map_panel,
    panel_size,
    photo_panel,
    sheet,
)
from patchprism.pictures.upsample import UPSAMPLES, upsampled_strips
from patchprism.support import checks
from patchprism.support.checks import apply_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.lens import PhotoSource
    from patchprism.photos.framing import Framing
    from patchprism.pictures.outputs import LensResult, PhotoLook
    from patchprism.prism.estimator import PhotoColors, Prism
    from patchprism.prism.passes import Walk
    from patchprism.support.checks import Check

MAX_CLUSTERS = 64


_CHECKS: dict[str, Check] = {
    "at": checks.texts,
    "clusters": partial(checks.integer, low=2, high=MAX_CLUSTERS, words=("auto",)),
    "match_photos": checks.texts,
    "match_all": checks.flag,
    "match_lines": partial(checks.integer, low=1, high=checks.MAX_COUNT),
    "upsample": partial(checks.choice, allowed=UPSAMPLES),
    "layer": checks.integer,
    "seed": checks.seed,
}


@dataclass(frozen=True, kw_only=True)
class LensOptions:
    """Options of the lenses; each lens reads its own.

    Parameters
    ----------
    at : tuple of str
        Points as ``PHOTO:x,y``: for ``similarity`` and ``attention``.
    clusters : int or "auto"
        Number of clusters, from 2 to 64; ``"auto"`` takes the one of best silhouette.
    match_photos : tuple of str
        Photos that ``matches`` compares, each with every other, by name or by number from 1; all by default.
    match_all : bool
        Match patches of the background too.
    match_lines : int
        Lines drawn for a pair of photos at most, the most similar first. The table holds all.
    upsample : {"nearest", "bilinear", "guided"}
        From patches to pixels in the pictures of photos.
    layer : int
        The layer whose attention is shown.
    seed : int
        For what draws at random: k-means and the samples of patches.
    """

    at: tuple[str, ...] = ()
    clusters: int | str = "auto"
    match_photos: tuple[str, ...] = ()
    match_all: bool = False
    match_lines: int = 40
    upsample: str = "nearest"
    layer: int = -1
    seed: int = 0

    def check(self) -> None:
        """Refuse what can be refused before any photo is read, and keep the others as plain values.

        Raises
        ------
        OptionError
            If an option has a value that is not allowed.
        """
        from patchprism.lenses.points import parse_point

        apply_checks(self, _CHECKS)
        for text in self.at:
            parse_point(text)


@dataclass(kw_only=True)
class Scene:
    """What lenses look at; can be pickled and sent to a worker, which loads a backbone of its own.

    A photo's *index* is its place in the source, ``shard * SHARD + place in the shard``, as passes are told it. Its
    *number* counts the photos that are there, from 0.

    Attributes
    ----------
    source : PhotoSource
    prism : Prism
    framing : Framing
    record : BackboneRecord
    options : LensOptions
    load : callable, optional
        Gives the backbone; None where there is none.
    parts : sequence of PhotoColors, optional
        Each photo's colours by its number, where they are there already.
    lost : dict
        Photos that could not be read again when they were drawn, and why, by name.
    """

    source: PhotoSource
    prism: Prism
    framing: Framing
    record: BackboneRecord
    options: LensOptions
    load: Callable[[], Backbone] | None = None
    parts: Sequence[PhotoColors] | None = None
    lost: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _ends(self) -> list[int]:
        """How many photos there are up to the end of each shard."""
        source = self.source
        return list(accumulate(len(source.rows(shard)) for shard in range(source.n_shards)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    # ------------------------------------------------------------ photos

    def rows(self) -> Iterator[PhotoRow]:
        """What is known of each photo, one after the other."""
        for shard in range(self.source.n_shards):
            yield from self.source.rows(shard)

    def names(self) -> list[str]:
        """Names of all photos."""
        return [row.name for row in self.rows()]

    def number(self, index: int) -> int:
        """A photo's number, from 0, by its index."""
        shard, place = divmod(index, SHARD)
        return place + (self._ends[shard - 1] if shard else 0)

    def index(self, number: int) -> int:
        """A photo's index by its number."""
        shard = bisect_right(self._ends, number)
        return shard * SHARD + number - (self._ends[shard - 1] if shard else 0)

    def row(self, number: int) -> PhotoRow:
        """What is known of a photo, by its number."""
        shard, place = divmod(self.index(number), SHARD)
        return self.source.rows(shard)[place]

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, PhotoRow, Tokens]]:
        """Photos with their tokens, one at a time, each with its index; all of them, or those of some numbers."""
        wanted = None if numbers is None else sorted({self.index(number) for number in numbers})
        shards = range(self.source.n_shards) if wanted is None else sorted({i // SHARD for i in wanted})
        for shard in shards:
            # No photo behind the last that is wanted is read.
            last = None if wanted is None else max(i for i in wanted if i // SHARD == shard) % SHARD + 1
            for place, (row, tokens) in enumerate(islice(self.source.read(shard), last)):
                if wanted is None or shard * SHARD + place in wanted:
                    yield shard * SHARD + place, row, tokens

    def tokens(self, number: int) -> tuple[PhotoRow, Tokens]:
        """One photo and its tokens, by its number."""
        ((_, row, tokens),) = self.read([number])
        return row, tokens

    def part(self, index: int, row: PhotoRow, tokens: Tokens) -> PhotoColors:
        """A photo's colours."""
        if self.parts is not None:
            return self.parts[self.number(index)]
        return self.prism.split(tokens, name=row.name)

    def photo(self, row: PhotoRow) -> NDArray[np.uint8] | None:
        """A photo, (H, W, 3) uint8, None where it is gone; then :attr:`lost` says why, where that is known."""
        photo, reason = self.source.photo(row)
        if reason is not None:
            self.lost[row.name] = reason
        return photo

    def shown(self, row: PhotoRow) -> NDArray[np.uint8]:
        """What the network saw of a photo, (H, W, 3) uint8; plain grey stands for one that is gone."""
        shown, reason = self.source.shown(row, self.framing)
        if reason is not None:
            self.lost[row.name] = reason
        return self.framing.show(grey(row.size), name=row.name) if shown is None else shown

    @staticmethod
    def title(row: PhotoRow, number: int) -> str:
        """A photo's file name, as figures show it."""
        return caption(Path(row.name).name, number + 1)

    # ------------------------------------------------------------ the network

    @cached_property
    def backbone(self) -> Backbone | None:
        """The network, loaded when it is first asked for."""
        return None if self.load is None else self.load()

    def __getstate__(self) -> dict[str, Any]:
        """A worker loads a network of its own; a result that is pickled draws, and asks for none."""
        return {name: value for name, value in self.__dict__.items() if name != "backbone"}

    # ------------------------------------------------------------ pictures

    def draw_map(
        self,
        row: PhotoRow,
        values: NDArray[Any],
        finish: Callable[[NDArray[Any]], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        """A picture of a photo at its own resolution: values per patch, (h, w, C), upsampled, then made colours."""
        method, guide = self.options.upsample, None
        if method == "guided":
            guide = self.photo(row)
            method = "bilinear" if guide is None else method
        picture = np.zeros((*row.size, 3), np.uint8)
        for rows, columns, strip in upsampled_strips(
            values, crop=row.crop, size=row.size, method=method, photo=guide
        ):
            picture[rows, columns] = finish(strip)
        return picture

    def draw_heat(
        self, row: PhotoRow, values: NDArray[np.floating[Any]], low: float, high: float
    ) -> NDArray[np.uint8]:
        """The same for one value per patch, (h, w), in viridis."""
        return self.draw_map(row, values[..., None], lambda strip: heat(strip[..., 0], low, high))


class Lens:
    """A way of looking at features, over a scene of any size.

    First :meth:`fit` learns what all photos must share, such as one scale. Then the lens is small, can be pickled, and
    workers :meth:`look` at the photos with it. At last :meth:`result` puts together what is said of all of them.

    Parameters
    ----------
    scene : Scene
    """

    name: ClassVar[str]
    needs_backbone: ClassVar[bool] = False

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def fit(self, walk: Walk) -> Self:
        """Learn from all photos.

        Parameters
        ----------
        walk : Walk
            Over all photos of the scene's source.

        Raises
        ------
        OptionError
            If the options do not fit the photos.
        """
        return self

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """What there is to write of one photo.

        Parameters
        ----------
        row : PhotoRow
        tokens : ndarray, shape (h, w, D)
        part : PhotoColors
            What the prism makes of it.
        index : int
            Its place in the source.
        """
        from patchprism.pictures.outputs import PhotoLook

        return PhotoLook()

    def result(self, entries: Sequence[Any]) -> LensResult:
        """What there is to write of all photos together.

        Parameters
        ----------
        entries : sequence
            What each photo's :meth:`look` gave as its ``entry``, in the photos' order.
        """
        raise NotImplementedError

    # ------------------------------------------------------------ for figures

    def first(self) -> Iterator[tuple[int, PhotoRow, Tokens]]:
        """The photos that a figure of all of them shows."""
        return self.scene.read(range(min(len(self.scene), MAX_CELLS)))

    def sheet(
        self,
        maps: Sequence[tuple[PhotoRow, NDArray[np.uint8]]],
        captions: Sequence[str] = (),
        *,
        title: str,
        notes: Sequence[str],
        bar: Bar,
        mark: tuple[int, Callable[[Image.Image], Image.Image]] | None = None,
    ) -> NDArray[np.uint8]:
        """Each photo beside its map, (h, w, 3) uint8, in one figure; both panels of one photo may be marked."""
        total = len(self.scene)

        def draw(number: int) -> list[Image.Image]:
            row, colors = maps[number]
            size = sizes[number]
            panels = [photo_panel(self.scene.shown(row), size), map_panel(colors, size)]
            return [mark[1](panel) for panel in panels] if mark and mark[0] == number else panels

        sizes = [panel_size(row.grid, box_for(total)) for row, _ in maps]
        cells = [
            Cell(
                size,
                partial(draw, number),
                (self.scene.title(row, number), *captions[number : number + 1]),
                n_panels=2,
            )
            for number, ((row, _), size) in enumerate(zip(maps, sizes, strict=True))
        ]
        columns = columns_for(min(total, MAX_CELLS), 2)
        return sheet(cells, columns=columns, title=title, notes=notes, bar=bar, total=total)


def columns_for(count: int, panels: int) -> int:
    """How many cells of so many panels stand side by side on a sheet that is not too tall."""
    return max(1, min(count, round(math.sqrt(count * 1.6 / panels))))


def box_for(count: int) -> int:
    """About how large the panels of so many cells are."""
    return 288 if count <= 4 else 256 if count <= 8 else 208 if count <= 24 else 160 if count <= 60 else 128


def unit_rows(tokens: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Tokens at unit length, same shape, float32; zeros stay zeros.

    Raises
    ------
    FeaturesError
        If a token is not finite.
    """
    values = as_tokens(tokens)
    # In float64: in float32 the squares of small numbers are 0, and those of large ones overflow.
    lengths = np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise FeaturesError("features must be finite, got a token whose length is not")
    unit: NDArray[np.float32] = (values / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit


def rounded(value: Any, digits: int = 6) -> float:
    """A number for reports."""
    return round(float(value), digits)
