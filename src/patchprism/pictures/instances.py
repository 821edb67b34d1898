"""Objects of one photo: connected parts of its foreground; touching objects are separated by normalised cuts.

After MaskCut (Wang et al., "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", 2023) and Shi
and Malik, "Normalized Cuts and Image Segmentation" (2000). Tokens of two dogs are alike, so cosines alone would
separate heads from legs rather than one dog from the other. The affinity of two patches is therefore their cosine times
a Gaussian of their distance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchprism.pictures.upsample import upsampled_strips
from patchprism.prism.foreground import unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens

# A part is split if its normalised cut is at most MAX_CUT and each side has at least MIN_SHARE of its patches and at
# least MIN_PATCHES. Chosen by eye on photos of single animals and of groups; docs/masks.md has the results.
MAX_CUT = 0.1
MIN_SHARE = 0.15
MIN_PATCHES = 16
# Standard deviation of the Gaussian, as a share of the square root of the part's number of patches.
REACH = 0.15
# Parts with more patches are not split, because the eigenvectors would take seconds.
MAX_PATCHES = 2048


def label_objects(foreground: NDArray[np.bool_], tokens: Tokens) -> NDArray[np.int64]:
    """Number the objects of a photo, the largest first.

    Parameters
    ----------
    foreground : ndarray, shape (h, w), bool
    tokens : ndarray, shape (h, w, D)

    Returns
    -------
    ndarray, shape (h, w), int64
        0 is background. Patches that share a side belong to the same object unless it was split.
    """
    from scipy.ndimage import label

    labels, count = label(foreground)
    units = unit(tokens)
    parts: list[NDArray[np.bool_]] = []
    waiting = [labels == number for number in range(1, count + 1)]
    while waiting:
        part = waiting.pop()
        sides = split_part(part, units)
        (waiting if sides else parts).extend(sides or [part])
    parts.sort(key=lambda part: (-int(part.sum()), int(part.argmax())))
    found = np.zeros(foreground.shape, np.int64)
    for number, part in enumerate(parts, 1):
        found[part] = number
    return found


def enlarge_labels(
    labels: NDArray[np.int64], mask: NDArray[np.bool_], crop: tuple[float, float, float, float]
) -> NDArray[np.int64]:
    """Objects at the photo's resolution: each pixel of the mask gets the object of the nearest labelled patch.

    Parameters
    ----------
    labels : ndarray, shape (h, w), int64
        The result of :func:`label_objects`.
    mask : ndarray, shape (H, W), bool
    crop : tuple of float
        Left, top, right and bottom of the area that the patches cover, in the photo's pixels.
    """
    from scipy.ndimage import distance_transform_edt

    nearest = distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    filled = labels[tuple(nearest)]
    # Upsampling converts to float32, which is exact for integers this small.
    found = np.zeros(mask.shape, np.int64)
    for rows, columns, strip in upsampled_strips(
        filled[..., np.newaxis], crop=crop, size=mask.shape, method="nearest"
    ):
        found[rows, columns] = strip[..., 0]
    found[~mask] = 0
    return found


def split_part(part: NDArray[np.bool_], units: NDArray[np.float32]) -> list[NDArray[np.bool_]]:
    """The two sides of the best normalised cut of a part; an empty list if the part is one object.

    Parameters
    ----------
    part : ndarray, shape (h, w), bool
    units : ndarray, shape (h, w, D)
        Tokens of unit length.
    """
    from scipy.ndimage import label

    count = int(part.sum())
    if not 2 * MIN_PATCHES <= count <= MAX_PATCHES:
        return []
    order, cuts = normalised_cuts(units[part], np.argwhere(part))
    least = max(MIN_PATCHES, int(np.ceil(MIN_SHARE * count)))
    place = least + int(np.argmin(cuts[least - 1 : count - least]))
    if cuts[place - 1] > MAX_CUT:
        return []
    first = np.zeros(count, np.bool_)
    first[order[:place]] = True
    side = np.zeros_like(part)
    side[part] = first
    sides = []
    for mask in (side, part & ~side):
        pieces, n_pieces = label(mask)
        sizes = np.bincount(pieces.ravel(), minlength=n_pieces + 1)[1:]
        if sizes.max() < 0.9 * mask.sum():
            return []  # an object is in one piece
        sides.append(pieces == sizes.argmax() + 1)
    # Small pieces that one side leaves behind go to the nearer side.
    rest = part & ~sides[0] & ~sides[1]
    if rest.any():
        from scipy.ndimage import distance_transform_edt

        near = distance_transform_edt(~sides[0]) <= distance_transform_edt(~sides[1])
        sides = [sides[0] | (rest & near), sides[1] | (rest & ~near)]
    return sides


def normalised_cuts(
    units: NDArray[np.float32], places: NDArray[np.int64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Order of patches along the second smallest eigenvector of the normalised Laplacian, and the cut after each.

    Parameters
    ----------
    units : ndarray, shape (n, D)
        Tokens of unit length.
    places : ndarray, shape (n, 2)
        Rows and columns of the patches.

    Returns
    -------
    order : ndarray, shape (n,), int
    cuts : ndarray, shape (n,), float64
        ``cuts[i]`` is the normalised cut, from 0 to 2, between the first ``i + 1`` patches and the others.
    """
    from scipy.linalg import eigh

    affinity = np.clip(units @ units.T, 0, 1).astype(np.float64)
    squares = sum(np.subtract.outer(along, along) ** 2 for along in places.T.astype(np.float64))
    affinity *= np.exp(-squares / (2 * max(1.0, REACH**2 * len(places))))
    volume = affinity.sum(axis=1)
    root = np.sqrt(volume)
    _, vectors = eigh(
        affinity / root[:, None] / root[None], subset_by_index=[len(places) - 2, len(places) - 2]
    )
    order = np.argsort(vectors[:, 0] / root, kind="stable")
    sorted_affinity = affinity[np.ix_(order, order)]
    within = 2 * np.cumsum(np.tril(sorted_affinity, -1).sum(axis=1)) + np.cumsum(np.diag(sorted_affinity))
    inside = np.cumsum(volume[order])
    cut, outside = inside - within, inside[-1] - inside
    with np.errstate(divide="ignore", invalid="ignore"):
        cuts = cut / inside + cut / outside
    return order, np.nan_to_num(cuts, nan=2.0, posinf=2.0)
