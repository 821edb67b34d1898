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
# The lenses that `patchprism video` supports.
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
        Points for ``similarity`` and ``attention``, as ``PHOTO:x,y``.
    clusters : int or "auto"
        Number of clusters, from 2 to 64; ``"auto"`` chooses the number with the best silhouette score.
    match_photos : tuple of str
        Photos that ``matches`` compares, each with every other, by name or by number from 1; all by default.
    match_all : bool
        Whether to match background patches too.
    match_lines : int
        Maximum number of matches to draw per pair of photos, the most similar first. The table holds all matches.
    upsample : {"auto", "nearest", "bilinear", "guided"}
        Method from patches to pixels for the pictures of single photos; ``"auto"`` means ``"nearest"``.
    layer : int
        The layer whose attention is shown.
    seed : int
        Random seed for k-means and for the samples of patches.
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
    """The lens that colours a clip, and its options; :func:`~patchprism.render_video` describes them."""

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
        """Refuse a point without the lens similarity, and that lens without a point."""
        super().__post_init__()
        if self.lens == "similarity" and self.at is None:
            raise OptionError("the lens similarity needs a point: at=TIME:x,y", option="at")
        if self.lens != "similarity" and self.at is not None:
            raise OptionError(f"at is only for the lens similarity, not for {self.lens}", option="at")
