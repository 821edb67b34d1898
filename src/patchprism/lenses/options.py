"""Options of the lenses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from patchprism.errors import OptionError
from patchprism.jobs.video.options import parse_time
from patchprism.lenses.points import parse_point
from patchprism.pictures.options import PictureOptions
from patchprism.support import checks
from patchprism.support.checks import optional
from patchprism.support.options import LENSES, Checked, number_or_word, option, same

MAX_CLUSTERS = 64
# Those that `patchprism video` looks through.
CLIP_LENSES = ("pca", "score", "norm", "similarity", "clusters", "attention")


def _points(name: str, value: object) -> tuple[str, ...]:
    found = checks.texts(name, value)
    for text in found:
        parse_point(text)
    return found


@dataclass(frozen=True, kw_only=True)
class LensOptions(Checked):
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
    upsample : {"auto", "nearest", "bilinear", "guided"}
        From patches to pixels in the pictures of photos; ``"auto"`` is ``"nearest"``.
    layer : int
        The layer whose attention is shown.
    seed : int
        For what draws at random: k-means and the samples of patches.
    """

    at: tuple[str, ...] = option(
        (),
        check=_points,
        metavar="PHOTO:x,y",
        help="Point for similarity and attention, in pixels of the photo; PHOTO is a file name or a "
        "number from 1. May be repeated.",
        panel=LENSES,
    )
    clusters: int | str = option(
        "auto",
        check=partial(checks.integer, low=2, high=MAX_CLUSTERS, words=("auto",)),
        metavar="K|auto",
        help="Number of clusters; auto chooses the number with the best silhouette score.",
        panel=LENSES,
        parse=number_or_word(int),
    )
    match_photos: tuple[str, ...] = option(
        (),
        check=checks.texts,
        flag="--match-photo",
        metavar="PHOTO",
        help="One of the photos that --lens matches compares: a file name or a number from 1. May be repeated. "
        "Default: all photos.",
        panel=LENSES,
    )
    match_all: bool = option(False, check=checks.flag, help="Also match background patches.", panel=LENSES)
    match_lines: int = option(
        40,
        check=partial(checks.integer, low=1, high=checks.MAX_COUNT),
        metavar="N",
        help="Maximum number of matches to draw per pair of photos.",
        panel=LENSES,
    )
    upsample: str = same(PictureOptions, "upsample")
    layer: int = option(-1, check=checks.integer)
    seed: int = option(0, check=checks.seed)


def _place(name: str, value: object) -> str:
    text = checks.text(name, value)
    parse_time(name, parse_point(text)[0])
    return text


@dataclass(frozen=True, kw_only=True)
class ClipLensOptions(Checked):
    """The lens that a clip is coloured with, and its options; :func:`~patchprism.render_video` describes them."""

    lens: str = option(
        "pca",
        check=partial(checks.choice, allowed=CLIP_LENSES),
        metavar="NAME",
        help="Lens to look through: pca, score, norm, similarity, clusters or attention.",
        panel=LENSES,
    )
    at: str | None = option(
        None,
        check=optional(_place),
        metavar="TIME:x,y",
        help="Point for similarity, in pixels of the frame at a time like 12.5 or 1:30.",
        panel=LENSES,
    )
    clusters: int | str = same(LensOptions, "clusters")

    def __post_init__(self) -> None:
        """Refuse what is not allowed."""
        super().__post_init__()
        if self.lens == "similarity" and self.at is None:
            raise OptionError("the lens similarity needs a point: at=TIME:x,y", option="at")
        if self.lens != "similarity" and self.at is not None:
            raise OptionError(f"at is for the lens similarity, and the lens is {self.lens}", option="at")
