"""Similarity to a point: the cosine of one patch's token with every other token of all photos."""

from __future__ import annotations

from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import OptionError
from patchprism.lenses.base import Lens, rounded, unit_rows
from patchprism.lenses.passes import Sample
from patchprism.lenses.points import Point, patch_center
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.pictures.sheet import Bar, heat, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.pictures.outputs import Draw
    from patchprism.pictures.sheet import Sheet
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk


def cosine_map(tokens: Tokens, query: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Cosine of every patch's token, (h, w, D), with one token, (D,): (h, w) float32 in [-1, 1].

    The cosine with a token of zeros is 0.
    """
    cosines: NDArray[np.float32] = np.clip(unit_rows(tokens) @ unit_rows(query), -1.0, 1.0).astype(np.float32)
    return cosines


class Similarity(Lens):
    """Maps of similarity to each requested point; see docs/lenses/similarity.md."""

    name = "similarity"

    def fit(self, walk: Walk) -> Self:
        """See :class:`Lens`: learns the token at each point, and its lowest similarity to any patch."""
        if not self.scene.options.at:
            raise OptionError("the lens similarity needs a point: at=PHOTO:x,y")
        self.points_ = [self.scene.locate(text) for text in self.scene.options.at]
        self.rows_, self.queries_ = [], []
        for point in self.points_:
            row, tokens = self.scene.tokens(point.photo)
            self.rows_.append(row)
            self.queries_.append(np.array(tokens[point.row, point.column]))
        # One scale for all photos, from the lowest similarity of any patch: cosines of a network's tokens rarely
        # come near -1, and their level differs between networks.
        seen = walk(partial(Sample, partial(_cosines, self.queries_)))
        assert seen.extent is not None, "there is a photo"
        self.low_ = [float(low) for low in seen.extent.low]
        return self

    def learned(self) -> Any:
        """See :class:`Lens`."""
        return [[astuple(point) for point in self.points_], self.queries_, self.low_]

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """See :class:`Lens`."""
        number, entry = self.scene.number(index), []
        pictures: dict[str, Draw] = {}
        maps = [cosine_map(tokens, query) for query in self.queries_]
        for n, (point, values, low) in enumerate(zip(self.points_, maps, self.low_, strict=True), start=1):
            pictures[self._label(n)] = partial(self._picture, row, point, number, values, low)
            others = _others(point, number, values)
            x, y = patch_center(row, *map(float, np.unravel_index(int(others.argmax()), values.shape)))
            entry.append(
                {
                    "photo": row.name,
                    "mean": rounded(values.mean()),
                    "best": rounded(others.max()),
                    "best_at": [rounded(x, 1), rounded(y, 1)],
                }
            )
        points = np.array([[point.photo, point.row, point.column] for point in self.points_])
        return PhotoLook(pictures, {"similarity": np.stack(maps), "points": points}, entry)

    @property
    def meaning(self) -> str:
        """See :class:`Lens`."""
        point = self.points_[0]
        return (
            f"cosine similarity to the patch at {point.x:g}, {point.y:g} of {Path(self.rows_[0].name).name}, "
            f"from {self.low_[0]:.2f} to 1"
        )

    def paint(self, tokens: Tokens, score: NDArray[np.floating[Any]], pixels: Any) -> NDArray[np.uint8]:
        """See :class:`Lens`."""
        return heat(cosine_map(tokens, self.queries_[0]), self.low_[0], 1.0)

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        points = [
            {
                "photo": row.name,
                "at": [point.x, point.y],
                "patch": [point.row, point.column],
                "photos": [entry[n] for entry in entries],
            }
            for n, (point, row) in enumerate(zip(self.points_, self.rows_, strict=True))
        ]
        figures = {self._label(n + 1): Drawing(partial(self._figure, n)) for n in range(len(points))}
        return LensResult(name=self.name, report={"points": points}, figures=figures)

    def _label(self, n: int) -> str:
        return self.name if len(self.points_) == 1 else f"{self.name}-{n}"

    def _figure(self, n: int) -> Sheet:
        point, row, low = self.points_[n], self.rows_[n], self.low_[n]
        maps = [(each, cosine_map(tokens, self.queries_[n])) for _, each, tokens in self.first()]
        left, top, right, bottom = row.crop
        x, y = (point.x - left) / (right - left), (point.y - top) / (bottom - top)
        return self.sheet(
            [(each, heat(values, low, 1.0)) for each, values in maps],
            [f"highest {_others(point, i, values).max():.2f}" for i, (_, values) in enumerate(maps)],
            notes=[
                f"Cosine similarity of each patch's token to that of the patch at {point.x:g}, {point.y:g} of "
                f"{self.scene.title(row, point.photo)}, which is marked. All photos have one scale, which "
                "starts at the least similar patch of all."
            ],
            bars=(Bar("cosine similarity to the marked patch", f"{low:.2f}", "1"),),
            mark=(point.photo, partial(mark, x=x, y=y)),
        )

    def _picture(
        self, row: PhotoRow, point: Point, number: int, values: NDArray[np.float32], low: float
    ) -> NDArray[np.uint8]:
        from PIL import Image

        picture = self.scene.draw_heat(row, values, low, 1.0)
        if number != point.photo:
            return picture
        height, width = picture.shape[:2]
        return np.asarray(mark(Image.fromarray(picture), point.x / width, point.y / height))


def _cosines(queries: Sequence[NDArray[Any]], tokens: Tokens) -> NDArray[np.float32]:
    """Tokens, (h, w, D) -> (n, number of queries)."""
    return np.stack([cosine_map(tokens, query).ravel() for query in queries], axis=1)


def _others(point: Point, number: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map with -1 at the point itself, whose similarity is always 1."""
    others = values.copy()
    if number == point.photo and values.size > 1:
        others[point.row, point.column] = -1.0
    return others
