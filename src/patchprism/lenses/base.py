"""The base class of lenses. Importing it loads neither torch nor scikit-learn."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.jobs.source import digest
from patchprism.pictures.outputs import PhotoLook
from patchprism.pictures.sheet import MAX_GROUPS, Group, Panel, Sheet, map_panel, photo_panel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.lenses.scene import Scene
    from patchprism.pictures.outputs import LensResult
    from patchprism.pictures.sheet import Bar, Key
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk


class Lens:
    """A way of looking at the features of a scene of any size.

    First, :meth:`fit` learns what all photos share, for example one scale. The fitted lens is small and can be
    pickled, and workers use it to :meth:`look` at the photos. Finally, :meth:`result` combines their results.
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
            Runs passes over all photos of the scene's source.

        Raises
        ------
        OptionError
            If the options do not fit the photos.
        """
        return self

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """The pictures and arrays of one photo.

        Parameters
        ----------
        tokens : ndarray, shape (h, w, D)
        part : PhotoColors
            The photo's scores, foreground and colours.
        index : int
            The photo's index in the source.
        """
        return PhotoLook()

    def result(self, entries: Sequence[Any]) -> LensResult:
        """The result for all photos.

        Parameters
        ----------
        entries : sequence
            The ``entry`` of each photo from :meth:`look`, in the order of the photos.
        """
        raise NotImplementedError

    @property
    def meaning(self) -> str:
        """Meaning of the colours of a clip's frames."""
        raise NotImplementedError

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """Colours of the patches of one frame of a clip, (h, w, 3) uint8.

        Parameters
        ----------
        tokens : ndarray, shape (h, w, D)
        score : ndarray, shape (h, w), in [0, 1]
        pixels : tensor, shape (3, H, W)
            The framed pixels.
        """
        raise NotImplementedError

    def learned(self) -> Any:
        """The learned values that pictures depend on: JSON values and arrays."""
        return None

    @property
    def key(self) -> str:
        """Digest of everything that pictures depend on, except the photo, its tokens and the prism."""
        return digest(self.name, asdict(self.scene.options), self.learned())

    # ------------------------------------------------------------ for figures

    def first(self) -> Iterator[tuple[int, PhotoRow, Tokens]]:
        """The photos that the overview figure shows."""
        return self.scene.read(range(min(len(self.scene), MAX_GROUPS)))

    def sheet(
        self,
        maps: Sequence[tuple[PhotoRow, NDArray[np.uint8]]],
        captions: Sequence[str] = (),
        *,
        notes: Sequence[str],
        bars: tuple[Bar, ...] = (),
        keys: tuple[Key, ...] = (),
        mark: tuple[int, Callable[[Image.Image], Image.Image]] | None = None,
    ) -> Sheet:
        """One figure with each photo beside its map, (h, w, 3) uint8; both panels of one photo can be marked."""

        def marked(number: int, panel: Image.Image) -> Image.Image:
            return mark[1](panel) if mark and mark[0] == number else panel

        def photo(number: int, size: tuple[int, int]) -> Image.Image:
            return marked(number, self.photo_panel(maps[number][0], size))

        def painted(number: int, size: tuple[int, int]) -> Image.Image:
            return marked(number, map_panel(maps[number][1], size))

        groups = [
            Group(
                (Panel(row.grid, partial(photo, n)), Panel(row.grid, partial(painted, n))),
                Path(row.name).name,
                n,
                tuple(captions[n : n + 1]),
            )
            for n, (row, _) in enumerate(maps)
        ]
        return Sheet(groups, bars=bars, keys=keys, notes=tuple(notes), total=len(self.scene))

    def photo_panel(self, row: PhotoRow, size: tuple[int, int]) -> Image.Image:
        """The part of a photo that the network saw, as a panel of the given size."""
        return photo_panel(self.scene.shown(row, size), size)


def unit_rows(tokens: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Tokens scaled to unit length, same shape, float32; zeros stay zeros.

    Raises
    ------
    FeaturesError
        If a token is not finite.
    """
    values = as_tokens(tokens)
    # In float64: in float32 the squares of small numbers are 0, and those of large ones overflow.
    lengths = np.linalg.norm(values.astype(np.float64), axis=-1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise FeaturesError("features must be finite, got a token whose length is not finite")
    unit: NDArray[np.float32] = (values / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)
    return unit


def rounded(value: Any, digits: int = 6) -> float:
    """A number for reports."""
    return round(float(value), digits)
