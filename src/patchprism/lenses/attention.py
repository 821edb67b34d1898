"""Attention: what the class token, or a patch, looks at, head by head, and rolled out through all layers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import FeaturesError, ModelError, OptionError, PhotoError
from patchprism.lenses.base import Scene, rounded
from patchprism.lenses.points import Point, locate
from patchprism.lenses.sheet import (
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

    from patchprism.backbones import Backbone

_NOTE = (
    "Every panel has its own scale, from 0 to its 99th percentile; below it the share of attention that goes to "
    "patches (the rest stays with class token and registers)."
)


@dataclass(frozen=True)
class Attention:
    """What one token of one photo attends to.

    Attributes
    ----------
    photo : int
    point : Point or None
        The patch that attends; None for the class token.
    heads : ndarray, shape (heads, h, w), float32
        Softmax weights; those of class token and registers are left out.
    rollout : ndarray, shape (h, w), float32
    """

    photo: int
    point: Point | None
    heads: NDArray[np.float32]
    rollout: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over heads, (h, w)."""
        mean: NDArray[np.float32] = self.heads.mean(axis=0)
        return mean


def check_backbone(backbone: Backbone, *, has_points: bool, layer: int) -> None:
    """Refuse a network that cannot give what is asked for, before any photo is read.

    Raises
    ------
    ModelError
        If it has no attention, no such layer, or no class token and no point is given.
    """
    if not backbone.has_attention:
        raise ModelError(
            f"{backbone.record.name} cannot give its attention; the lens attention needs a transformer"
        )
    backbone.layer_index(layer)
    if not has_points and not _has_class_token(backbone):
        raise ModelError(
            f"{backbone.record.name} has no class token; give the lens attention a patch: at=PHOTO:x,y"
        )


def _has_class_token(backbone: Backbone) -> bool:
    return backbone._has_class_token()


def look(scene: Scene) -> LensResult:
    """Attention of every photo's class token, and of the patches asked for; see docs/lenses/attention.md."""
    view, backbone, layer = scene.view, scene.backbone, scene.options.layer
    if backbone is None:
        raise OptionError("the lens attention needs the backbone")
    points = [locate(text, view) for text in scene.options.at]
    check_backbone(backbone, has_points=bool(points), layer=layer)
    from_class = _attend_all(scene, [(i, None) for i in range(len(scene)) if _has_class_token(backbone)])
    from_points = _attend_all(scene, [(point.photo, point) for point in points])
    if not from_class and not from_points:
        raise PhotoError(view.names[0], "could not be read again, nor could any other photo")
    result = LensResult(
        name="attention",
        report={
            "layer": backbone.layer_index(layer),
            "heads": (from_class + from_points)[0].heads.shape[0],
            "class_token": [_report(scene, found) for found in from_class],
            "points": [_report(scene, found) for found in from_points],
        },
    )
    result.pictures = [{} for _ in range(len(scene))]
    result.arrays = [{} for _ in range(len(scene))]
    if from_class:
        result.figures["attention"] = partial(_overview, scene, from_class)
    for found in from_class:
        low_high = (0.0, _top(found.mean))
        result.pictures[found.photo]["attention"] = partial(
            scene.draw_heat, found.photo, found.mean, *low_high
        )
        result.pictures[found.photo]["attention-heads"] = partial(_heads_sheet, scene, found)
        result.arrays[found.photo] |= {
            "cls_heads": found.heads,
            "cls_mean": found.mean,
            "cls_rollout": found.rollout,
        }
    for n, found in enumerate(from_points, start=1):
        result.figures[f"attention-at-{n}"] = partial(_heads_sheet, scene, found)
        result.arrays[found.photo] |= {
            f"at{n}_heads": found.heads,
            f"at{n}_mean": found.mean,
            f"at{n}_rollout": found.rollout,
        }
    return result


def _attend_all(scene: Scene, wanted: list[tuple[int, Point | None]]) -> list[Attention]:
    found = []
    for photo, point in wanted:
        try:
            found.append(_attend(scene, photo, point))
        except PhotoError:
            if photo not in scene.view.photos.lost:
                raise
    return found


def _attend(scene: Scene, photo: int, point: Point | None) -> Attention:
    assert scene.backbone is not None
    framed, _ = scene.view.photos.frame(photo, scene.view.framing)
    pixels = framed.pixels[None]
    query: Any = "cls" if point is None else (point.row, point.column)
    heads = scene.backbone.attention(pixels, layer=scene.options.layer, query=query)[0]
    rollout = scene.backbone.rollout(pixels, query=query)[0]
    found = Attention(photo, point, heads.cpu().float().numpy(), rollout.cpu().float().numpy())
    if not (np.isfinite(found.heads).all() and np.isfinite(found.rollout).all()):
        raise FeaturesError(f"{scene.view.names[photo]}: the network's attention is not finite")
    return found


def _report(scene: Scene, found: Attention) -> dict[str, Any]:
    entropy = [_entropy(head) for head in found.heads]
    return {
        "photo": scene.view.names[found.photo],
        **({"at": [found.point.x, found.point.y]} if found.point else {}),
        "share_to_patches": [rounded(head.sum(), 4) for head in found.heads],
        # 1: spread evenly over all patches; 0: all on one
        "spread": [rounded(value, 4) for value in entropy],
    }


def _entropy(head: NDArray[np.float32]) -> float:
    """Entropy of a head's attention among patches, as a share of the largest possible."""
    share = head.ravel().astype(np.float64)
    if share.sum() <= 0 or share.size < 2:
        return 0.0
    share = share / share.sum()
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(share.size))


def _top(values: NDArray[np.float32]) -> float:
    """The end of a map's scale: a few patches that hoard attention must not hide all others."""
    return float(np.percentile(values, 99)) or float(values.max())


def _overview(scene: Scene, found: list[Attention]) -> NDArray[np.uint8]:
    cells = []
    for each in found:
        size = panel_size(each.mean.shape, box_for(len(found)))
        maps = [map_panel(heat(values, 0.0, _top(values)), size) for values in (each.mean, each.rollout)]
        shown = photo_panel(scene.view.photos.shown(each.photo, scene.view.framing), size)
        share = f"mean {each.mean.sum():.0%}, rollout {each.rollout.sum():.0%} to patches"
        cells.append(Cell([shown, *maps], (scene.title_of(each.photo), share)))
    return sheet(
        cells,
        columns=columns_for(len(cells), 3),
        title=f"attention of the class token, {_layer(scene)}",
        notes=["From left to right: photo, mean over heads, rollout through all layers.", _NOTE],
    )


def _heads_sheet(scene: Scene, found: Attention) -> NDArray[np.uint8]:
    size = panel_size(found.mean.shape, 208)
    shown = photo_panel(scene.view.photos.shown(found.photo, scene.view.framing), size)
    source = "the class token"
    if found.point:
        left, top, right, bottom = scene.view.crops[found.photo]
        place = (found.point.x - left) / (right - left), (found.point.y - top) / (bottom - top)
        shown = mark(shown, *place)
        source = f"the patch at {found.point.x:g}, {found.point.y:g}"
    cells = [Cell([shown], (scene.title_of(found.photo),))]
    named = [("mean over heads", found.mean), ("rollout, all layers", found.rollout)]
    named += [(f"head {n}", head) for n, head in enumerate(found.heads)]
    for label, values in named:
        cells.append(
            Cell(
                [map_panel(heat(values, 0.0, _top(values)), size)], (label, f"{values.sum():.0%} to patches")
            )
        )
    return sheet(
        cells,
        columns=min(len(cells), 5),
        title=f"attention of {source}, {_layer(scene)}",
        notes=[_NOTE],
    )


def _layer(scene: Scene) -> str:
    record, layer = scene.view.record, scene.options.layer  # a result that was pickled has no backbone
    return f"layer {layer % record.depth} of {record.name}"
