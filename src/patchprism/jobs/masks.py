"""Masks of a job's photos: what workers draw of each, and what is written of all together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.pictures.masks import coco_object, full_mask, write_coco, write_mask
from patchprism.pictures.picture import without_photo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.features.patch_features import Tokens
    from patchprism.features.store.reader import PhotoRow
    from patchprism.pictures.picture import PictureOptions
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
        """The foreground at the photo's resolution, (H, W) bool; ``photo`` is None where it is not needed or gone."""
        method = self.options.upsample
        if photo is None:
            method, _ = without_photo(method, "black")
        threshold = self.prism.shown_threshold
        return full_mask(part, threshold, crop=row.crop, size=row.size, method=method, photo=photo)

    def draw(
        self, row: PhotoRow, tokens: Tokens, part: PhotoColors, photo: NDArray[np.uint8] | None
    ) -> tuple[Callable[[Path], None], dict[str, Any]]:
        """What writes the photo's PNG, and what the job's files say of it, as JSON values."""
        mask = self.mask(row, part, photo)
        height, width = row.size
        entry: dict[str, Any] = {"file_name": row.name, "width": width, "height": height, "objects": []}
        if "coco" in self.options.masks and mask.any():
            entry["objects"] = [coco_object(mask, self._strength(part, part.foreground))]
        return partial(write_mask, mask), entry

    def _strength(self, part: PhotoColors, patches: NDArray[np.bool_]) -> float:
        """Mean score of patches, counted towards the foreground."""
        mean = float(part.score[patches].mean()) if patches.any() else 0.0
        return 1.0 - mean if self.prism.shown_side == "below" else mean


def mask_files(
    options: PictureOptions, shards: Callable[[], Iterable[Mapping[str, Any]]]
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """The files of all photos' masks by name, and what writes each.

    Parameters
    ----------
    options : PictureOptions
    shards : callable
        Gives what was drawn of each shard; called several times.
    """

    def photos() -> Iterator[Mapping[str, Any]]:
        for drawn in shards():
            yield from drawn["masks"]

    for name in options.mask_files():
        yield name, partial(write_coco, photos=photos)
