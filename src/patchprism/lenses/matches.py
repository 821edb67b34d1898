"""Matches: patches of two photos that are each other's nearest neighbours."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import OptionError
from patchprism.lenses.base import Lens, rounded, unit_rows
from patchprism.lenses.points import find_photo, patch_center
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult
from patchprism.pictures.sheet import Bar, Group, Line, Panel, Sheet, heat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.lenses.options import LensOptions
    from patchprism.prism.passes import Walk

# Maximum number of photos, because each is compared with every other.
MAX_MATCHED = 200
# Maximum number of pairs to draw, those with the most similar matches first; the table holds all pairs.
MAX_FIGURES = 45
# Maximum number of similarities in memory: 64 MB.
_BLOCK_VALUES = 1 << 24


@dataclass(frozen=True)
class PairMatches:
    """Mutual nearest neighbours between two sets of patches, the most similar first.

    Attributes
    ----------
    first, second : ndarray, shape (n,), int64
        Indices of the matching patches.
    similarity : ndarray, shape (n,), float32
        Cosine similarity of each match.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]


def mutual_neighbors(first: NDArray[np.floating], second: NDArray[np.floating]) -> PairMatches:
    """Rows that are each other's nearest neighbour by cosine similarity.

    Parameters
    ----------
    first : ndarray, shape (n, D)
    second : ndarray, shape (m, D)

    Returns
    -------
    PairMatches
        If several rows are equally near, the first counts. Rows of zeros match nothing.
    """
    left, right = unit_rows(first), unit_rows(second)
    if not len(left) or not len(right):
        none = np.zeros(0, np.int64)
        return PairMatches(none, none, np.zeros(0, np.float32))
    forth, best_of_left = np.empty(len(left), np.int64), np.empty(len(left), np.float32)
    back, best_of_right = np.zeros(len(right), np.int64), np.full(len(right), -np.inf, np.float32)
    step = max(1, _BLOCK_VALUES // len(right))
    for start in range(0, len(left), step):
        cosine = left[start : start + step] @ right.T
        forth[start : start + step] = cosine.argmax(axis=1)
        best_of_left[start : start + step] = cosine.max(axis=1)
        nearest = cosine.argmax(axis=0)
        value = cosine[nearest, np.arange(len(right))]
        better = value > best_of_right
        back[better], best_of_right[better] = nearest[better] + start, value[better]
    indices = np.arange(len(left))
    left_some, right_some = (left != 0).any(axis=1), (right != 0).any(axis=1)
    mutual = indices[(back[forth] == indices) & left_some & right_some[forth]]
    order = mutual[np.argsort(-best_of_left[mutual], kind="stable")]
    return PairMatches(order, forth[order], np.clip(best_of_left[order], -1, 1))


def matched(options: LensOptions, names: Sequence[str]) -> list[int]:
    """Numbers of the photos to compare, from 0, in ascending order.

    Raises
    ------
    OptionError
        If there are fewer than two, or too many.
    """
    numbers = sorted({find_photo(text, names, option="match_photos") for text in options.match_photos})
    numbers = numbers or list(range(len(names)))
    if len(numbers) < 2:
        raise OptionError(f"the lens matches needs at least two photos, got {len(numbers)}")
    if len(numbers) > MAX_MATCHED:
        raise OptionError(
            f"match_photos must name the photos to compare if there are more than {MAX_MATCHED}, got "
            f"{len(numbers):,}",
            option="match_photos",
        )
    return numbers


class Matches(Lens):
    """Matches between every two photos, with a table of keypoints; see docs/lenses/matches.md."""

    name = "matches"

    def fit(self, walk: Walk) -> Self:
        """See :class:`Lens`: compares the photos pair by pair, with the tokens of at most two in memory."""
        numbers = matched(self.scene.options, self.scene.names())
        self.rows_: dict[int, PhotoRow] = {}
        kept: dict[int, NDArray[np.intp]] = {}
        for index, row, tokens in self.scene.read(numbers):
            number = self.scene.number(index)
            every = self.scene.options.match_all
            mask = np.ones(row.grid) if every else self.scene.part(index, row, tokens).foreground
            self.rows_[number], kept[number] = row, np.flatnonzero(mask)
        self.pairs_: dict[tuple[int, int], PairMatches] = {}
        for a in numbers[:-1]:
            first = _kept(self.scene.tokens(a)[1], kept[a])
            for index, _, tokens in self.scene.read([b for b in numbers if b > a]):
                b = self.scene.number(index)
                found = mutual_neighbors(first, _kept(tokens, kept[b]))
                self.pairs_[a, b] = PairMatches(kept[a][found.first], kept[b][found.second], found.similarity)
        return self

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        options, pairs, rows = self.scene.options, self.pairs_, self.rows_
        drawn = sorted(pairs, key=lambda pair: (-_strength(pairs[pair], options.match_lines), pair))
        drawn = drawn[:MAX_FIGURES]
        arrays: dict[str, NDArray[Any]] = {
            f"pair_{a + 1}_{b + 1}": np.column_stack([_cells(rows[a], m.first), _cells(rows[b], m.second)])
            for (a, b), m in pairs.items()
        }
        report = {
            "patches": "all" if options.match_all else "foreground",
            "table": "matches.csv",
            "lines_drawn": options.match_lines,
            "pairs_drawn": len(drawn),
            "pairs": [
                {
                    "photos": [rows[a].name, rows[b].name],
                    "matches": len(found.first),
                    "similarity": {
                        "highest": rounded(found.similarity[0]) if len(found.first) else None,
                        "median": rounded(np.median(found.similarity)) if len(found.first) else None,
                    },
                }
                for (a, b), found in pairs.items()
            ],
        }
        return LensResult(
            name=self.name,
            report=report,
            figures={
                f"matches-{a + 1}-{b + 1}": Drawing(partial(self._figure, a, b)) for a, b in sorted(drawn)
            },
            shared_arrays=arrays
            | {f"similarity_{a + 1}_{b + 1}": found.similarity for (a, b), found in pairs.items()},
            tables={"matches.csv": self._table()},
        )

    def _table(self) -> str:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["photo_a", "x_a", "y_a", "photo_b", "x_b", "y_b", "similarity"])
        for (a, b), found in self.pairs_.items():
            one, two = self.rows_[a], self.rows_[b]
            cells = zip(_cells(one, found.first), _cells(two, found.second), found.similarity, strict=True)
            for cell_a, cell_b, similarity in cells:
                places = [
                    f"{value:.2f}"
                    for row, place in ((one, cell_a), (two, cell_b))
                    for value in patch_center(row, float(place[0]), float(place[1]))
                ]
                writer.writerow([one.name, *places[:2], two.name, *places[2:], f"{similarity:.6f}"])
        return text.getvalue()

    def _figure(self, a: int, b: int) -> Sheet:
        found, rows = self.pairs_[a, b], (self.rows_[a], self.rows_[b])
        lines = min(self.scene.options.match_lines, len(found.first))
        total = len(found.first)
        which = "all" if self.scene.options.match_all else "foreground"
        names = [self.scene.title(row, number) for row, number in zip(rows, (a, b), strict=True)]
        count = f"{total:,} mutual nearest neighbours among {which} patches"
        note = f"Matches of {names[0]} and {names[1]}: {count}."
        bars: tuple[Bar, ...] = ()
        if total:
            low, high = float(found.similarity[lines - 1]), float(found.similarity[0])
            note = (
                f"Matches of {names[0]} and {names[1]}: {count}, with cosine similarity {found.similarity[-1]:.2f} to "
                f"{high:.2f}; the {lines} most similar are drawn, coloured by their similarity."
            )
            name = f"cosine similarity of the {lines} best of {total:,} matches"
            bars = (Bar(name, f"{low:.2f}", f"{high:.2f}"),)
        panels = [
            Panel(row.grid, partial(self.photo_panel, row), (name,), square=False)
            for row, name in zip(rows, names, strict=True)
        ]
        return Sheet((Group(panels),), bars=bars, notes=(note,), lines=self._lines(a, b, lines))

    def _lines(self, a: int, b: int, count: int) -> tuple[Line, ...]:
        """Lines between the two photos; the most similar match comes last, so that it is drawn on top."""
        found = self.pairs_[a, b]
        ends = []
        for number, index in ((a, found.first), (b, found.second)):
            h, w = self.rows_[number].grid
            ends.append((_cells(self.rows_[number], index[:count])[:, ::-1] + 0.5) / (w, h))
        if not count:
            return ()
        colors = heat(
            found.similarity[:count], float(found.similarity[count - 1]), float(found.similarity[0])
        )
        return tuple(
            Line((float(x), float(y)), (float(u), float(v)), (int(red), int(green), int(blue)))
            for (x, y), (u, v), (red, green, blue) in zip(*ends, colors, strict=True)
        )[::-1]


def _kept(tokens: Tokens, index: NDArray[np.intp]) -> Tokens:
    return tokens.reshape(-1, tokens.shape[-1])[index]


def _strength(found: PairMatches, lines: int) -> float:
    """Mean similarity of the matches that would be drawn."""
    return float(found.similarity[:lines].mean()) if len(found.first) else -1.0


def _cells(row: PhotoRow, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row and column of patches, (n, 2)."""
    return np.column_stack(np.unravel_index(index, row.grid)).astype(np.int64)
