"""The figures of the main job: each photo with its score, its colours, and the colours of all its patches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchprism.errors import OptionError
from patchprism.pictures.outline import outlined
from patchprism.pictures.picture import draw_colors
from patchprism.pictures.sheet import Bar, Group, Panel, Sheet, map_panel, photo_panel, viridis
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from PIL import Image


# Larger figures are posters, which some viewers refuse.
MAX_PHOTOS = 200
# Share of the photo where the score is laid over it.
TINT = 0.5


@dataclass(frozen=True, kw_only=True)
class Style:
    """Common properties of the figures of a job.

    Attributes
    ----------
    names : sequence of str, optional
        Labels of the photos.
    total : int, optional
        Number of photos, if only the first 200 of them are given.
    upsample : {"nearest", "bilinear", "guided"}
        Method from patches to the figure's pixels.
    columns : int, optional
        Number of photos side by side; by default as many as fit.
    notes : tuple of str
        Sentences of the caption.
    """

    names: Sequence[str] | None = None
    total: int | None = None
    upsample: str = "nearest"
    columns: int | None = None
    notes: tuple[str, ...] = ()


DEFAULT_STYLE = Style()


def fg_mask_sheet(
    shown: Sequence[NDArray[np.uint8]],
    scores: Sequence[NDArray[np.floating[Any]]],
    foregrounds: Sequence[NDArray[np.bool_]],
    style: Style = DEFAULT_STYLE,
    *,
    side: Literal["above", "below", "none"] = "above",
    outline: bool = False,
) -> Sheet:
    """Each crop with its score laid over it; the background has score 0.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops.
    scores : sequence of np.ndarray, shape (h, w), floating
        In [0, 1].
    foregrounds : sequence of np.ndarray, shape (h, w), bool
    style : Style
        Labels and arrangement.
    side : {"above", "below", "none"}, default "above"
        Side of the threshold that is foreground. With ``"below"``, one minus the score is shown, because
        otherwise the object would be as dark as the background.
    outline : bool, default False
        Whether to draw a line around the foreground.

    Returns
    -------
    Sheet
        Shows at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or the numbers of arrays or their shapes do not agree.
    """
    _check(shown, scores, style.names, ndim=2)
    _check(shown, foregrounds, style.names, ndim=2)

    def draw(index: int, size: tuple[int, int]) -> Image.Image:
        from PIL import Image

        score = np.asarray(scores[index])
        mask = np.asarray(foregrounds[index], dtype=bool)
        strength = np.where(mask, 1.0 - score if side == "below" else score, 0.0)
        photo = photo_panel(shown[index], size)
        score_map = colors_panel(viridis(strength), None, size, lambda: photo, upsample=style.upsample)
        panel = Image.blend(photo, score_map, 1 - TINT)
        return outlined(panel, mask) if outline else panel

    groups = [
        Group((Panel(np.shape(score), partial(draw, i)),), *_named(style.names, i))
        for i, score in enumerate(scores[:MAX_PHOTOS])
    ]
    ends = ("1 (and background)", "0") if side == "below" else ("0 (and background)", "1")
    bar = Bar("score (tint over light and dark parts)", *ends, colors=tint())
    return Sheet(
        groups, bars=(bar,), columns=style.columns, total=style.total or len(shown), notes=style.notes
    )


def tint() -> NDArray[np.uint8]:
    """Colours of scores from 0 to 1 over photos from white (top) to black (bottom), (64, 256, 3) uint8."""
    photo = np.linspace(1.0, 0.0, 64)[:, None, None]
    colors: NDArray[np.uint8] = to_uint8(
        TINT * photo + (1 - TINT) * viridis(np.linspace(0.0, 1.0, 256))[None]
    )
    return colors


def results_sheet(
    shown: Sequence[NDArray[np.uint8]],
    colors: Sequence[NDArray[np.floating[Any]]],
    style: Style = DEFAULT_STYLE,
    *,
    outlines: Sequence[NDArray[np.bool_]] | None = None,
    foregrounds: Sequence[NDArray[np.bool_]] | None = None,
    background: str = "black",
) -> Sheet:
    """Each crop beside its colours, or above them.

    Parameters
    ----------
    shown : sequence of np.ndarray, shape (H, W, 3), uint8
        The crops.
    colors : sequence of np.ndarray, shape (h, w, 3), floating
        In [0, 1].
    style : Style
        Labels and arrangement.
    outlines : sequence of np.ndarray, shape (h, w), bool, optional
        Foregrounds, to draw a line around them on the photos.
    foregrounds : sequence of np.ndarray, shape (h, w), bool, optional
        Patches that show their colours; the others show the background. By default all patches show their colours.
    background : {"black", "white", "grey", "photo", "transparent"}
        What is shown outside the foreground.

    Returns
    -------
    Sheet
        Shows at most 200 photos; if there are more, the figure says so.

    Raises
    ------
    OptionError
        If there are no photos, or the numbers of arrays or their shapes do not agree.
    """
    _check(shown, colors, style.names, ndim=3)

    def photo(index: int, size: tuple[int, int]) -> Image.Image:
        panel = photo_panel(shown[index], size)
        return panel if outlines is None else outlined(panel, outlines[index])

    def painted(index: int, size: tuple[int, int]) -> Image.Image:
        kept = None if foregrounds is None else foregrounds[index]
        under = partial(photo_panel, shown[index], size)
        return colors_panel(colors[index], kept, size, under, background=background, upsample=style.upsample)

    groups = [
        Group(
            (Panel(np.shape(each), partial(photo, i)), Panel(np.shape(each), partial(painted, i))),
            *_named(style.names, i),
        )
        for i, each in enumerate(colors[:MAX_PHOTOS])
    ]
    return Sheet(groups, columns=style.columns, total=style.total or len(shown), notes=style.notes)


def colors_panel(
    colors: NDArray[np.floating[Any]],
    foreground: NDArray[np.bool_] | None,
    size: tuple[int, int],
    photo: Callable[[], Image.Image],
    *,
    background: str = "black",
    upsample: str = "nearest",
) -> Image.Image:
    """Colours of the foreground patches at a panel's size, and the background elsewhere.

    Without ``foreground``, all patches show their colours. ``photo`` draws the photo's panel, and is called only if
    the upsampling or the background needs it.
    """
    from PIL import Image

    width, height = size
    if upsample in ("auto", "nearest") and background == "black":
        return map_panel(colors, size)
    picture = draw_colors(
        np.asarray(colors),
        np.ones(np.shape(colors)[:2], bool) if foreground is None else np.asarray(foreground, bool),
        lambda: np.asarray(photo()),
        crop=(0.0, 0.0, float(width), float(height)),
        size=(height, width),
        upsample=upsample,
        background=background,
    )
    return Image.fromarray(picture)


def _named(names: Sequence[str] | None, index: int) -> tuple[str, int]:
    return "" if names is None else names[index], index


def _check(shown: Sequence[Any], values: Sequence[Any], names: Sequence[str] | None, *, ndim: int) -> None:
    if not len(shown) or len(shown) != len(values) or (names is not None and len(names) != len(shown)):
        count = "" if names is None else f" and {len(names)} names"
        raise OptionError(
            f"a figure needs as many photos as arrays, got {len(shown)} and {len(values)}{count}"
        )
    for index, (photo, value) in enumerate(zip(shown, values, strict=True)):
        if np.ndim(photo) != 3 or np.ndim(value) != ndim or 0 in np.shape(value):
            raise OptionError(f"photo {index} of a figure has shapes {np.shape(photo)} and {np.shape(value)}")
