"""Tasks of the server's worker thread besides fits: attention, other photos of the store, and searches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchprism.backbones import locate_weights
from patchprism.errors import ModelError, OptionError
from patchprism.explorer.build import build_message
from patchprism.explorer.modes import can_attend, find_attention
from patchprism.explorer.stored import MAX_SHOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchprism.explorer.stored import Stored
    from patchprism.explorer.work import Job, Session, Task, Workshop
    from patchprism.jobs.view import View

PRISM_NAME = "explored.prism.safetensors"  # the same name as in page/state.js


def has_attention(workshop: Workshop, view: View) -> bool:
    """Whether attention can be shown for a view. If its network is not loaded, this depends on its record."""
    backbone = workshop.backbone_of(view)
    if backbone is not None:
        return can_attend(view, backbone)
    record = view.record
    return record.heads > 0 and record.prefix_tokens > 0 and locate_weights(record) is not None


def attention_task(workshop: Workshop) -> Task:
    """A task that runs the network over the photos of a session and keeps the attention of the class token."""

    def task(session: Session, job: Job) -> None:
        view = session.view
        backbone = workshop.backbone_of(view, job)
        if backbone is None:
            raise ModelError(f"{view.record.name} is not here any more")
        session.attention = find_attention(view, backbone, tell=job.tell)

    return task


def shown_task(
    stored: Stored | None, keep: Sequence[int], places: Sequence[int], draw: tuple[str, int] | None
) -> Task:
    """A task that shows other photos of the store.

    Parameters
    ----------
    keep, places
        As for :meth:`Stored.shown <patchprism.explorer.stored.Stored.shown>`.
    draw : (str, int), optional
        Also shows photos whose names contain a text, drawn by seed, as many as there is room for.
    """
    store = _there(stored)

    def task(session: Session, job: Job) -> None:
        view, more = session.view, list(places)
        if draw is not None:
            more += store.drawn(*draw, most=MAX_SHOWN - len(set(keep)))
        made = store.shown(view, keep, more, tell=job.tell)
        given = view.prism.loaded_from or PRISM_NAME
        content = build_message(made, prism_path=given, progress=job.tell).to_bytes()
        with session.lock:
            session.show(made, content)

    return task


def search_task(
    stored: Stored | None, photo: int, patch: int, mask: dict[str, Any], *, everywhere: bool
) -> Task:
    """A task that searches the store; see :meth:`Stored.search <patchprism.explorer.stored.Stored.search>`."""
    store = _there(stored)

    def task(session: Session, job: Job) -> None:
        view = session.view
        session.matches = store.search(view, photo, patch, mask, everywhere=everywhere, tell=job.tell)

    return task


def _there(stored: Stored | None) -> Stored:
    if stored is None:
        raise OptionError("this page was not opened with a feature store")
    return stored
