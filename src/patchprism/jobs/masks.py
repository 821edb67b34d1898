"""Masks of a job's photos: what workers draw for each photo, and the files for all photos together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.pictures.instances import enlarge_labels, label_objects
from patchprism.pictures.masks import (
    COLUMNS,
    box_of,
    coco_object,
    full_mask,
    write_classes,
    write_coco,
    write_mask,
    write_table,
)
from patchprism.pictures.options import COCO_FILE
from patchprism.pictures.picture import without_photo
from patchprism.pictures.upsample import upsampled_strips
from patchprism.support.arrays import to_uint8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.pictures.options import PictureOptions
    from patchprism.prism.colors import PhotoColors
    from patchprism.prism.estimator import Prism


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Draws the masks of photos, one at a time.

    Attributes
    ----------
    prism : Prism
    options : PictureOptions
    """

    prism: Prism
    options: PictureOptions

    def mask(self, row: PhotoRow, part: PhotoColors, photo: NDArray[np.uint8] | None) -> NDArray[np.bool_]:
        """The foreground at the photo's resolution, (H, W) bool; ``photo`` is None if it is not needed or is gone."""
        method = self._method(photo)
        threshold = self.prism.shown_threshold
        return full_mask(part, threshold, crop=row.crop, size=row.size, method=method, photo=photo)

    def score(self, row: PhotoRow, part: PhotoColors, photo: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """The score at the photo's resolution, (H, W) uint8, high in the foreground; 0 outside the crop."""
        method = self._method(photo)
        score = 1 - part.score if self.prism.shown_side == "below" else part.score
        found = np.zeros(row.size, np.uint8)
        for rows, columns, strip in upsampled_strips(
            score[..., np.newaxis], crop=row.crop, size=row.size, method=method, photo=photo
        ):
            found[rows, columns] = to_uint8(strip[..., 0])
        return found

    def _method(self, photo: NDArray[np.uint8] | None) -> str:
        method = self.options.mask_upsample
        return method if photo is not None else without_photo(method, "black")[0]

    def draw(
        self, row: PhotoRow, tokens: Tokens, part: PhotoColors, photo: NDArray[np.uint8] | None
    ) -> tuple[Callable[[Path], None], dict[str, Any]]:
        """The function that writes the photo's PNG, and its entry for the files of the job, as JSON values."""
        mask = self.mask(row, part, photo)
        height, width = row.size
        entry: dict[str, Any] = {"file_name": row.name, "width": width, "height": height, "objects": []}
        classes = self._classes(tokens, part)
        pixels = None if classes is None else enlarge_labels(classes, mask, row.crop)
        if self.options.instances:
            labels = label_objects(part.foreground, tokens)
            found = enlarge_labels(labels, mask, row.crop)
            numbers = range(1, int(labels.max()) + 1)
            objects = [(found == number, labels == number) for number in numbers]
        elif classes is not None and pixels is not None:
            numbers = range(1, int(classes.max()) + 1)
            objects = [(pixels == number, classes == number) for number in numbers]
        else:
            objects = [(mask, part.foreground)]
        objects = [each for each in objects if each[0].any()]  # a small object may cover no pixel
        entry["objects"] = [self._object(part, classes, *each) for each in objects]
        return partial(write_mask, mask) if pixels is None else partial(write_classes, pixels), entry

    def _classes(self, tokens: Tokens, part: PhotoColors) -> NDArray[np.int64] | None:
        """The class of each foreground patch, (h, w), and 0 elsewhere; None if there is only one class of objects."""
        head = self.prism.head_
        if head is None or len(head.classes_) < 3 or self.prism.shown_side != "above":
            return None
        return np.where(part.foreground, head.decisions_of(tokens)[..., 1:].argmax(axis=-1) + 1, 0)

    def _object(
        self,
        part: PhotoColors,
        classes: NDArray[np.int64] | None,
        mask: NDArray[np.bool_],
        patches: NDArray[np.bool_],
    ) -> dict[str, Any]:
        score = self._strength(part, patches)
        # An object with several classes gets the class of most of its patches.
        category = 1 if classes is None or not patches.any() else int(np.bincount(classes[patches]).argmax())
        found = coco_object(mask, score, category or 1) if "coco" in self.options.masks else {}
        if self.options.instances:
            color = to_uint8(part.rgb[patches].mean(axis=0))
            found["row"] = [
                *box_of(mask),
                int(mask.sum()),
                int(patches.sum()),
                *color.tolist(),
                round(score, 4),
            ]
        return found

    def _strength(self, part: PhotoColors, patches: NDArray[np.bool_]) -> float:
        """Mean score of patches, high in the foreground."""
        mean = float(part.score[patches].mean()) if patches.any() else 0.0
        return 1.0 - mean if self.prism.shown_side == "below" else mean


def mask_files(
    options: PictureOptions, prism: Prism, shards: Callable[[], Iterable[Mapping[str, Any]]]
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The files for the masks of all photos: the name of each, and the function that writes it.

    Parameters
    ----------
    options : PictureOptions
    prism : Prism
    shards : callable
        Returns what was drawn for each shard; called several times.
    """

    def photos() -> Iterator[Mapping[str, Any]]:
        for drawn in shards():
            yield from drawn["masks"]

    def rows() -> Iterator[dict[str, Any]]:
        for photo in photos():
            for number, found in enumerate(photo["objects"], 1):
                yield dict(zip(COLUMNS, (photo["file_name"], number, *found["row"]), strict=True))

    categories = ("object",) if prism.head_ is None else prism.head_.classes_[1:]
    for name in options.mask_files():
        if name == COCO_FILE:
            yield name, partial(write_coco, photos=photos, categories=categories)
        else:
            yield name, lambda path: write_table(path, rows())
