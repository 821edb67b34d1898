"""What the network will cost at large grids, estimated from the number of patches before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchprism.features.options import DEFAULT_TILE, REFINES
from patchprism.features.tiles import count_windows, window_grid
from patchprism.photos.framing import DEFAULT_SIZE

if TYPE_CHECKING:
    from patchprism.backbones import BackboneRecord
    from patchprism.photos.framing import Framing

# A job counts as costly if a photo needs at least this many times the work of a photo with the default options, and the
# whole job at least the work of this many such photos.
_MANY_TIMES = 10
_MANY_PHOTOS = 200


def operations(side: int, record: BackboneRecord, *, window: int | None = None) -> float:
    """Multiplications of the network for a square photo, in units that depend on the model only.

    A block of a transformer with N tokens of width D takes 12 N D^2 for its linear layers and 2 N^2 D for its
    attention, so N (6 D + N). A convolutional network takes the same for each patch.

    Parameters
    ----------
    side : int
        Patches along the photo.
    record : BackboneRecord
    window : int, optional
        Patches along a window, if the photo goes through the network in windows.
    """
    if window is not None and window < side:
        # The small photo that gives the context has as many patches as a window.
        return (count_windows(side, window) ** 2 + 1) * operations(window, record)
    patches = side**2
    return float(patches * (6 * record.width + patches) if record.heads else patches)


def explain_cost(framing: Framing, record: BackboneRecord, tile: int | None, n_photos: int) -> str:
    """A line about a job that costs the network many times the usual work; empty for other jobs.

    Parameters
    ----------
    framing : Framing
    record : BackboneRecord
    tile : int or None
        Side of a window in pixels of model input, as in :class:`~patchprism.features.options.TokenOptions`.
    n_photos : int
        Photos that go through the network.
    """

    def times(size: int, cell: int, tile: int | None) -> float:
        window = None if tile is None else window_grid(tile, cell)
        return operations(size // cell, record, window=window) / usual

    patch = framing.patch_size
    usual = operations(DEFAULT_SIZE // patch, record)
    cost = times(framing.size, framing.cell, tile)
    if cost < _MANY_TIMES or cost * n_photos < _MANY_PHOTOS:
        return ""
    if framing.stride is not None:
        refine = max(each for each in REFINES if each <= framing.enlargement)
        cheaper = f"refine={refine} instead of stride={framing.stride}"
        less = times(framing.size, patch, tile)
    else:
        cheaper, less = f"tile={DEFAULT_TILE}", times(framing.size, patch, DEFAULT_TILE)
        if tile is not None or less > cost / 2:
            cheaper, less = f"size={framing.size // 2}", times(framing.size // 2, patch, tile)
    patches, default = (framing.size // framing.cell) ** 2, (DEFAULT_SIZE // patch) ** 2
    with_it = "the usual work" if less <= 1 else f"{_rounded(less)} times the usual work"
    return (
        f"a square photo has {patches:,} patches (by default {default:,}), about {_rounded(cost)} times the usual work "
        f"for the network; with {cheaper}, it is about {with_it}"
    )


def _rounded(value: float) -> str:
    """Two digits of a number.

    Examples
    --------
    >>> _rounded(12345.6), _rounded(1.0), _rounded(7.69)
    ('12,000', '1', '7.7')
    """
    return f"{float(f'{value:.2g}'):,.10g}"
