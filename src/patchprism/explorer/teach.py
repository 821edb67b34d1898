"""Heads for the page: fits them to marks on patches, and applies them to the patches of a view."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import HeadError, OptionError
from patchprism.prism.head import GRID, Head
from patchprism.prism.labels import UNLABELLED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.jobs.view import View

# Decisions are sent as int32 multiples of GRID. Larger ones are clipped, which does not change the probabilities.
_MOST = 2**31 - 1


def teach_head(view: View, marks: Sequence[tuple[int, int]], classes: Sequence[str], C: float) -> Head:
    """Fit a head to marked patches.

    Parameters
    ----------
    view : View
    marks : sequence of (patch, class)
        Patches are counted over all photos in their order, row by row.
    classes : sequence of str
        Names; the first is the background.
    C : float
        As for :class:`~patchprism.Head`.

    Raises
    ------
    OptionError
        If there is no such patch or class, a class has no mark, or an option has a value that is not allowed.
    """
    labels = np.full(sum(h * w for h, w in view.features.grids), UNLABELLED, np.int16)
    for patch, number in marks:
        if not 0 <= patch < len(labels) or not 0 <= number < len(classes):
            raise OptionError(f"there is no patch {patch}, or no class {number}", option="marks")
        labels[patch] = number
    masks, start = [], 0
    for h, w in view.features.grids:
        mask = labels[start : start + h * w].reshape(h, w)
        masks.append(mask if (mask != UNLABELLED).any() else None)
        start += h * w
    head = Head(C=C, classes=tuple(classes)).fit(view.features, masks)
    head.origin = dict(view.origin)
    return head


def head_from(content: bytes) -> Head:
    """A head from the bytes of its file; raises :class:`~patchprism.errors.HeadError` if they are invalid."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "given.head.safetensors"
        path.write_bytes(content)
        try:
            return Head.load(path)
        except HeadError as error:
            raise HeadError(str(error).replace(str(path), "the head")) from error


def head_answer(view: View, head: Head) -> bytes:
    """The response to the page, in little-endian order.

    It consists of the length of the head's file (uint32), the file, and for all patches the decisions w_k . x + b_k
    (N, K) as int32 multiples of ``GRID``, the scores (float32) and the classes (uint8).

    Raises
    ------
    HeadError
        If the head was fitted on features of another width.
    """
    content = head.to_bytes()
    decisions = [each.reshape(-1, each.shape[-1]) for each in head.decision_function(view.features)]
    codes = np.clip(np.rint(np.concatenate(decisions) / GRID), -_MOST, _MOST).astype("<i4")
    score = np.concatenate([head.score_of(tokens).ravel() for tokens in view.features]).astype("<f4")
    classes = np.concatenate([each.ravel() for each in head.predict(view.features)]).astype(np.uint8)
    parts = [codes.tobytes(), score.tobytes(), classes.tobytes()]
    return b"".join([struct.pack("<I", len(content)), content, *parts])
