"""Scenes: the photos, tokens and prism that lenses look at."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.jobs.crops import crop_at
from patchprism.jobs.source import SHARD, rows_of
from patchprism.lenses.points import find_photo, parse_point, point_in
from patchprism.photos.sources import grey
from patchprism.pictures.captions import caption
from patchprism.pictures.sheet import heat
from patchprism.pictures.upsample import upsampled_strips

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.source import Source
    from patchprism.lenses.options import LensOptions
    from patchprism.lenses.points import Point
    from patchprism.photos.framing import Framing
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism


@dataclass(kw_only=True, eq=False, repr=False)
class Scene:
    """The photos that lenses look at. It can be pickled and sent to a worker, which loads its own backbone.

    The *index* of a photo is its position in the source, ``shard * SHARD + position in the shard``, as in passes. Its
    *number* counts only the photos that could be read, from 0.

    Attributes
    ----------
    load : callable, optional
        Returns the backbone; None if there is none.
    parts : sequence of PhotoColors, optional
        The colours of each photo, in the order of their numbers, if they already exist.
    lost : dict
        Photos that could not be read again for drawing: their names, with the reasons.
    """

    source: Source
    prism: Prism
    framing: Framing
    record: BackboneRecord
    options: LensOptions
    load: Callable[[], Backbone] | None = None
    parts: Sequence[PhotoColors] | None = None
    lost: dict[str, str] = field(default_factory=dict)

    @cached_property
    def _ends(self) -> list[int]:
        """Number of photos up to the end of each shard."""
        source = self.source
        return list(accumulate(len(source.rows(shard)) for shard in range(source.n_shards)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    # ------------------------------------------------------------ photos

    @property
    def n_patches(self) -> int:
        """Number of patches of all photos."""
        return sum(row.grid[0] * row.grid[1] for row in rows_of(self.source))

    def names(self) -> list[str]:
        """Names of all photos."""
        return [row.name for row in rows_of(self.source)]

    def number(self, index: int) -> int:
        """A photo's number, from 0, by its index."""
        shard, place = divmod(index, SHARD)
        return place + (self._ends[shard - 1] if shard else 0)

    def index(self, number: int) -> int:
        """A photo's index by its number."""
        shard = bisect_right(self._ends, number)
        return shard * SHARD + number - (self._ends[shard - 1] if shard else 0)

    def row(self, number: int) -> PhotoRow:
        """The entry of a photo, by its number."""
        shard, place = divmod(self.index(number), SHARD)
        return self.source.rows(shard)[place]

    def read(self, numbers: Sequence[int] | None = None) -> Iterator[tuple[int, PhotoRow, Tokens]]:
        """Yield index, entry and tokens of each photo, or of the photos with the given numbers."""
        wanted = None if numbers is None else sorted({self.index(number) for number in numbers})
        shards = range(self.source.n_shards) if wanted is None else sorted({i // SHARD for i in wanted})
        for shard in shards:
            # No photo after the last requested one is read.
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
        """A photo, (H, W, 3) uint8, or None if it cannot be read; the reason, if known, is added to :attr:`lost`."""
        photo, reason = self.source.photo(row)
        if reason is not None:
            self.lost[row.name] = reason
        return photo

    def shown(self, row: PhotoRow, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The part of a photo that the network saw, (H, W, 3) uint8, about as large as the given (width, height).

        A photo that cannot be read is plain grey.
        """
        shown, reason = crop_at(self.source, row, self.framing, size)
        if reason is not None:
            self.lost[row.name] = reason
        return self.framing.show(grey(row.size), name=row.name) if shown is None else shown

    def locate(self, text: str) -> Point:
        """The patch at a point, ``PHOTO:x,y``.

        Raises
        ------
        OptionError
            If the photo is not known, or the point is outside the photo or outside the part that the network saw.
        """
        wanted, x, y = parse_point(text)
        number = find_photo(wanted, self.names())
        return point_in(self.row(number), number, x, y, text=text)

    @staticmethod
    def title(row: PhotoRow, number: int) -> str:
        """A photo's file name, as figures show it."""
        return caption(Path(row.name).name, number + 1)

    # ------------------------------------------------------------ the network

    @cached_property
    def backbone(self) -> Backbone | None:
        """The network, loaded on first use."""
        return None if self.load is None else self.load()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the network: each worker loads it again, and a pickled result draws without it."""
        return {name: value for name, value in self.__dict__.items() if name != "backbone"}

    # ------------------------------------------------------------ pictures

    @property
    def upsample(self) -> str:
        """Method from patches to pixels for the pictures of single photos."""
        return "nearest" if self.options.upsample == "auto" else self.options.upsample

    def draw_map(
        self,
        row: PhotoRow,
        values: NDArray[Any],
        finish: Callable[[NDArray[Any]], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        """Upsample values per patch, (h, w, C), to the photo's resolution, and colour them with ``finish``."""
        method, guide = self.upsample, None
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
        """Upsample one value per patch, (h, w), and colour it with viridis."""
        return self.draw_map(row, values[..., None], lambda strip: heat(strip[..., 0], low, high))
