"""Names of the files that lenses write."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from patchprism.lenses.options import LensOptions
    from patchprism.pictures.options import PictureOptions


def file_names(
    names: Sequence[str],
    options: LensOptions,
    stems: Sequence[str],
    photos: Sequence[str],
    pictures: PictureOptions,
) -> Iterator[str]:
    """Names of the files that lenses may write for photos with these stems and names, known before any computation."""
    from patchprism.lenses.matches import matched

    points = len(options.at)
    for name in names:
        if name == "pca":
            continue
        yield f"{name}.txt"
        drawn, sheets = [name], []
        if name == "similarity" and points > 1:
            drawn = [f"{name}-{n + 1}" for n in range(points)]
        figures = list(drawn)
        if name == "attention":
            sheets.append("attention-heads")
            figures += [f"attention-at-{n + 1}" for n in range(points)]
        if name == "matches":
            drawn = []
            numbers = matched(options, photos)
            figures = [f"matches-{a + 1}-{b + 1}" for a, b in combinations(numbers, 2)]
            yield "matches.csv"
        yield from (f"{figure}.{pictures.figures_as}" for figure in figures)
        yield from (f"{stem}.{each}.{pictures.format}" for stem in stems for each in drawn)
        yield from (f"{stem}.{each}.{pictures.figures_as}" for stem in stems for each in sheets)
        if pictures.arrays:
            yield f"{name}.npz"
            yield from (f"{stem}.{name}.npz" for stem in stems)
