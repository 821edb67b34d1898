"""Masks of a clip's frames: which frames they belong to, and the head that is fitted to them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from patchprism.errors import MaskError
from patchprism.jobs.given import FolderMasks
from patchprism.jobs.mask_files import read_mask
from patchprism.jobs.teaching import no_mask, shares_of_mask
from patchprism.jobs.video.frames import Span
from patchprism.jobs.video.relay import read_ahead
from patchprism.jobs.video.source import PhotoClip
from patchprism.prism.head import Head, LabelledRows
from patchprism.prism.labels import patch_labels
from patchprism.support.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.jobs.given import GivenMasks
    from patchprism.jobs.video.fitting import Frames
    from patchprism.jobs.video.frames import Frame
    from patchprism.jobs.video.source import Clip

    Mask = NDArray[np.int16]
    Readers = dict[int, Callable[[], Mask | None]]


def masks_of_frames(clip: Clip, masks: GivenMasks) -> tuple[Readers, list[str]]:
    """Functions that read the masks, by frame number, and notes about masks without a frame.

    Masks of an image sequence are named after the photos. Masks of a video are files in a folder, named after the
    numbers of the frames from 0, with or without leading zeros.

    Raises
    ------
    MaskError
        If no frame has a mask.
    """
    if isinstance(clip, PhotoClip):
        names = [str(path) for path in clip.paths]
        matched = masks.match(names)
        if not matched:
            raise MaskError(no_mask(masks, names))
        found: Readers = {index: matched[name] for index, name in enumerate(names) if name in matched}
        left = masks.unused(names)
    else:
        if not isinstance(masks, FolderMasks):
            raise MaskError(
                f"{masks.name}: the masks of a video must be a folder of PNG files whose names are frame "
                "numbers, from 0"
            )
        found = {
            int(stem): partial(read_mask, path)
            for stem, path in masks.files.items()
            if stem.isdecimal() and (clip.n_frames is None or int(stem) < clip.n_frames)
        }
        used = {path for stem, path in masks.files.items() if stem.isdecimal() and int(stem) in found}
        left = sorted({path.name for path in masks.files.values() if path not in used})
        if not found:
            raise MaskError(
                f"{masks.name}: no mask belongs to a frame; the names of masks must be frame numbers, from 0, "
                f"but there is {left[0]}"
            )
    notes = (
        [f"{counted(len(left), 'mask')} of {masks.name} without a frame: {', '.join(left[:3])}"]
        if left
        else []
    )
    return found, notes


def masked_frames(clip: Clip, readers: Readers) -> Iterator[Frame]:
    """The frames that have a mask. A video is decoded up to the last of them."""
    last = max(readers)
    if isinstance(clip, PhotoClip):
        for index in sorted(readers):
            part = PhotoClip([clip.paths[index]], clip.rate, name=clip.name, range=clip.range)
            for frame in part.frames(Span(), planes=False):
                yield replace(frame, index=index)
        return
    for frame in clip.frames(Span(), planes=False):
        if frame.index in readers:
            yield frame
        if frame.index >= last:
            return


def fit_head_to_frames(frames: Frames, readers: Readers) -> Head:
    """Fit a head to the masks of a clip's frames.

    Raises
    ------
    MaskError, PhotoError
        If a mask cannot be read or does not fit its frame, or if none of the frames can be read.
    """
    held: dict[int, NDArray[np.float32]] = {}
    labels: dict[int, Mask] = {}
    with read_ahead(frames.framed(masked_frames(frames.clip, readers)), 2) as items:
        for frame, framed, tokens in frames.tokens(items):
            mask = readers[frame.index]()
            if mask is not None:
                size = (frame.rgb.shape[0], frame.rgb.shape[1])
                shares = shares_of_mask(
                    frames.name(frame), mask, tokens.shape[:2], size, framed.crop, most_classes=2
                )
                labels[frame.index], held[frame.index] = patch_labels(shares), tokens
    if not held:
        raise MaskError(f"{frames.clip.name}: none of the frames that have a mask could be read")

    def walk(make: Callable[[], LabelledRows]) -> LabelledRows:
        made = make()
        for index, each in held.items():
            made.update(each, index)
        return made

    return Head().fit_by(walk, labels, origin=frames.network.origin)
