"""Masks: the foreground of a photo at the photo's resolution, and the files that contain masks."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.options import coco_tools
from patchprism.pictures.upsample import upsampled_strips
from patchprism.support.json_values import to_json
from patchprism.support.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.pictures.render import Crop
    from patchprism.prism.colors import PhotoColors

COLUMNS = (
    "photo",
    "object",
    "left",
    "top",
    "width",
    "height",
    "area",
    "patches",
    "red",
    "green",
    "blue",
    "score",
)

# Smallest distance from the threshold, so that patches at the threshold stay on the side that the prism chose.
_LEAST = np.float32(1e-6)


def full_mask(
    part: PhotoColors,
    threshold: float,
    *,
    crop: Crop,
    size: tuple[int, int],
    method: str = "nearest",
    photo: NDArray[np.uint8] | None = None,
) -> NDArray[np.bool_]:
    """The foreground of a photo at its own resolution: the score, upsampled and compared with the threshold.

    Patches that cleaning moved to the other side of the threshold are moved there before upsampling, so that masks
    of every method show the same foreground as the pictures.

    Parameters
    ----------
    threshold : float
        Threshold of the score; NaN if all patches are kept.
    crop : tuple of float
        Left, top, right and bottom of the area that the network saw, in the photo's pixels.
    size : tuple of int
        The photo's (H, W).
    method : {"nearest", "bilinear", "guided"}
    photo : ndarray, shape (H, W, 3), uint8, optional
        The guide; only ``"guided"`` needs it.

    Returns
    -------
    ndarray, shape (H, W), bool
        False outside the crop.
    """
    distance = np.ones_like(part.score) if np.isnan(threshold) else np.abs(part.score - np.float32(threshold))
    distance = np.maximum(distance, _LEAST)
    signed = np.where(part.foreground, distance, -distance)[..., np.newaxis]
    mask = np.zeros(size, np.bool_)
    for rows, columns, strip in upsampled_strips(signed, crop=crop, size=size, method=method, photo=photo):
        mask[rows, columns] = strip[..., 0] > 0
    return mask


def write_mask(mask: NDArray[np.bool_], path: Path) -> None:
    """Write a mask as an 8-bit PNG: 255 is foreground, 0 is background."""
    from PIL import Image

    encoded = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(encoded, "PNG")
    path.write_bytes(encoded.getbuffer())


def write_classes(classes: NDArray[np.int64], path: Path) -> None:
    """Write the classes of pixels, below 256, as a PNG with a palette; its indices are the classes, 0 is background."""
    from PIL import Image

    encoded = io.BytesIO()
    image = Image.frombytes("P", classes.shape[::-1], classes.astype(np.uint8).tobytes())
    image.putpalette(voc_colors().tobytes())
    image.save(encoded, "PNG")
    path.write_bytes(encoded.getbuffer())


def voc_colors() -> NDArray[np.uint8]:
    """The palette of Pascal VOC's masks, (256, 3) uint8."""
    numbers = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> (3 * bit + channel)) & 1).astype(np.uint8) << (7 - bit)
    return colors


def box_of(mask: NDArray[np.bool_]) -> list[int]:
    """Left, top, width and height of the True part of a mask, which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [int(each) for each in (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)]


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the objects of all photos as CSV, one row per object."""
    with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def coco_object(mask: NDArray[np.bool_], score: float, category: int = 1) -> dict[str, Any]:
    """An object's annotation, without its ids: compressed RLE, area, box (left, top, width, height) and score."""
    tools = coco_tools()
    encoded = tools.encode(np.asfortranarray(mask, np.uint8))
    return {
        "category_id": category,
        "segmentation": {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")},
        "area": int(tools.area(encoded)),
        "bbox": [float(edge) for edge in tools.toBbox(encoded)],
        "iscrowd": 0,
        "score": round(score, 4),
    }


def write_coco(
    path: Path, photos: Callable[[], Iterable[Mapping[str, Any]]], categories: Sequence[str] = ("object",)
) -> None:
    """Write the masks of a job in COCO's instance format, photo by photo, so that memory does not grow with the job.

    Parameters
    ----------
    photos : callable
        Returns the photos with ``file_name``, ``width``, ``height`` and ``objects``; called twice.
    categories : sequence of str
        Names of the categories, whose ids start at 1.
    """
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(
            '{"info": ' + to_json({"description": "Foreground masks", "version": f"PatchPrism {__version__}"})
        )
        listed = [
            {"id": number, "name": name, "supercategory": "object"}
            for number, name in enumerate(categories, 1)
        ]
        file.write(f',\n"licenses": [],\n"categories": {to_json(listed)},\n"images": [')
        comma = "\n"
        for number, photo in enumerate(photos(), 1):
            entry = {"id": number} | {name: photo[name] for name in ("file_name", "width", "height")}
            file.write(comma + to_json(entry))
            comma = ",\n"
        file.write('\n],\n"annotations": [')
        comma, count = "\n", 0
        for number, photo in enumerate(photos(), 1):
            for each in photo["objects"]:
                count += 1
                file.write(comma + to_json({"id": count, "image_id": number} | _without_row(each)))
                comma = ",\n"
        file.write("\n]}\n")


def _without_row(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "row"}
