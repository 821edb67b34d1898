"""Coordinates of patches as the spectra of small pictures, one of each photo and each dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Spatial frequencies, in cycles per two patches, that share statistics: the edges between the bands.
BANDS = (
    1e-6,
    0.03,
    0.05,
    0.07,
    0.09,
    0.11,
    0.135,
    0.16,
    0.19,
    0.22,
    0.26,
    0.3,
    0.35,
    0.4,
    0.47,
    0.55,
    0.65,
    0.8,
    1.0,
)
MAX_CLASSES = 48


def bands_of(h: int, w: int) -> NDArray[np.intp]:
    """The band of frequencies of every coefficient of a photo's transform, (h, w)."""
    y, x = np.arange(h)[:, np.newaxis] / h, np.arange(w) / w
    # Squares are compared: sums and products of float64 are the same in the page.
    bands: NDArray[np.intp] = np.digitize(y * y + x * x, np.square(BANDS))
    return bands


def classes_of(classes: NDArray[np.uint8], grids: Sequence[tuple[int, int]]) -> NDArray[np.uint8]:
    """The class of every code, (dims * N,), photo by photo."""
    parts = [classes[:, bands_of(h, w)].ravel() for h, w in grids]
    return np.concatenate([*parts, np.zeros(0, np.uint8)])


def restore(
    codes: NDArray[np.int32],
    classes: NDArray[np.uint8],
    steps: NDArray[np.float32],
    shrink: NDArray[np.float64],
    grids: Sequence[tuple[int, int]],
) -> NDArray[np.float32]:
    """Coordinates (dims, N) from codes."""
    # A table by class and magnitude instead of arithmetic: nine million numbers pass here.
    table = np.zeros((MAX_CLASSES, 4), np.float32)
    table[: len(shrink), 1:] = shrink
    parts = []
    at = 0
    for h, w in grids:
        part = codes[at : at + len(steps) * h * w].reshape(len(steps), h, w)
        at += part.size
        size = np.abs(part)
        less = table[classes[:, bands_of(h, w)], np.where(size > 3, 0, size)]
        waves = (part - np.sign(part) * less) * steps[:, np.newaxis, np.newaxis]
        parts.append((cosines(h).T @ waves @ cosines(w)).reshape(len(steps), -1))
    return np.concatenate(parts, axis=1)


def cosines(n: int) -> NDArray[np.float32]:
    """The orthonormal discrete cosine transform (type 2) of n numbers, (n, n): a row a frequency."""
    k, x = np.arange(n)[:, np.newaxis], np.arange(n)
    matrix = np.cos(np.pi * (2 * x + 1) * k / (2 * n)) * np.sqrt(2 / n)
    matrix[0] /= np.sqrt(2)
    result: NDArray[np.float32] = matrix.astype(np.float32)
    return result


def transform(coordinates: NDArray[np.float32], grids: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """Coordinates (D, N) -> (D, N) coefficients, photo by photo."""
    waves = np.empty_like(coordinates)
    start = 0
    for h, w in grids:
        part = coordinates[:, start : start + h * w].reshape(-1, h, w)
        waves[:, start : start + h * w] = (cosines(h) @ part @ cosines(w).T).reshape(len(coordinates), -1)
        start += h * w
    return waves
