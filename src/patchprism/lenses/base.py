"""What a lens is given, and what it gives. Importing it loads neither torch nor scikit-learn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError
from patchprism.features.patch_features import as_tokens
from patchprism.lenses.sheet import (
    Bar,
    Cell,
    box_for,
    columns_for,
    heat,
    map_panel,
    panel_size,
    photo_panel,
    sheet,
)
from patchprism.pictures.captions import caption
from patchprism.pictures.upsample import UPSAMPLES, upsampled_strips
from patchprism.support import checks
from patchprism.support.checks import apply_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.jobs.view import View
    from patchprism.support.checks import Check

    Draw = Callable[[], NDArray[np.uint8]]

MAX_CLUSTERS = 64


_CHECKS: dict[str, Check] = {
    "at": checks.texts,
    "clusters": partial(checks.integer, low=2, high=MAX_CLUSTERS, words=("auto",)),
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
    match_all : bool
        Match patches of the background too.
    match_lines : int
        Lines drawn for a pair of photos at most, the most similar first. The table holds all.
    upsample : {"nearest", "bilinear", "guided"}
        From patches to pixels in the pictures of photos.
    layer : int
        The layer whose attention is shown.
    seed : int
        For what draws at random: k-means and the silhouette's sample.
    """

    at: tuple[str, ...] = ()
    clusters: int | str = "auto"
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


class Scene:
    """What lenses look at: the photos and their features, a backbone where a lens needs one more forward.

    Parameters
    ----------
    view : View
    options : LensOptions
    backbone : Backbone, optional
    """

    def __init__(self, view: View, options: LensOptions, backbone: Backbone | None = None) -> None:
        self.view, self.options, self.backbone = view, options, backbone

    def __len__(self) -> int:
        return len(self.view)

    def __getstate__(self) -> dict[str, Any]:
        # A result that is pickled draws; it has no more to ask of the network.
        return {**self.__dict__, "backbone": None}

    def title_of(self, photo: int) -> str:
        """A photo's file name, as figures show it."""
        return caption(Path(self.view.names[photo]).name, photo + 1)

    def draw_map(
        self,
        photo: int,
        values: NDArray[Any],
        finish: Callable[[NDArray[Any]], NDArray[np.uint8]],
    ) -> NDArray[np.uint8]:
        """A picture of a photo at its own resolution: values a patch, (h, w, C), upsampled, then made colours."""
        view, method = self.view, self.options.upsample
        size = view.sizes[photo]
        picture = np.zeros((*size, 3), np.uint8)
        guide = view.photos.read(photo) if method == "guided" else None
        for rows, columns, strip in upsampled_strips(
            values, crop=view.crops[photo], size=size, method=method, photo=guide
        ):
            picture[rows, columns] = finish(strip)
        return picture

    def draw_heat(
        self, photo: int, values: NDArray[np.floating[Any]], low: float, high: float
    ) -> NDArray[np.uint8]:
        """The same for one value a patch, (h, w), in viridis."""
        return self.draw_map(photo, values[..., None], lambda strip: heat(strip[..., 0], low, high))

    def heat_sheet(
        self,
        maps: Sequence[NDArray[Any]],
        low: float,
        high: float,
        *,
        title: str,
        bar: Bar,
        notes: Sequence[str] = (),
        captions: Sequence[str] = (),
        finish: Callable[[NDArray[Any]], NDArray[np.uint8]] | None = None,
    ) -> NDArray[np.uint8]:
        """Each photo beside its map, (h, w) each, in one figure."""
        box = box_for(len(self))
        cells = []
        for i, values in enumerate(maps):
            size = panel_size(values.shape, box)
            shown = photo_panel(self.view.photos.shown(i, self.view.framing), size)
            colored = finish(values) if finish else heat(values, low, high)
            cells.append(Cell([shown, map_panel(colored, size)], (self.title_of(i), *captions[i : i + 1])))
        return sheet(cells, columns=columns_for(len(cells), 2), title=title, notes=notes, bar=bar)


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
