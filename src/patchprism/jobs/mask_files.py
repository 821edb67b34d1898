"""Masks of photos, read from files: PNG, a photo's own alpha channel, COCO's JSON."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import MaskError
from patchprism.photos.images import alpha_of
from patchprism.photos.plans import MAX_PIXELS
from patchprism.photos.sources import fetch_source
from patchprism.pictures.options import coco_tools
from patchprism.support.folders import local_path, system_reason
from patchprism.support.json_values import from_json, is_text, is_whole
from patchprism.support.reading import reading

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image

    Mask = NDArray[np.int16]

# The unlabelled value in masks of 8 bits, as in the masks of Pascal VOC.
VOID = 255
MAX_JSON = 1 << 30


def read_mask(path: Path, *, indexed: bool = False) -> Mask:
    """Read a mask from a PNG file.

    Parameters
    ----------
    path : Path
    indexed : bool
        Whether its values are classes. Otherwise the mask is 0 and 1: pixels of at least half the file's largest
        value are 1, so that soft edges are cut in the middle. If some pixels are transparent, those that are at least
        half opaque are 1 instead. In a PNG with a palette, values are numbers of colours, and all but the first are
        1; but a palette of greys is read as the image looks.

    Returns
    -------
    ndarray, shape (H, W), int16
        -1 where the number of a class or of a palette's colour is 255.

    Raises
    ------
    MaskError
        If it cannot be read, or a class is above 255.
    """
    from PIL import Image

    try:
        with reading(), Image.open(path, formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise MaskError(f"{path}: this mask has more than {MAX_PIXELS:,} pixels")
            values: NDArray[Any] = np.asarray(image)
            palette = image.mode == "P"
            if palette and not indexed and (greys := _greys(image, values)) is not None:
                values, palette = greys, False
    except MaskError:
        raise
    except Exception as error:  # Pillow raises many kinds of errors for bad files
        raise MaskError(f"{path}: this mask cannot be read as a PNG image") from error
    if values.ndim == 3:  # the last of two or four channels is alpha
        alpha = values[..., -1] if values.shape[2] in (2, 4) and not indexed else None
        if alpha is not None and alpha.min() < 128 <= alpha.max():
            return (alpha >= 128).astype(np.int16)
        values = values[..., : 3 if values.shape[2] > 2 else 1].max(axis=2)
    if indexed or palette:
        if values.max() > VOID:
            raise MaskError(f"{path}: this mask has the value {values.max()}; classes are 0 to 254")
        classes = values.astype(np.int16)
        classes[values == VOID] = -1
        return classes if indexed else np.minimum(classes, 1).astype(np.int16)
    largest = values.max()
    mask: Mask = ((values >= largest / 2) & (values > 0)).astype(np.int16)
    return mask


def _greys(image: Image.Image, values: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """An image with a palette as it looks, (H, W); None unless its pixels have several greys and no other colour.

    Programs that make files smaller may write black and white as a palette, in any order.
    """
    table = np.zeros((256, 3), np.uint8)
    colors = np.asarray(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    table[: len(colors)] = colors
    used = table[np.unique(values)]
    if (used != used[:, :1]).any() or len(np.unique(used[:, 0])) < 2:
        return None
    found: NDArray[np.uint8] = table[values, 0]
    return found


def read_alpha(name: str) -> Mask | None:
    """The mask of a photo's alpha channel, (H, W): 1 where it is at least half opaque, else 0; None if it has none.

    Raises
    ------
    PhotoError
        If the file cannot be read.
    """
    name, content = fetch_source(name)
    with reading():
        alpha = alpha_of(local_path(name) if content is None else io.BytesIO(content), name)
    return None if alpha is None else (alpha >= 128).astype(np.int16)


class CocoFile:
    """The masks of a COCO JSON file: polygons and RLE, compressed or not.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    names : dict
        Index in ``images`` of each image with annotations, by ``file_name``. Images without annotations have no mask,
        because they may not have been annotated yet.

    Raises
    ------
    MaskError
        If it is not such a file, or has no annotations.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > MAX_JSON:
                raise MaskError(f"{path}: a COCO file of more than {MAX_JSON >> 20} MB is not read")
            content = from_json(path.read_bytes())
            images, annotations = content["images"], content["annotations"]
            for each in images:
                if not (
                    is_text(each["file_name"])
                    and is_whole(each["height"], 1, 1 << 20)
                    and is_whole(each["width"], 1, 1 << 20)
                    and each["height"] * each["width"] <= MAX_PIXELS
                ):
                    raise ValueError(f"an image {json.dumps(each)[:80]}")
            self.images = {each["id"]: each for each in images}
            self.parts: dict[Any, list[Any]] = {key: [] for key in self.images}
            for each in annotations:
                self.parts[each["image_id"]].append(each["segmentation"])
        except OSError as error:
            raise MaskError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MaskError(f"{path}: not a COCO file of masks ({error})") from error
        self.names = {each["file_name"]: key for key, each in self.images.items() if self.parts[key]}
        if not self.names:
            raise MaskError(f"{path}: holds no mask: none of its images has an annotation")

    def read(self, name: str) -> Mask:
        """The union of an image's objects, (H, W), 1 or 0.

        Raises
        ------
        MaskError
            If a segmentation cannot be used.
        ExtraError
            If there is a polygon, and pycocotools is not installed.
        """
        image = self.images[self.names[name]]
        height, width = image["height"], image["width"]
        mask: Mask = np.zeros((height, width), np.int16)
        for each in self.parts[image["id"]]:
            try:
                if isinstance(each, dict):
                    mask[_from_rle(each, height, width) > 0] = 1
                elif each:
                    mask[_from_polygons(each, height, width) > 0] = 1
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise MaskError(f"{self.path}: damaged segmentation of {name} ({error})") from error
        return mask


def _from_rle(given: dict[str, Any], height: int, width: int) -> Mask:
    """A mask from run lengths, column by column, background first; pycocotools' C code does not check the numbers."""
    if given["size"] != [height, width]:
        raise ValueError(f"RLE of {given['size']}, an image of {[height, width]}")
    counts = given["counts"] if isinstance(given["counts"], list) else _counts(given["counts"])
    if not all(is_whole(count) for count in counts) or sum(counts) != height * width:
        raise ValueError("run lengths that do not add up to the image")
    flat = np.repeat(np.arange(len(counts)) % 2, counts).astype(np.int16)
    return flat.reshape(width, height).T


def _counts(text: str) -> list[int]:
    """The run lengths of a compressed RLE.

    Each character has five bits of a number, the lowest first, and a sixth bit that says whether more follow. From the
    fourth number on, each is the difference to the number two places before it (cocoapi, ``rleFrString``).
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError("its run lengths are not a compressed RLE")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _from_polygons(given: list[Any], height: int, width: int) -> Mask:
    tools = coco_tools()
    polygons = [np.asarray(each, np.float64).ravel() for each in given]
    if not all(len(each) >= 6 and len(each) % 2 == 0 and np.isfinite(each).all() for each in polygons):
        raise ValueError("a polygon needs three points or more")
    limit = 2.0 * max(height, width)
    clipped = [np.clip(each, -limit, limit).tolist() for each in polygons]
    parts: NDArray[np.uint8] = np.array(tools.decode(tools.frPyObjects(clipped, height, width)))
    mask: Mask = parts.max(axis=2).astype(np.int16)
    return mask


def masks_in(folder: Path) -> dict[str, Path]:
    """The PNG files of a folder by their stems; ``dog.mask.png``, as jobs write it, also as ``dog``.

    Raises
    ------
    MaskError
        If there is none.
    """
    try:
        found = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".png"}
    except NotADirectoryError as error:
        raise MaskError(f"{folder}: not a folder; masks are PNG files in a folder") from error
    except FileNotFoundError as error:
        raise MaskError(f"{folder}: no such folder of masks") from error
    except OSError as error:
        raise MaskError(f"{folder}: cannot be read ({system_reason(error)})") from error
    if not found:
        raise MaskError(f"{folder}: holds no mask: masks are PNG files with the photos' names")
    ends = ((stem.removesuffix(".mask"), path) for stem, path in found.items() if stem.endswith(".mask"))
    return found | dict(ends)
