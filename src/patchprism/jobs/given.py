"""Masks that users give: where they come from, and which photo each belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from patchprism.errors import MaskError, OptionError
from patchprism.jobs.mask_files import CocoFile, masks_in, read_alpha, read_mask
from patchprism.prism.head_file import MAX_CLASSES
from patchprism.prism.labels import (
    UNLABELLED,
    VOID,
    as_mask,
    one_per_photo,
)
from patchprism.support import checks
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.int16]

ALPHA = "alpha"


class GivenMasks(Protocol):
    """Masks by the photos' names.

    Attributes
    ----------
    name : str
        Name of the masks in messages.
    most_classes : int
        Upper limit (exclusive) of the numbers in the masks.
    """

    @property
    def name(self) -> str: ...

    @property
    def most_classes(self) -> int: ...

    def match(self, names: Sequence[str]) -> dict[str, Callable[[], Mask | None]]:
        """For each photo that has a mask, by name, the function that reads it."""

    def unused(self, names: Sequence[str]) -> list[str]:
        """Names of masks that belong to none of the photos."""


def open_masks(given: str, *, classes: int = 0) -> GivenMasks:
    """The masks that a user names: a folder, a COCO file, or ``alpha`` for the photos' own alpha channels.

    Parameters
    ----------
    given : str
    classes : int
        Number of classes in a folder's PNG files; 0 if the files only separate an object from its background.

    Raises
    ------
    MaskError
        If there are none.
    OptionError
        If only a folder can have so many classes.
    """
    if classes > 2 and (given == ALPHA or Path(given).suffix.lower() == ".json"):
        raise OptionError(
            f"classes of more than two names need a folder of masks, got {given}", option="classes"
        )
    if given == ALPHA:
        return AlphaMasks()
    path = Path(given)
    if path.suffix.lower() == ".json":
        return CocoMasks(CocoFile(path))
    return FolderMasks(path, masks_in(path), classes=classes)


def masks_of(given: Any) -> GivenMasks | None:
    """Masks from the value of a parameter: a path, ``"alpha"``, or arrays.

    Raises
    ------
    OptionError
        If they have another type.
    MaskError
        If a path does not lead to masks.
    """
    if given is None:
        return None
    if isinstance(given, (str, os.PathLike)):
        path = checks.path("masks", given)
        try:
            return open_masks(path)
        except MaskError as error:
            error.name_option("masks", path)
            raise
    try:
        return ArrayMasks(given)
    except TypeError:
        checks.refuse("masks", "arrays, one per photo or by the photos' names, or a path", given)


@dataclass(frozen=True)
class FolderMasks:
    """PNG files in a folder, by the photos' stems."""

    folder: Path
    files: dict[str, Path]
    classes: int = 0

    @property
    def name(self) -> str:
        """The folder."""
        return str(self.folder)

    @property
    def most_classes(self) -> int:
        """See :class:`GivenMasks`."""
        return self.classes or 2

    def match(self, names: Sequence[str]) -> dict[str, Callable[[], Mask | None]]:
        """See :class:`GivenMasks`.

        Raises
        ------
        MaskError
            If two photos have the stem of one mask.
        """
        found: dict[str, Callable[[], Mask | None]] = {}
        taken: dict[str, str] = {}
        for name in names:
            stem = Path(name).stem
            if stem not in self.files:
                continue
            if stem in taken:
                raise MaskError(
                    f"{self.files[stem]}: this mask belongs to two photos, {self._which(taken[stem], name)}"
                )
            taken[stem] = name
            found[name] = partial(read_mask, self.files[stem], indexed=self.classes > 0)
        return found

    def _which(self, *photos: str) -> str:
        path = os.path.realpath(self.files[Path(photos[0]).stem])
        if path in map(os.path.realpath, photos):
            return "and one of them is the mask itself; keep masks in a folder outside the photos' folder"
        return f"{' and '.join(photos)}; rename one of them"

    def unused(self, names: Sequence[str]) -> list[str]:
        """See :class:`GivenMasks`."""
        stems = {Path(name).stem for name in names}
        used = {self.files[stem] for stem in stems & self.files.keys()}
        return sorted({path.name for path in self.files.values() if path not in used})


@dataclass(frozen=True)
class AlphaMasks:
    """The photos' own alpha channels; opaque photos have no mask."""

    name: str = ALPHA
    most_classes: int = 2

    def match(self, names: Sequence[str]) -> dict[str, Callable[[], Mask | None]]:
        """See :class:`GivenMasks`."""
        return {name: partial(_alpha, name) for name in names}

    def unused(self, names: Sequence[str]) -> list[str]:
        """See :class:`GivenMasks`."""
        return []


def _alpha(name: str) -> Mask | None:
    mask = read_alpha(name)
    return None if mask is None or mask.all() else mask


@dataclass(frozen=True)
class CocoMasks:
    """A COCO file, by the photos' names: the same name, or else the last part of it."""

    file: CocoFile
    most_classes: int = 2

    @property
    def name(self) -> str:
        """The file."""
        return str(self.file.path)

    def match(self, names: Sequence[str]) -> dict[str, Callable[[], Mask | None]]:
        """See :class:`GivenMasks`.

        Raises
        ------
        MaskError
            If two photos match one image of the file, or two images match one photo.
        """
        return {name: partial(self.file.read, image) for name, image in self._images(names).items()}

    def unused(self, names: Sequence[str]) -> list[str]:
        """See :class:`GivenMasks`."""
        used = set(self._images(names).values())
        return [name for name in self.file.names if name not in used]

    def _images(self, names: Sequence[str]) -> dict[str, str]:
        by_end: dict[str, list[str]] = {}
        for image in self.file.names:
            by_end.setdefault(Path(image).name, []).append(image)
        found: dict[str, str] = {}
        taken: dict[str, str] = {}
        for name in names:
            images = [name] if name in self.file.names else by_end.get(Path(name).name, [])
            if len(images) > 1:
                raise MaskError(
                    f"{self.file.path}: several of its images match the photo {name}: {images[0]} and {images[1]}; "
                    "rename the images so that only one does"
                )
            if images and images[0] in taken:
                raise MaskError(
                    f"{self.file.path}: several photos match its image {images[0]}: {taken[images[0]]} and {name}; "
                    "rename the photos so that only one does"
                )
            if images:
                taken[images[0]] = name
                found[name] = images[0]
        return found


class ArrayMasks:
    """Masks that are arrays, by name, or one per photo in their order (None for a photo without).

    Parameters
    ----------
    masks : mapping or sequence
        As :meth:`Head.fit <patchprism.Head.fit>` takes them.
    """

    name = "masks"
    most_classes = MAX_CLASSES

    def __init__(self, masks: Any) -> None:
        self.masks = masks if isinstance(masks, Mapping) else one_per_photo(masks)

    def match(self, names: Sequence[str]) -> dict[str, Callable[[], Mask | None]]:
        """See :class:`GivenMasks`.

        Raises
        ------
        MaskError
            If they are not one per photo.
        """
        if not isinstance(self.masks, Mapping):
            if len(self.masks) != len(names):
                raise MaskError(
                    f"masks must be one per photo (None for a photo without): got {len(self.masks)} for "
                    f"{counted(len(names), 'photo')}"
                )
            # From now on by name, so that masks stay assigned if some photos cannot be read.
            self.masks = dict(zip(names, self.masks, strict=True))
        given = self._named(names)
        arrays = {name: as_mask(name, each) for name, each in given.items() if each is not None}
        white = all(((each == 0) | (each == VOID)).all() for each in arrays.values())
        return {name: partial(_plain, each, white) for name, each in arrays.items()}

    def unused(self, names: Sequence[str]) -> list[str]:
        """See :class:`GivenMasks`."""
        ends = {Path(name).name for name in names} | set(names) | {Path(name).stem for name in names}
        given = self.masks if isinstance(self.masks, Mapping) else {}
        return [str(name) for name, mask in given.items() if mask is not None and str(name) not in ends]

    def _named(self, names: Sequence[str]) -> dict[str, Any]:
        assert isinstance(self.masks, Mapping)
        masks = {str(key): each for key, each in self.masks.items()}
        ways = {name: (name, Path(name).name, Path(name).stem) for name in names}
        return {
            name: next((masks[each] for each in way if each in masks), None) for name, way in ways.items()
        }


def _plain(mask: Mask, white: bool) -> Mask:
    """255 is object if all masks are black and white, and unlabelled otherwise."""
    if white:
        labels: Mask = (mask == VOID).astype(np.int16)
    else:
        labels = np.where(mask == VOID, UNLABELLED, mask).astype(np.int16)
    return labels
