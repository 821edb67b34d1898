"""Matches: patches of two photos that are each other's nearest neighbours."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import OptionError
from patchprism.lenses.base import Scene, rounded, unit_rows
from patchprism.lenses.points import patch_center
from patchprism.lenses.sheet import Cell, panel_size, photo_panel, sheet
from patchprism.pictures.outputs import LensResult
from patchprism.prism.oklab import distinct_colors

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Figures of this many pairs are drawn, those with the most similar matches; the table holds all pairs.
MAX_FIGURES = 45
# Similarities that are held at once: 64 MB.
_BLOCK_VALUES = 1 << 24
_PANEL = 420


@dataclass(frozen=True)
class PairMatches:
    """Mutual nearest neighbours between two sets of patches, the most similar first.

    Attributes
    ----------
    first, second : ndarray, shape (n,), int64
        Indices of the patches that belong together.
    similarity : ndarray, shape (n,), float32
        Their cosine.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    similarity: NDArray[np.float32]


def mutual_neighbors(first: NDArray[np.floating], second: NDArray[np.floating]) -> PairMatches:
    """Rows that are each other's nearest by cosine.

    Parameters
    ----------
    first : ndarray, shape (n, D)
    second : ndarray, shape (m, D)

    Returns
    -------
    PairMatches
        Of equally near rows the first counts. Rows of zeros match nothing.
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


def look(scene: Scene) -> LensResult:
    """Matches between every two photos, with a table of keypoints; see docs/lenses/matches.md."""
    view = scene.view
    if len(scene) < 2:
        raise OptionError(f"the lens matches needs at least two photos, got {len(scene)}")
    kept = [
        np.arange(mask.size) if scene.options.match_all else np.flatnonzero(mask) for mask in view.foreground
    ]
    rows = [
        tokens.reshape(-1, tokens.shape[-1])[keep] for tokens, keep in zip(view.features, kept, strict=True)
    ]
    pairs = {}
    for a, b in combinations(range(len(scene)), 2):
        found = mutual_neighbors(rows[a], rows[b])
        pairs[a, b] = PairMatches(kept[a][found.first], kept[b][found.second], found.similarity)
    drawn = sorted(pairs, key=lambda pair: (-_strength(pairs[pair], scene.options.match_lines), pair))[
        :MAX_FIGURES
    ]
    return LensResult(
        name="matches",
        report={
            "patches": "all" if scene.options.match_all else "foreground",
            "table": "matches.csv",
            "lines_drawn": scene.options.match_lines,
            "pairs_drawn": len(drawn),
            "pairs": [
                {
                    "photos": [view.names[a], view.names[b]],
                    "matches": len(found.first),
                    "similarity": {
                        "highest": rounded(found.similarity[0]) if len(found.first) else None,
                        "median": rounded(np.median(found.similarity)) if len(found.first) else None,
                    },
                }
                for (a, b), found in pairs.items()
            ],
        },
        figures={
            f"matches-{a + 1}-{b + 1}": partial(_figure, scene, a, b, pairs[a, b]) for a, b in sorted(drawn)
        },
        shared_arrays={
            f"pair_{a + 1}_{b + 1}": np.column_stack([_cells(scene, a, m.first), _cells(scene, b, m.second)])
            for (a, b), m in pairs.items()
        }
        | {f"similarity_{a + 1}_{b + 1}": m.similarity for (a, b), m in pairs.items()},
        tables={"matches.csv": _table(scene, pairs)},
    )


def _strength(found: PairMatches, lines: int) -> float:
    """How similar the matches that would be drawn are."""
    return float(found.similarity[:lines].mean()) if len(found.first) else -1.0


def _cells(scene: Scene, photo: int, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Row and column of patches, (n, 2)."""
    return np.column_stack(np.unravel_index(index, scene.view.features.grids[photo])).astype(np.int64)


def _table(scene: Scene, pairs: dict[tuple[int, int], PairMatches]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["photo_a", "x_a", "y_a", "photo_b", "x_b", "y_b", "similarity"])
    for (a, b), found in pairs.items():
        for cell_a, cell_b, similarity in zip(
            _cells(scene, a, found.first), _cells(scene, b, found.second), found.similarity, strict=True
        ):
            places = [
                f"{value:.2f}"
                for photo, cell in ((a, cell_a), (b, cell_b))
                for value in patch_center(scene.view, photo, float(cell[0]), float(cell[1]))
            ]
            names = scene.view.names[a], scene.view.names[b]
            writer.writerow([names[0], *places[:2], names[1], *places[2:], f"{similarity:.6f}"])
    return text.getvalue()


def _figure(scene: Scene, a: int, b: int, found: PairMatches) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    from patchprism.support.arrays import to_uint8

    lines = min(scene.options.match_lines, len(found.first))
    sizes = [panel_size(scene.view.features.grids[photo], _PANEL) for photo in (a, b)]
    gap = 24
    canvas = Image.new(
        "RGB", (sizes[0][0] + gap + sizes[1][0], max(sizes[0][1], sizes[1][1])), (255, 255, 255)
    )
    offsets = (0, sizes[0][0] + gap)
    for photo, size, left in zip((a, b), sizes, offsets, strict=True):
        canvas.paste(photo_panel(scene.view.photos.shown(photo, scene.view.framing), size), (left, 0))
    scale = 2  # drawn at twice the size, so that lines come out smooth
    canvas = canvas.resize((canvas.width * scale, canvas.height * scale))
    draw = ImageDraw.Draw(canvas)
    ends = []
    for photo, index, size, left in zip((a, b), (found.first, found.second), sizes, offsets, strict=True):
        h, w = scene.view.features.grids[photo]
        cells = _cells(scene, photo, index[:lines])
        ends.append((cells[:, ::-1] + 0.5) * (np.array(size) / (w, h)) * scale + (left * scale, 0))
    # Colours go round by height in the first photo, so that neighbours' lines can be told apart.
    palette = to_uint8(distinct_colors(12))
    rank = np.argsort(np.argsort(ends[0][:, 1], kind="stable"), kind="stable")
    for n in reversed(range(lines)):  # the most similar on top
        color = tuple(int(c) for c in palette[rank[n] % len(palette)])
        draw.line((*ends[0][n], *ends[1][n]), fill=color, width=2 * scale)
        for end in (ends[0][n], ends[1][n]):
            draw.ellipse(
                (*(end - 4 * scale), *(end + 4 * scale)), fill=color, outline=(255, 255, 255), width=scale
            )
    canvas = canvas.resize((canvas.width // scale, canvas.height // scale), Image.Resampling.LANCZOS)
    total = len(found.first)
    which = "foreground" if not scene.options.match_all else "all"
    notes = [f"{total:,} mutual nearest neighbours among {which} patches"]
    if total:
        notes[0] += (
            f", cosine {found.similarity[-1]:.2f} to {found.similarity[0]:.2f}; the {lines} most similar are drawn "
            f"(down to {found.similarity[lines - 1]:.2f})."
        )
    title = f"matches: {scene.title_of(a)} and {scene.title_of(b)}"
    return sheet([Cell([canvas])], columns=1, title=title, notes=notes)
