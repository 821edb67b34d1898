"""Tokens of large photos: overlapping windows that are blended, and a pass over the whole photo for context.

Each window goes through the network separately, so the memory depends on the size of a window and not on that of the
photo. Where windows overlap, their tokens are averaged with weights that decrease towards the edges of the windows.
The tokens of a window do not depend on what is around the window. So the whole photo, scaled down to about the size
of a window, also goes through the network. Its tokens replace the coarse part of the windows' tokens, which is their
mean over each patch of the small photo; the fine part comes from the windows. The bands of a Laplacian pyramid are
combined in the same way (Burt and Adelson, "A Multiresolution Spline", 1983).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchprism.support.surroundings import own_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    Network = Callable[[torch.Tensor], torch.Tensor]
    Float32 = NDArray[np.float32]

# Share of the side of a window by which it overlaps the next window.
OVERLAP = 0.25
# Number of components of the tokens that are resized at a time, to limit the memory.
_CHANNELS = 32


def window_grid(tile: int, cell: int) -> int:
    """Number of patches along the side of a window of ``tile`` pixels; at least two."""
    return max(2, tile // cell)


def tiled(
    pixels: torch.Tensor, network: Network, *, patch: int, side: int, at_once: int = 1, enlargement: int = 1
) -> Float32:
    """Tokens of one photo that is larger than a window.

    Parameters
    ----------
    pixels : torch.Tensor, shape (3, H, W)
        Framed pixels, with overlapping patches side by side.
    network : callable
        Pixels (B, 3, h, w) -> tokens (B, h / patch, w / patch, D).
    patch : int
        Side of a patch in pixels.
    side : int
        Side of a window in patches.
    at_once : int
        Windows per forward pass.
    enlargement : int
        Factor by which the stride increases the number of rows and columns.

    Returns
    -------
    ndarray, shape (H / patch, W / patch, D), float32
    """
    import torch

    rows, columns = (length // patch for length in pixels.shape[1:])
    tall, wide = min(side, rows), min(side, columns)
    ramp = _ramp(tall, rows)[:, None] * _ramp(wide, columns)
    total, weights = np.zeros((0,), np.float32), np.zeros((rows, columns, 1), np.float32)
    places = [(top, left) for top in _starts(rows, tall) for left in _starts(columns, wide)]
    for chunk in _chunks(places, at_once):
        windows = torch.stack(
            [
                pixels[:, patch * top : patch * (top + tall), patch * left : patch * (left + wide)]
                for top, left in chunk
            ]
        )
        for (top, left), tokens in zip(chunk, network(windows).cpu().numpy(), strict=True):
            if not total.size:
                total = np.zeros((rows, columns, tokens.shape[-1]), np.float32)
            total[top : top + tall, left : left + wide] += ramp[..., None] * tokens
            weights[top : top + tall, left : left + wide, 0] += ramp
    total /= weights
    with own_settings():
        whole = network(_small(pixels, patch, side, enlargement)[None])[0].cpu()
        _take_coarse(total, whole)
    return total


def _small(pixels: torch.Tensor, patch: int, side: int, enlargement: int) -> torch.Tensor:
    """The whole photo, scaled down to about as many patches as a window has."""
    from torch.nn.functional import interpolate

    if enlargement > 1:  # every n-th patch; together they show the photo without overlap
        h, w = (length // patch for length in pixels.shape[1:])
        first = (enlargement - 1) // 2
        apart = pixels.reshape(3, h, patch, w, patch)[:, first::enlargement, :, first::enlargement]
        pixels = apart.reshape(3, apart.shape[1] * patch, -1)
    h, w = (length // patch for length in pixels.shape[1:])
    scale = min(1.0, side / (h * w) ** 0.5)
    size = (max(1, round(h * scale)) * patch, max(1, round(w * scale)) * patch)
    small: torch.Tensor = interpolate(
        pixels[None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[0]
    return small


def _take_coarse(tokens: Float32, whole: torch.Tensor) -> None:
    """Change tokens (h, w, D) in place, so that their means over the cells of a coarser grid are those of ``whole``.

    ``whole`` has the shape (gh, gw, D) of the coarser grid.
    """
    import torch
    from torch.nn.functional import interpolate

    size = tokens.shape[:2]
    for start in range(0, tokens.shape[2], _CHANNELS):
        part = tokens[..., start : start + _CHANNELS]
        fine = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
        wanted = whole[..., start : start + _CHANNELS].permute(2, 0, 1)[None]
        change = wanted - interpolate(fine, size=wanted.shape[2:], mode="area")
        change = interpolate(change, size=size, mode="bilinear", align_corners=False)
        part += change[0].permute(1, 2, 0).numpy()


def _starts(length: int, side: int) -> list[int]:
    """The first patch of each window along an axis, evenly spaced, so that neighbouring windows overlap enough."""
    if side >= length:
        return [0]
    step = max(1, side - max(1, round(OVERLAP * side)))
    count = -(-(length - side) // step) + 1
    return [round(at) for at in np.linspace(0, length - side, count)]


def count_windows(length: int, side: int) -> int:
    """Number of windows of ``side`` patches that cover a length."""
    return len(_starts(length, side))


def _ramp(side: int, length: int) -> Float32:
    """Weights along a window, which decrease towards its ends where it overlaps other windows."""
    if side >= length:
        return np.ones(side, np.float32)
    reach = max(1, round(OVERLAP * side)) + 1
    place = np.arange(1, side + 1)
    return np.minimum(1, np.minimum(place, place[::-1]) / reach).astype(np.float32)


def _chunks(places: list[tuple[int, int]], count: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(0, len(places), count):
        yield places[start : start + count]
