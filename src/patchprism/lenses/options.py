"""Options of the lenses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from patchprism.lenses.points import parse_point
from patchprism.pictures.upsample import UPSAMPLES
from patchprism.support import checks
from patchprism.support.checks import apply_checks

if TYPE_CHECKING:
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
        apply_checks(self, _CHECKS)
        for text in self.at:
            parse_point(text)
