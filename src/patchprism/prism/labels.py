"""Masks at a photo's resolution -> labels of its patches."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, PhotoError
from patchprism.photos.framing import Framing
from patchprism.prism.head_file import MAX_CLASSES
from patchprism.support import checks
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from patchprism.features.patch_features import PatchFeatures

    Shares = NDArray[np.float64]

UNLABELLED = -1
# The value for unlabelled pixels in masks of 8 bits, as in Pascal VOC.
VOID = 255
# A patch gets a label if at least this share of its labelled area has it. Other patches are mixed.
PURE = 0.75


def class_shares(
    mask: NDArray[np.integer], grid: tuple[int, int], crop: tuple[float, float, float, float], n_classes: int
) -> Shares:
    """The share of each patch that each class covers.

    Parameters
    ----------
    mask : ndarray, shape (H, W), int
        Classes from 0; negative values are unlabelled.
    grid : tuple of int
        Rows and columns of patches (h, w).
    crop : tuple of float
        Left, top, right and bottom of the part that the patches cover, as shares of the mask's width and height.
    n_classes : int

    Returns
    -------
    ndarray, shape (h, w, n_classes), float64, in [0, 1]
        The exact areas, also if the edge of a patch lies within a pixel. Their sum is below 1 if pixels are
        unlabelled.

    Examples
    --------
    >>> class_shares(np.array([[0, 0, 1, 1]]), (1, 2), (0.25, 0, 1, 1), 2)[0].round(3)
    array([[0.667, 0.333],
           [0.   , 1.   ]])
    """
    left, top, right, bottom = crop
    down = _overlaps(mask.shape[0], grid[0], top, bottom)
    across = _overlaps(mask.shape[1], grid[1], left, right).T
    shares = [down @ ((mask == number).astype(np.float64) @ across) for number in range(n_classes)]
    found: Shares = np.clip(np.stack(shares, axis=-1), 0.0, 1.0)
    return found


def _overlaps(n_pixels: int, n_patches: int, start: float, stop: float) -> Shares:
    """The share of each patch that each pixel covers along one axis, (n_patches, n_pixels); rows add up to 1."""
    edges = np.linspace(start * n_pixels, stop * n_pixels, n_patches + 1)
    pixels = np.arange(n_pixels)
    ends = np.minimum(edges[1:, np.newaxis], pixels + 1)
    overlap = np.maximum(ends - np.maximum(edges[:-1, np.newaxis], pixels), 0.0)
    shares: Shares = overlap / (edges[1:] - edges[:-1])[:, np.newaxis]
    return shares


def patch_labels(shares: Shares) -> NDArray[np.int16]:
    """Labels of patches from the shares of their area, (h, w, K) -> (h, w); ``UNLABELLED`` for mixed patches.

    A patch gets the class that covers at least three quarters of its labelled area. One labelled pixel is enough, so
    that clicks and scribbles count.
    """
    labelled = shares.sum(axis=-1)
    # Areas are sums of floats. The tolerance ensures that exactly three quarters count in spite of rounding.
    pure = shares.max(axis=-1) >= (PURE - 1e-9) * labelled
    labels = np.where(pure & (labelled > 1e-9), shares.argmax(axis=-1), UNLABELLED)
    return labels.astype(np.int16)


def packed_shares(shares: Shares) -> bytes:
    """The share of each patch that is object, one byte per patch, from the shares of classes (h, w, K).

    0 to 254 stand for the share of the labelled area that is not background, and 255 for a patch without labels.
    """
    labelled = shares.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        objects = shares[..., 1:].sum(axis=-1) / labelled
    return np.where(labelled > 1e-9, np.rint(254 * objects), 255).astype(np.uint8).tobytes()


def with_shares(score: NDArray[np.float32], packed: bytes) -> NDArray[np.float32]:
    """Scores (h, w), in which labelled patches have the share of a mask (:func:`packed_shares`) instead."""
    codes = np.frombuffer(packed, np.uint8).reshape(score.shape)
    return np.where(codes == 255, score, codes.astype(np.float32) / np.float32(254))


def shares_of_masks(photos: PatchFeatures, masks: Any, *, n_classes: int | None = None) -> dict[int, Shares]:
    """The share of each patch that each class covers, (h, w, K), by the index of the photo, for photos with a mask.

    Parameters are those of :meth:`Head.fit <patchprism.Head.fit>`.

    Raises
    ------
    OptionError
        If the masks are neither a sequence nor a mapping, or if they name an unknown photo.
    PhotoError
        If a mask does not fit its photo.
    """
    names, grids = photos.names, photos.grids
    given = {index: as_mask(names[index], each) for index, each in _by_index(names, masks).items()}
    values = {index: _values(each) for index, each in given.items()}
    if all(
        each <= {0, VOID} for each in values.values()
    ):  # black and white masks, in which 255 is the object
        given = {index: (each == VOID).astype(np.int16) for index, each in given.items()}
        values = {index: _values(each) for index, each in given.items()}
    most = MAX_CLASSES if n_classes is None else n_classes
    for index, found in values.items():
        wrong = sorted(value for value in found - {UNLABELLED, VOID} if not 0 <= value < most)
        if wrong:
            raise PhotoError(
                names[index],
                f"its mask has the value {wrong[0]}: classes are 0 to {most - 1}, and -1 and 255 are unlabelled",
            )
    count = max([2, n_classes or 2, *(max(found - {VOID}, default=0) + 1 for found in values.values())])
    return {
        index: class_shares(mask, grids[index], crop, count)
        for index, mask, crop in _with_crops(photos, names, grids, given)
    }


def _by_index(names: Sequence[str], masks: Any) -> dict[int, Any]:
    """Masks by the index of the photo, from a mapping by name or a sequence."""
    if isinstance(masks, Mapping):
        indices = {name: index for index, name in enumerate(names)}
        for name in masks:
            if name not in indices:
                raise OptionError(f"masks: there is no photo {checks.short_repr(name)}", option="masks")
        return {indices[name]: each for name, each in masks.items() if each is not None}
    try:
        given = one_per_photo(masks)
    except TypeError:
        checks.refuse("masks", "a sequence with a mask or None per photo, or masks by photo", masks)
    if len(given) != len(names):
        raise OptionError(
            f"masks must be one per photo (None for a photo without): got {len(given)} for "
            f"{counted(len(names), 'photo')}",
            option="masks",
        )
    return {index: each for index, each in enumerate(given) if each is not None}


def one_per_photo(masks: Any) -> list[Any]:
    """The masks in a sequence; a single array (H, W) is the mask of one photo.

    Raises
    ------
    TypeError
        If ``masks`` is not a sequence.
    """
    return [masks] if isinstance(masks, np.ndarray) and masks.ndim == 2 else list(masks)


def as_mask(name: str, mask: Any) -> NDArray[np.int16]:
    """A mask as an array (H, W) of int16.

    Raises
    ------
    PhotoError
        If it is not an array (H, W) of bool or integers from -1 to 255.
    """
    try:
        array = np.asarray(mask)
    except (TypeError, ValueError):
        array = np.empty(0, object)
    if array.dtype.kind not in "biu" or array.ndim != 2 or 0 in array.shape:
        raise PhotoError(
            name,
            f"its mask must be an array (H, W) of bool or whole numbers, got {array.shape} of {array.dtype}",
        )
    least, most = int(array.min()), int(array.max())
    if least < UNLABELLED or most > VOID:
        wrong = most if most > VOID else least
        raise PhotoError(
            name,
            f"its mask has the value {wrong}: classes are 0 to {MAX_CLASSES - 1}, and -1 and 255 are unlabelled",
        )
    labels: NDArray[np.int16] = array.astype(np.int16)
    return labels


def _values(mask: NDArray[np.int16]) -> set[int]:
    counts = np.bincount(mask.ravel() + 2)
    return {int(value) - 2 for value in np.flatnonzero(counts)}


def _with_crops(
    photos: PatchFeatures,
    names: Sequence[str],
    grids: Sequence[tuple[int, int]],
    masks: dict[int, NDArray[np.int16]],
) -> Iterator[tuple[int, NDArray[np.int16], tuple[float, float, float, float]]]:
    """The index, the mask and the crop of each photo with a mask.

    The crop is the part that the patches cover, as shares of width and height.
    """
    framing = None
    with suppress(OptionError):  # the user's own features may have only some of the keys
        framing = Framing.from_dict(photos.origin.get("framing", {}))
    refine = int(photos.origin.get("refine", 1))
    rows = getattr(photos, "rows", None)
    for index, mask in masks.items():
        name, grid = names[index], grids[index]
        if mask.shape == grid:
            yield index, mask, (0.0, 0.0, 1.0, 1.0)
        elif rows is not None:  # a feature store contains the sizes of the photos
            row = rows(index, index + 1)[0]
            check_shape(name, mask.shape, row.size)
            yield index, mask, relative_crop(row.crop, row.size)
        elif framing is not None:
            rows_here, columns_here = framing.grid(*mask.shape)
            expected = rows_here * refine, columns_here * refine
            # Because sizes are rounded, a smaller mask of the same shape may have one more row or column of patches.
            most = refine * framing.enlargement
            if max(abs(expected[0] - grid[0]), abs(expected[1] - grid[1])) > most:
                height, width = mask.shape
                raise PhotoError(
                    name,
                    f"its mask of {width} x {height} has another shape than the photo: its patches are "
                    f"{grid[1]} x {grid[0]}, and the mask's would be {expected[1]} x {expected[0]}",
                )
            yield index, mask, framing.covered(*mask.shape)
        else:
            yield index, mask, (0.0, 0.0, 1.0, 1.0)


def relative_crop(
    crop: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A crop in pixels of a photo with the size (H, W), as shares of its width and height."""
    return crop[0] / size[1], crop[1] / size[0], crop[2] / size[1], crop[3] / size[0]


def check_shape(name: str, mask: tuple[int, ...], size: tuple[int, int]) -> None:
    """Refuse a mask with another shape (aspect ratio) than its photo of the size (H, W).

    Raises
    ------
    PhotoError
        If the shapes differ.
    """
    height, width = mask
    # Because sizes are rounded after scaling, they may differ by up to a pixel of the smaller one.
    if abs(height * size[1] - width * size[0]) > max(*size, height, width):
        raise PhotoError(
            name, f"a mask of {width} x {height} has another shape than its photo of {size[1]} x {size[0]}"
        )
