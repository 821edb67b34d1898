"""Similarity to a point: the cosine between one patch's token and every other, across all photos."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError
from patchprism.lenses.base import Scene, rounded, unit_rows
from patchprism.lenses.points import Point, locate, patch_center
from patchprism.lenses.sheet import (
    Bar,
    Cell,
    box_for,
    columns_for,
    heat,
    map_panel,
    mark,
    panel_size,
    photo_panel,
    sheet,
)
from patchprism.pictures.outputs import LensResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.features.patch_features import PatchFeatures


def cosine_maps(features: PatchFeatures, photo: int, row: int, column: int) -> list[NDArray[np.float32]]:
    """Cosine of one patch's token with every patch's, a map (h, w) float32 in [-1, 1] a photo.

    A token of zeros is similar to nothing, 0.
    """
    query = unit_rows(features[photo][row, column])
    maps = []
    for tokens in features:
        values = unit_rows(tokens) @ query
        maps.append(np.clip(values, -1.0, 1.0).astype(np.float32))
    return maps


def look(scene: Scene) -> LensResult:
    """Maps of similarity to each point that was asked for; see docs/lenses/similarity.md."""
    view = scene.view
    if not scene.options.at:
        raise OptionError("the lens similarity needs a point: at=PHOTO:x,y")
    points = [locate(text, view) for text in scene.options.at]
    maps = [cosine_maps(view.features, p.photo, p.row, p.column) for p in points]
    result = LensResult(name="similarity", report={"points": []})
    result.pictures = [{} for _ in range(len(scene))]
    for n, (point, found) in enumerate(zip(points, maps, strict=True), start=1):
        # One scale for all photos, from the least similar patch of all: cosines of one network's tokens seldom
        # come near -1, and its level differs from one network to the next.
        low = min(float(values.min()) for values in found)
        label = "similarity" if len(points) == 1 else f"similarity-{n}"
        result.report["points"].append(_report(scene, point, found))
        result.figures[label] = partial(_figure, scene, point, found, low)
        for i, values in enumerate(found):
            result.pictures[i][label] = partial(_picture, scene, point, i, values, low)
    result.arrays = [
        {
            "similarity": np.stack([found[i] for found in maps]),
            "points": np.array([[p.photo, p.row, p.column] for p in points]),
        }
        for i in range(len(scene))
    ]
    return result


def _report(scene: Scene, point: Point, found: list[NDArray[np.float32]]) -> dict[str, Any]:
    photos = []
    for i, values in enumerate(found):
        candidates = _best(point, i, values)
        row, column = np.unravel_index(int(candidates.argmax()), values.shape)
        x, y = patch_center(scene.view, i, float(row), float(column))
        photos.append(
            {
                "photo": scene.view.names[i],
                "mean": rounded(values.mean()),
                "best": rounded(candidates.max()),
                "best_at": [rounded(x, 1), rounded(y, 1)],
            }
        )
    return {
        "photo": scene.view.names[point.photo],
        "at": [point.x, point.y],
        "patch": [point.row, point.column],
        "photos": photos,
    }


def _best(point: Point, photo: int, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map without the point itself, which is most similar to itself and says nothing."""
    others = values.copy()
    if photo == point.photo and values.size > 1:
        others[point.row, point.column] = -1.0
    return others


def _place(scene: Scene, point: Point) -> tuple[float, float]:
    """The point in shares of the crop's width and height."""
    left, top, right, bottom = scene.view.crops[point.photo]
    return (point.x - left) / (right - left), (point.y - top) / (bottom - top)


def _figure(scene: Scene, point: Point, found: list[NDArray[np.float32]], low: float) -> NDArray[np.uint8]:
    cells, box = [], box_for(len(scene))
    for i, values in enumerate(found):
        size = panel_size(values.shape, box)
        panels = [
            photo_panel(scene.view.photos.shown(i, scene.view.framing), size),
            map_panel(heat(values, low, 1.0), size),
        ]
        if i == point.photo:
            panels = [mark(panel, *_place(scene, point)) for panel in panels]
        cells.append(Cell(panels, (scene.title_of(i), f"highest {_best(point, i, values).max():.2f}")))
    return sheet(
        cells,
        columns=columns_for(len(cells), 2),
        title=f"similarity to {scene.title_of(point.photo)} at {point.x:g}, {point.y:g}",
        notes=["Cosine of each patch's token with the marked one's; one scale for all photos."],
        bar=Bar(f"{low:.2f} (least similar of all)", "1"),
    )


def _picture(
    scene: Scene, point: Point, photo: int, values: NDArray[np.float32], low: float
) -> NDArray[np.uint8]:
    from PIL import Image

    picture = scene.draw_heat(photo, values, low, 1.0)
    if photo != point.photo:
        return picture
    height, width = picture.shape[:2]
    return np.asarray(mark(Image.fromarray(picture), point.x / width, point.y / height))
