"""What a lens is. Importing it loads neither torch nor scikit-learn."""

from __future__ import annotations

import math
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.jobs.source import digest
from patchprism.pictures.outputs import PhotoLook
from patchprism.pictures.sheet import (
    MAX_CELLS,
    Bar,
    Cell,
    map_panel,
    panel_size,
    photo_panel,
    sheet,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.lenses.scene import Scene
    from patchprism.pictures.outputs import LensResult
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk


class Lens:
    """A way of looking at features, over a scene of any size.

    First :meth:`fit` learns what all photos must share, such as one scale. Then the lens is small, can be pickled, and
    workers :meth:`look` at the photos with it. At last :meth:`result` puts together what is said of all of them.
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
        tokens : ndarray, shape (h, w, D)
        part : PhotoColors
            What the prism makes of it.
        index : int
            Its place in the source.
        """
        return PhotoLook()

    def result(self, entries: Sequence[Any]) -> LensResult:
        """What there is to write of all photos together.

        Parameters
        ----------
        entries : sequence
            What each photo's :meth:`look` gave as its ``entry``, in the photos' order.
        """
        raise NotImplementedError

    def learned(self) -> Any:
        """What :meth:`fit` learned that pictures depend on: JSON values and arrays."""
        return None

    @property
    def key(self) -> str:
        """Digest of all that pictures depend on beside a photo, its tokens and the prism."""
        return digest(self.name, asdict(self.scene.options), self.learned())

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
