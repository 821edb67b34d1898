"""Figures: several photos in one picture."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.captions import caption
from patchprism.pictures.outline import outlined
from patchprism.pictures.sheet import (
    Bar,
    Cell,
    Layout,
    map_panel,
    panel_size,
    photo_panel,
    sheet,
    viridis,
)
from patchprism.pictures.upsample import paint_smooth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image

# Beyond these a figure is a poster: nobody reads it, and some viewers refuse it.
MAX_PHOTOS = 200


def fg_mask_figure(
    shown: Sequence[NDArray[np.uint8]],
    scores: Sequence[NDArray[np.floating[Any]]],
    foregrounds: Sequence[NDArray[np.bool_]],
    *,
    names: Sequence[str] | None = None,
    side: Literal["above", "below", "none"] = "above",
    total: int | None = None,
    outline: bool = False,
    upsample: str = "nearest",
) -> NDArray[np.uint8]:
    """Each crop with its score laid over it, background at 0; the panels in a grid near square.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops, as the backbone saw them.
    scores : sequence of np.ndarray, shape (h, w), floating
        In [0, 1].
    foregrounds : sequence of np.ndarray, shape (h, w), bool
    names : sequence of str, optional
        Captions.
    side : {"above", "below", "none"}, default "above"
        Where the foreground lies. With ``"below"`` one minus the score is shown, or the object would be as
        dark as the background.
    total : int, optional
        How many photos there are, where only the first 200 of them are given.
    outline : bool, default False
        Draw a line around the foreground.
    upsample : {"nearest", "bilinear", "guided"}
        From patches to the figure's pixels.

    Returns
    -------
    np.ndarray, shape (height, width, 3), uint8
        Of at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or not as many of one as of the other, or shapes do not agree.
    """
    _check(shown, scores, names, ndim=2)
    _check(shown, foregrounds, names, ndim=2)
    from PIL import Image as PILImage

    total = total or len(shown)
    sizes = _sizes(total, scores)

    def panels(index: int) -> list[Image.Image]:
        score = np.asarray(scores[index])
        mask = np.asarray(foregrounds[index], dtype=bool)
        strength = np.where(mask, 1.0 - score if side == "below" else score, 0.0)
        photo = photo_panel(shown[index], sizes[index])
        panel = PILImage.blend(photo, color_panel(viridis(strength), photo, upsample), 0.5)
        return [outlined(panel, mask) if outline else panel]

    columns = math.ceil(math.sqrt(min(total, MAX_PHOTOS)))
    bar = Bar("background 0", "1 score")
    return _figure(total, sizes, panels, names, n_panels=1, columns=columns, bar=bar)


def results_figure(
    shown: Sequence[NDArray[np.uint8]],
    colors: Sequence[NDArray[np.floating[Any]]],
    *,
    names: Sequence[str] | None = None,
    total: int | None = None,
    outlines: Sequence[NDArray[np.bool_]] | None = None,
    upsample: str = "nearest",
) -> NDArray[np.uint8]:
    """Each crop beside its colours, a row a photo; many photos go into several columns of such pairs.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops, as the backbone saw them.
    colors : sequence of np.ndarray, shape (h, w, 3), floating
        In [0, 1].
    names : sequence of str, optional
        Captions.
    total : int, optional
        How many photos there are, where only the first 200 of them are given.
    outlines : sequence of np.ndarray, shape (h, w), bool, optional
        Foregrounds, to draw a line around them on the photos.
    upsample : {"nearest", "bilinear", "guided"}
        From patches to the figure's pixels.

    Returns
    -------
    np.ndarray, shape (height, width, 3), uint8
        Of at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or not as many of one as of the other, or shapes do not agree.
    """
    _check(shown, colors, names, ndim=3)
    total = total or len(shown)
    sizes = _sizes(total, colors)

    def panels(index: int) -> list[Image.Image]:
        photo = photo_panel(shown[index], sizes[index])
        colored = color_panel(np.asarray(colors[index]), photo, upsample)
        if outlines is not None:
            photo = outlined(photo, outlines[index])
        return [photo, colored]

    return _figure(total, sizes, panels, names, n_panels=2, columns=sheet_sizes(total)[1])


def color_panel(colors: NDArray[np.floating[Any]], photo: Image.Image, upsample: str) -> Image.Image:
    """Colours of patches, (h, w, 3) in [0, 1], at the size of the photo's panel, which guides them if asked to."""
    if upsample == "nearest":
        return map_panel(colors, photo.size)
    from PIL import Image as PILImage

    width, height = photo.size
    crop, guide = (0, 0, width, height), np.asarray(photo)
    return PILImage.fromarray(
        paint_smooth(colors, crop=crop, size=(height, width), method=upsample, photo=guide)
    )


def _check(shown: Sequence[Any], values: Sequence[Any], names: Sequence[str] | None, *, ndim: int) -> None:
    if not len(shown) or len(shown) != len(values) or (names is not None and len(names) != len(shown)):
        count = "" if names is None else f" and {len(names)} names"
        raise OptionError(
            f"a figure needs as many photos as arrays, got {len(shown)} and {len(values)}{count}"
        )
    for index, (photo, value) in enumerate(zip(shown, values, strict=True)):
        if np.ndim(photo) != 3 or np.ndim(value) != ndim or 0 in np.shape(value):
            raise OptionError(f"photo {index} of a figure has shapes {np.shape(photo)} and {np.shape(value)}")


def sheet_sizes(total: int) -> tuple[int, int]:
    """About how large a panel is, and how many pairs stand side by side."""
    for most, box, columns in (
        (4, 288, 1),
        (6, 256, 1),
        (12, 224, 2),
        (27, 192, 3),
        (60, 160, 4),
        (100, 144, 5),
    ):
        if total <= most:
            return box, columns
    return 128, 7


def _sizes(total: int, values: Sequence[Any]) -> list[tuple[int, int]]:
    """Of the panels of each photo that is shown."""
    box, _ = sheet_sizes(total)
    return [panel_size(np.shape(value), box) for value in values[:MAX_PHOTOS]]


def _figure(
    total: int,
    sizes: Sequence[tuple[int, int]],
    panels: Callable[[int], list[Image.Image]],
    names: Sequence[str] | None,
    *,
    n_panels: int,
    columns: int,
    bar: Bar | None = None,
) -> NDArray[np.uint8]:
    """Photos in rows and columns, each with its panels; all lengths follow the size of the panels."""
    box, _ = sheet_sizes(total)
    count = min(total, MAX_PHOTOS)
    font = max(11, box // 18)
    layout = Layout(
        margin=max(20, box // 8),
        gap=max(12, box // 10),
        inner=max(4, box // 32),
        font=font,
        line=round(font * 1.7),
        drop=round(font * 1.7) * 0.25,
        least=0,
        bar=10 * font,
        thickness=font,
        space=font * 0.6,
        foot=round(font * 2.4),
        centered=True,
        most=MAX_PHOTOS,
    )
    cells = [
        Cell(size, partial(panels, i), () if names is None else (caption(names[i], i + 1),), n_panels)
        for i, size in enumerate(sizes[:count])
    ]
    foot = f"first {count:,} of {total:,} photos" if total > count else ""
    return sheet(cells, columns=min(columns, count), bar=bar, foot=foot, layout=layout)
