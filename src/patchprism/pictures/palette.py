"""Colours for classes that people with and without red-green blindness can distinguish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.prism.oklab import oklab_from_srgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Okabe and Ito, "Color Universal Design" (2008), without black, which is the background of pictures. The quiet colours
# come first, because the first classes are the largest.
_OKABE_ITO = ("56b4e9", "e69f00", "009e73", "f0e442", "cc79a7", "0072b2", "d55e00")
# Matrices that map linear RGB to what people without red or green cones see: Machado, Oliveira and Fernandes, "A
# Physiologically-based Model for Simulation of Color Vision Deficiency" (2009), severity 1.
_SEEN_AS = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)


def seen(colors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Colours in OKLab for normal vision, and for vision without red and without green cones.

    Parameters
    ----------
    colors : ndarray, shape (n, 3), in [0, 1]
        Gamma-coded sRGB.

    Returns
    -------
    ndarray, shape (3, n, 3), float64
    """
    colors = np.asarray(colors, np.float64)
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    changed = np.clip(np.einsum("vij,nj->vni", _SEEN_AS, linear), 0, 1)
    coded = np.where(changed <= 0.0031308, changed * 12.92, 1.055 * changed ** (1 / 2.4) - 0.055)
    return np.stack([oklab_from_srgb(each) for each in (colors, *coded)])


def class_colors(count: int) -> NDArray[np.float32]:
    """Colours for classes: those of Okabe and Ito, then always the colour farthest from the previous ones.

    Distances are the smallest over normal vision and the two colour deficiencies. A longer palette starts with the
    shorter one. Nobody can distinguish all colours of a palette with more than about a dozen.

    Parameters
    ----------
    count : int
        At least 1.

    Returns
    -------
    ndarray, shape (count, 3), float32, in [0, 1]
        Gamma-coded sRGB.
    """
    chosen = [np.array(list(bytes.fromhex(each))) / 255 for each in _OKABE_ITO[:count]]
    if count > len(chosen):
        steps = np.linspace(0.0, 1.0, 13)
        candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)
        places = seen(candidates)
        # Exclude colours near black or white.
        usable = (places[0, :, 0] > 0.3) & (places[0, :, 0] < 0.96)
        candidates, places = candidates[usable], places[:, usable]
        nearest = np.full(len(candidates), np.inf)
        for place in np.moveaxis(seen(np.array(chosen)), 1, 0):
            nearest = np.minimum(nearest, _distance(places, place))
        while len(chosen) < count:
            best = int(nearest.argmax())
            chosen.append(candidates[best])
            nearest = np.minimum(nearest, _distance(places, places[:, best]))
    return np.array(chosen, np.float32)


def _distance(places: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance to one colour: the smallest over the three kinds of vision."""
    distance: NDArray[np.float64] = np.linalg.norm(places - place[:, None], axis=2).min(axis=0)
    return distance
