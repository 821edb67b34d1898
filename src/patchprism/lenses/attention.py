"""Attention of the class token or of a patch, per head, and its rollout through all layers."""

from __future__ import annotations

import threading
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import FeaturesError, ModelError, OptionError, PhotoError
from patchprism.lenses.base import Lens, rounded
from patchprism.pictures.drawing import Drawing
from patchprism.pictures.outputs import LensResult, PhotoLook
from patchprism.pictures.sheet import MAX_GROUPS, Bar, Group, Panel, Sheet, heat, map_panel, mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

    from patchprism.backbones import Backbone
    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.lenses.points import Point
    from patchprism.photos.framing import Framing
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.passes import Walk

_NOTE = (
    "Every panel has its own scale, from 0 to the 99th percentile over its patches. Below the panel are that value "
    "and the share of attention that goes to patches; the rest goes to the class token and the registers."
)
_BAR = Bar("attention weight of a patch", "0", "99th percentile of the panel")
# Photos are drawn in several threads, but only one may use the network at a time.
_network = threading.Lock()


@dataclass(frozen=True)
class Attended:
    """The attention of one token of one photo.

    Attributes
    ----------
    row : PhotoRow
        The photo.
    number : int
        Its number, from 0.
    point : Point or None
        The patch that attends; None for the class token.
    heads : ndarray, shape (heads, h, w), float32
        Softmax weights, without those of the class token and the registers.
    rollout : ndarray, shape (h, w), float32
    """

    row: PhotoRow
    number: int
    point: Point | None
    heads: NDArray[np.float32]
    rollout: NDArray[np.float32]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean over heads, (h, w)."""
        mean: NDArray[np.float32] = self.heads.mean(axis=0)
        return mean


def check_backbone(backbone: Backbone, *, has_points: bool, layer: int) -> None:
    """Refuse a network that cannot give the requested attention, before any photo is read.

    Raises
    ------
    ModelError
        If it has no attention or no such layer, or if it has no class token and no point is given.
    """
    if not backbone.has_attention:
        raise ModelError(
            f"{backbone.record.name} cannot give its attention; the lens attention needs a transformer"
        )
    backbone.layer_index(layer)
    if not has_points and not backbone._has_class_token():
        raise ModelError(
            f"{backbone.record.name} has no class token, so the lens attention needs a point: at=PHOTO:x,y"
        )


def class_attention(
    backbone: Backbone, framing: Framing, photo: NDArray[np.uint8], *, name: str, layer: int
) -> NDArray[np.float32]:
    """Attention of the class token, averaged over heads, (h, w); the lens shows it first.

    Parameters
    ----------
    photo : ndarray, shape (H, W, 3), uint8
    layer : int
        Counted from 0, or from the end with negative numbers.

    Raises
    ------
    FeaturesError
        If the attention is not finite.
    """
    pixels = framing.apply(photo, name=name, show=False).pixels[None]
    with _network:
        heads = backbone.attention(pixels, layer=layer, query="cls")[0]
    mean: NDArray[np.float32] = heads.cpu().float().numpy().mean(axis=0)
    if not np.isfinite(mean).all():
        raise FeaturesError(f"{name}: the network's attention is not finite")
    return mean


class Attention(Lens):
    """Attention of every photo's class token, and of the requested patches; see docs/lenses/attention.md."""

    name = "attention"
    needs_backbone = True

    def fit(self, walk: Walk) -> Self:
        """See :class:`Lens`: learns nothing, only checks that the network can give the requested attention."""
        scene, layer = self.scene, self.scene.options.layer
        self.points_ = [scene.locate(text) for text in scene.options.at]
        if scene.backbone is None:
            raise OptionError(
                "the lens attention must run the model again, which needs photos and a backbone"
            )
        check_backbone(scene.backbone, has_points=bool(self.points_), layer=layer)
        self.layer_ = scene.backbone.layer_index(layer)
        self.has_class_token_ = scene.backbone._has_class_token()
        # The attention of photos that this process looked at, for the figures.
        self.seen_: dict[int, list[Attended]] = {}
        return self

    def learned(self) -> Any:
        """See :class:`Lens`."""
        return [self.layer_, [astuple(point) for point in self.points_]]

    def look(self, row: PhotoRow, tokens: Tokens, part: PhotoColors, index: int) -> PhotoLook:
        """See :class:`Lens`; the result is empty if the photo cannot be read again."""
        found = self._attend(row, index)
        look = PhotoLook(entry={"points": {}})
        for each in found:
            name = "cls" if each.point is None else f"at{self._place(each.point)}"
            if each.point is None:
                ends = (0.0, top(each.mean))
                look.pictures["attention"] = partial(self.scene.draw_heat, row, each.mean, *ends)
                look.pictures["attention-heads"] = Drawing(partial(self._heads_sheet, each))
                look.entry["class_token"] = _report(each)
            else:
                look.entry["points"][str(self._place(each.point))] = _report(each)
            look.arrays |= {
                f"{name}_heads": each.heads,
                f"{name}_mean": each.mean,
                f"{name}_rollout": each.rollout,
            }
        return look

    def result(self, entries: Sequence[Any]) -> LensResult:
        """See :class:`Lens`."""
        from_class = [entry["class_token"] for entry in entries if "class_token" in entry]
        at = {int(n): report for entry in entries for n, report in entry["points"].items()}
        if not from_class and not at:
            name = self.scene.row(0).name
            raise PhotoError(name, "could not be read again, nor could any other photo")
        report = {
            "layer": self.layer_,
            "heads": len((from_class or list(at.values()))[0]["share_to_patches"]),
            "class_token": from_class,
            "points": [at[n] for n in sorted(at)],
        }
        figures = {f"attention-at-{n}": Drawing(partial(self._point_figure, n)) for n in sorted(at)}
        if from_class:
            numbers = [number for number, entry in enumerate(entries) if "class_token" in entry]
            overview = partial(self._overview, numbers[:MAX_GROUPS], len(numbers))
            figures = {"attention": Drawing(overview)} | figures
        return LensResult(name=self.name, report=report, figures=figures)

    def _place(self, point: Point) -> int:
        """Number of a point among the requested points, from 1."""
        return 1 + next(n for n, each in enumerate(self.points_) if each is point)

    def _attend(self, row: PhotoRow, index: int) -> list[Attended]:
        """Attention of a photo's class token, and of the points in it; kept if figures show the photo."""
        number = self.scene.number(index)
        points = [point for point in self.points_ if point.photo == number]
        queries: list[Point | None] = [None, *points] if self.has_class_token_ else [*points]
        if index in self.seen_ or not queries:
            return self.seen_.get(index, [])
        photo = self.scene.photo(row)
        if photo is None:
            return []
        pixels = self.scene.framing.apply(photo, name=row.name, show=False).pixels[None]
        found = [self._of(pixels, row, number, point) for point in queries]
        if number < MAX_GROUPS or points:
            self.seen_[index] = found
        return found

    def _of(self, pixels: Any, row: PhotoRow, number: int, point: Point | None) -> Attended:
        # Attention has one value per patch of the network; the grid of the photo's tokens may be finer.
        patch = self.scene.framing.patch_size
        rows, columns = (length // patch for length in pixels.shape[-2:])
        query: Any = "cls"
        if point is not None:
            query = (point.row * rows // row.grid[0], point.column * columns // row.grid[1])
        with _network:
            backbone = self.scene.backbone
            assert backbone is not None
            heads = backbone.attention(pixels, layer=self.scene.options.layer, query=query)[0]
            rollout = backbone.rollout(pixels, query=query)[0]
        found = Attended(row, number, point, heads.cpu().float().numpy(), rollout.cpu().float().numpy())
        if not (np.isfinite(found.heads).all() and np.isfinite(found.rollout).all()):
            raise FeaturesError(f"{row.name}: the network's attention is not finite")
        return found

    def _overview(self, numbers: Sequence[int], total: int) -> Sheet:
        groups = []
        for number in numbers:
            for each in self._attend(self.scene.row(number), self.scene.index(number))[:1]:
                panels = [Panel(each.row.grid, partial(self.photo_panel, each.row))]
                panels += [_panel(values) for values in (each.mean, each.rollout)]
                groups.append(Group(panels, Path(each.row.name).name, number))
        heads = ("photo", "mean over heads", "rollout through all layers")
        notes = [f"Attention of the class token, {self._layer}.", _NOTE]
        return Sheet(groups, heads=heads, bars=(_BAR,), notes=tuple(notes), total=total)

    def _point_figure(self, n: int) -> Sheet:
        point = self.points_[n - 1]
        found = self._attend(self.scene.row(point.photo), self.scene.index(point.photo))
        return self._heads_sheet(next(each for each in found if each.point is point))

    def _heads_sheet(self, found: Attended) -> Sheet:
        def shown(size: tuple[int, int]) -> Image.Image:
            panel = self.photo_panel(found.row, size)
            if found.point is None:
                return panel
            left, top, right, bottom = found.row.crop
            x, y = (found.point.x - left) / (right - left), (found.point.y - top) / (bottom - top)
            return mark(panel, x, y)

        source = f"the patch at {found.point.x:g}, {found.point.y:g}" if found.point else "the class token"
        groups = [Group((Panel(found.row.grid, shown),), self.scene.title(found.row, found.number))]
        named = [("mean over heads", found.mean), ("rollout, all layers", found.rollout)]
        named += [(f"head {n}", head) for n, head in enumerate(found.heads)]
        groups += [Group((_panel(values),), label) for label, values in named]
        title = f"Attention of {source} of {self.scene.title(found.row, found.number)}, {self._layer}."
        columns = min(len(groups), 5)
        return Sheet(groups, columns=columns, bars=(_BAR,), notes=(title, _NOTE), what="panels")

    @property
    def _layer(self) -> str:
        record, layer = self.scene.record, self.scene.options.layer
        return f"layer {layer % record.depth} of {record.name}"


def _report(found: Attended) -> dict[str, Any]:
    return {
        "photo": found.row.name,
        **({"at": [found.point.x, found.point.y]} if found.point else {}),
        "share_to_patches": [rounded(head.sum(), 4) for head in found.heads],
        # 1: spread evenly over all patches; 0: all on one
        "spread": [rounded(_entropy(head), 4) for head in found.heads],
    }


def _entropy(head: NDArray[np.float32]) -> float:
    """Entropy of a head's attention among patches, as a share of the largest possible."""
    share = head.ravel().astype(np.float64)
    if share.sum() <= 0 or share.size < 2:
        return 0.0
    share = share / share.sum()
    positive = share[share > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(share.size))


def _panel(values: NDArray[np.float32]) -> Panel:
    """A map of attention on its own scale."""
    high = top(values)
    label = f"0 to {high:.2g}; {values.sum():.0%} to patches"
    return Panel(values.shape, lambda size: map_panel(heat(values, 0.0, high), size), (label,))


def top(values: NDArray[np.float32]) -> float:
    """Upper end of a map's scale: its 99th percentile, because a few patches can get most of the attention."""
    return float(np.percentile(values, 99)) or float(values.max())
