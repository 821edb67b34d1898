"""How a job learns its foreground from masks that users give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchprism.errors import EngineError, MaskError, PhotoError
from patchprism.features.extraction import photo_names
from patchprism.features.store import StoredFeatures
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.given import ALPHA
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.opened import open_tokens, resolved_for
from patchprism.jobs.run import no_progress
from patchprism.jobs.source import SHARD
from patchprism.jobs.tasks import FoldTask
from patchprism.prism.head import Head, LabelledRows
from patchprism.prism.labels import (
    UNLABELLED,
    check_shape,
    class_shares,
    packed_shares,
    patch_labels,
    relative_crop,
)
from patchprism.support.files import check_target
from patchprism.support.reading import Note
from patchprism.support.words import counted

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.jobs.engines import Engine
    from patchprism.jobs.given import GivenMasks
    from patchprism.jobs.opened import Opened
    from patchprism.jobs.run import Run, Tell
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.source import Failure, Source
    from patchprism.prism.estimator import Prism

    Mask = NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class Taught:
    """The labels of a job's photos, from masks.

    Attributes
    ----------
    labels : dict of int to ndarray
        Classes of patches, (h, w) int16, by the photo's place in the source.
    packed : dict of str to bytes
        Masks by the photos' names, packed as in a prism.
    notes : list of Note
    """

    labels: dict[int, Mask]
    packed: dict[str, bytes]
    notes: list[Note]


def read_given(source: Source, masks: GivenMasks, tell: Tell = no_progress) -> Taught:
    """Read the masks of a source's photos.

    Raises
    ------
    MaskError
        If no photo has a mask, one cannot be read, or all are empty or cover everything.
    PhotoError
        If a mask has another shape than its photo, or a value that is not a class.
    """
    rows = {
        shard * SHARD + place: row
        for shard in range(source.n_shards)
        for place, row in enumerate(source.rows(shard))
    }
    names = [row.name for row in rows.values()]
    readers = masks.match(names)
    taught = Taught(labels={}, packed={}, notes=list(_note_on_unused(masks, names)))
    for done, (index, row) in enumerate(rows.items()):
        tell("masks", done, len(rows))
        mask = readers[row.name]() if row.name in readers else None
        if mask is None:
            continue
        shares = shares_of_mask(row.name, mask, row.grid, row.size, row.crop, most_classes=masks.most_classes)
        taught.labels[index] = patch_labels(shares)
        taught.packed[row.name] = packed_shares(shares)
        taught.notes.extend(Note(row.name, text) for text in _notes_on_mask(mask))
    if not taught.labels:
        raise MaskError(no_mask(masks, names))
    _check_both(taught)
    return taught


def _check_both(taught: Taught) -> None:
    """Refuse masks that are all empty or all full; the error names the first."""
    odd = [each for each in taught.notes if each.name in taught.packed]
    ground = any((each == 0).any() for each in taught.labels.values())
    objects = any((each > 0).any() for each in taught.labels.values())
    if odd and not (ground and objects):
        more = f" (and {len(odd) - 1:,} more)" if len(odd) > 1 else ""
        raise MaskError(
            f"the masks label no patch as {'object' if ground else 'background'}: "
            f"{odd[0].name}: {odd[0].text}{more}"
        )


def shares_of_mask(
    name: str,
    mask: Mask,
    grid: tuple[int, int],
    size: tuple[int, int],
    crop: tuple[float, float, float, float],
    *,
    most_classes: int,
) -> NDArray[np.float64]:
    """The share of each patch that each class of a photo's mask covers, (h, w, K).

    Parameters
    ----------
    name : str
        Name of the photo.
    mask : ndarray, shape (H, W), int16
        Of the photo's aspect ratio at any resolution; or (h, w), with one value per patch.
    grid, size, crop
        As in :class:`~patchprism.features.store.reader.PhotoRow`.
    most_classes : int
        Upper limit (exclusive) of the numbers in the mask.

    Raises
    ------
    PhotoError
        If the mask has another shape than the photo, or a value that is not a class.
    """
    largest = int(mask.max())
    if largest >= most_classes or mask.min() < UNLABELLED:
        wrong = largest if largest >= most_classes else int(mask.min())
        raise PhotoError(
            name,
            f"its mask has the value {wrong}: classes are 0 to {most_classes - 1}, and -1 and 255 are unlabelled",
        )
    count = max(2, largest + 1)
    if mask.shape == grid:
        return class_shares(mask, grid, (0.0, 0.0, 1.0, 1.0), count)
    check_shape(name, mask.shape, size)
    return class_shares(mask, grid, relative_crop(crop, size), count)


def _notes_on_mask(mask: Mask) -> Iterator[str]:
    """Note about a mask that contains only background or only object."""
    labelled = mask[mask >= 0]
    if not labelled.size:
        yield "its mask is empty: nothing in it is labelled"
    elif not labelled.any():
        yield "its mask is empty: the whole photo counts as background"
    elif labelled.all() and labelled.size == mask.size:
        yield "its mask covers the whole photo: nothing in it counts as background"


def _note_on_unused(masks: GivenMasks, names: Sequence[str]) -> Iterator[Note]:
    left = masks.unused(names)
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3:,} more" if len(left) > 3 else "")
        yield Note("", f"{counted(len(left), 'mask')} of {masks.name} without a photo: {shown}")


def no_mask(masks: GivenMasks, names: Sequence[str]) -> str:
    """The message if no photo has a mask."""
    left = masks.unused(names)
    example = f"; there is {left[0]}, and the first photo is {names[0]}" if left and names else ""
    if masks.name == ALPHA:
        return "alpha: no photo has an alpha channel that leaves something out"
    return f"{masks.name}: no mask belongs to a photo{example}"


def check_given(masks: GivenMasks | None, given: StoredFeatures | list[Any]) -> None:
    """Refuse masks if none of them belongs to a photo, before the network runs; assign arrays to the photos' names.

    Raises
    ------
    MaskError
        If none belongs to a photo.
    """
    if masks is not None:
        if masks.name == ALPHA and isinstance(given, StoredFeatures):
            raise MaskError("alpha is for photos; with a feature store, give a folder of masks")
        names = given.names if isinstance(given, StoredFeatures) else photo_names(given)
        if not masks.match(names):
            raise MaskError(no_mask(masks, names))


def fit_head(
    head: Head, labels: Mapping[int, Mask], source: Source, engine: Engine, origin: dict[str, Any]
) -> Head:
    """Fit a head on the photos of a source that have labels, by place; only their shards are read."""

    def walk(make: Callable[[], LabelledRows]) -> LabelledRows:
        merged = make()
        shards = sorted({index // SHARD for index in labels})
        for _, result in engine.map(FoldTask(make, source), [(shard, shard + 1) for shard in shards]):
            if isinstance(result, WorkerLost):
                raise EngineError(f"workers died repeatedly while reading masks: {result.reason}")
            merged.merge(result)
        return merged

    return head.fit_by(walk, labels, origin=origin)


def teach(prism: Prism, opened: Opened, masks: GivenMasks | None, run: Run) -> None:
    """Fit a prism's head to masks, if there are any, and keep the masks in the prism.

    Raises
    ------
    PatchPrismError
        One of its subclasses.
    """
    if masks is None:
        return
    with run.watch("read masks and fit head"):
        taught = read_given(opened.source, masks, run.tell)
        opened.notes = [*opened.notes, *taught.notes]
        prism.head = fit_head(Head(), taught.labels, opened.source, run.engine, opened.origin)
        prism.masks = taught.packed


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The outcome of teaching a head.

    Attributes
    ----------
    head : Head
    model : str
    weights_source : str
    agreement : float
        Share of a photo's labelled patches to which the head assigns the same class, averaged over the photos.
    failures : list of Failure
    notes : list of Note
    """

    head: Head
    model: str
    weights_source: str
    agreement: float
    failures: list[Failure]
    notes: list[Note]


def teach_head(
    photos: Sequence[str | os.PathLike[str]],
    masks: GivenMasks,
    out: str | os.PathLike[str],
    *,
    head: Head,
    settings: Settings,
    run: Run,
) -> Lesson:
    """Photos or a store, and masks of some of them -> a head in a file; photos without a mask are not used.

    Raises
    ------
    PatchPrismError
        One of its subclasses.
    """
    given, said = listed_input(photos)
    used = [settings.weights, settings.model, None if masks.name == ALPHA else masks.name]
    if isinstance(given, StoredFeatures):
        target = check_target(out, read=[given.path, *used], make_folder=True)
    else:
        target = check_target(out, given, read=used, make_folder=True)
    settings = resolved_for(settings, given, run)
    check_given(masks, given)
    if not isinstance(given, StoredFeatures):
        matched = masks.match(given)
        given = [name for name in given if name in matched]
    opened = open_tokens(given, settings, run)
    taught = read_given(opened.source, masks, run.tell)
    fitted = fit_head(head, taught.labels, opened.source, run.engine, opened.origin)
    fitted.save(target)
    found = [
        float((fitted.classes_of(tokens)[labels >= 0] == labels[labels >= 0]).mean())
        for shard in sorted({index // SHARD for index in taught.labels})
        for place, (_, tokens) in enumerate(opened.source.read(shard))
        if (labels := taught.labels.get(shard * SHARD + place)) is not None and (labels >= 0).any()
    ]
    return Lesson(
        head=fitted,
        model=opened.record.name,
        weights_source=str(opened.weights),
        agreement=sum(found) / len(found),
        failures=opened.failures,
        notes=[*said, *opened.notes, *taught.notes],
    )
