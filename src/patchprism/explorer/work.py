"""The work of the server: a session for each tab, and one thread that computes fits."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError, PatchPrismError, PhotoError, WeightsError
from patchprism.explorer.build import build_message
from patchprism.explorer.fit_requests import (
    FitRequest,
    check_request,
    head_of,
    moves,
    reshown,
    settings_of,
    without,
)
from patchprism.explorer.layers import LayerBank, shown_layers, turn_of
from patchprism.explorer.message import Message
from patchprism.explorer.sessions import MAX_FITS, BusyError, Job, NoSessionError, Session, Stopped, Telling
from patchprism.explorer.stored import Stored
from patchprism.explorer.uploads import clean_name, read_upload
from patchprism.support.files import refuse_what_is_read
from patchprism.support.written import PRISM, Output

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.explorer.message import TurnInfo
    from patchprism.features.extraction import PhotoTokens
    from patchprism.jobs.run import Tell
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.view import View
    from patchprism.prism.head import Head

MAX_SESSIONS = 16
MAX_PHOTOS = 48
MAX_SESSION_BYTES = 768 << 20  # of decoded photos
MAX_WAITING = 8

__all__ = [
    "MAX_FITS",
    "MAX_PHOTOS",
    "BusyError",
    "Job",
    "NoSessionError",
    "Session",
    "Stopped",
    "Task",
    "Workshop",
]


Task = Callable[[Session, Job], None]


class Workshop:
    """The sessions, and the worker thread that computes for them.

    Parameters
    ----------
    view : View
        The view that every new tab shows.
    message : bytes
        The message of this view.
    backbone : Backbone, optional
        The network of the view. If the view comes from a store, it is loaded when it is needed.
    device : str
        Device for networks that are loaded later.
    bank : LayerBank, optional
        The tokens of other layers.
    checkpoints : dict, optional
        Networks with other weights, and the places of the weights, by the names that the page shows.
    """

    def __init__(
        self,
        view: View,
        message: bytes,
        backbone: Backbone | None,
        *,
        device: str = "auto",
        bank: LayerBank | None = None,
        checkpoints: Mapping[str, tuple[Backbone, str]] | None = None,
    ) -> None:
        self.first = view, message
        self.stored = Stored.of(view)
        self._backbones = {} if backbone is None else {backbone.record.name: backbone}
        self.checkpoints = dict(checkpoints or {})
        self._backbones |= {name: loaded for name, (loaded, _) in self.checkpoints.items()}
        self._device = str(backbone.device) if backbone else device
        self._bank = bank or LayerBank()
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[tuple[Session, Job, Task] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="patchprism-explore", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop all jobs, and wait a few seconds for the worker thread."""
        with self._lock:
            sessions = list(self._sessions.values())
        for session in sessions:
            if session.job:
                session.job.stop.set()
        try:
            self._waiting.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=3)

    # ---------------------------------------------------------------- sessions

    def open(self, like: str | None = None) -> str:
        """A new session, which shows the first view or that of another session.

        If there are too many sessions, the one that was idle for the longest time is removed.
        """
        made = Session(*self.first) if like is None else self.session(like).copy()
        name = secrets.token_urlsafe(12)
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:
                idle = next((key for key, s in self._sessions.items() if not s.job or s.job.over), None)
                if idle is None:
                    raise BusyError(f"{MAX_SESSIONS} tabs are already in use; close one and try again")
                del self._sessions[idle]
            self._sessions[name] = made
        return name

    def session(self, name: str) -> Session:
        """A session by its name.

        Raises
        ------
        NoSessionError
            If there is no such session.
        """
        with self._lock:
            if name not in self._sessions:
                raise NoSessionError("this tab's session has ended; load the page again")
            self._sessions.move_to_end(name)
            return self._sessions[name]

    def add_photo(self, session: Session, content: bytes, name: str) -> str:
        """Read an uploaded photo, which the next fit adds; returns its name.

        Raises
        ------
        PhotoError
            If it cannot be read, or if there are too many photos.
        """
        name = clean_name(name)
        photo = read_upload(content, name, range=session.view.settings.get("range"))
        with session.lock:
            held = [*(array for _, array in session.staged), *map_sources(session.view)]
            if len(session.view) + len(session.staged) >= MAX_PHOTOS:
                raise PhotoError(name, f"there are already {MAX_PHOTOS} photos, which is the maximum")
            if sum(array.nbytes for array in held) + photo.nbytes > MAX_SESSION_BYTES:
                raise PhotoError(
                    name, f"the photos would take more than {MAX_SESSION_BYTES >> 20} MB of memory"
                )
            session.staged.append((name, photo))
        return name

    # ---------------------------------------------------------------- jobs

    def start(self, session: Session, request: FitRequest) -> Job:
        """Queue a fit.

        Raises
        ------
        BusyError
            If this tab has a running job already, or too many jobs are waiting.
        PatchPrismError
            If the request is invalid.
        """
        check_request(session.view, request, self._backbones)
        with session.lock:
            free = not session.job or session.job.over
            known = session.found(request) if free and request.only_moves and not session.staged else None
            if known is not None:
                if request.aside:
                    session.aside = known
                else:
                    session.back(known)
                session.job = Job(state="done", fit=known)
                return session.job
        return self.queue(session, partial(self._fit, request=request))

    def queue(self, session: Session, task: Task) -> Job:
        """Queue a task of :mod:`patchprism.explorer.tasks`; raises the errors of :meth:`start`."""
        with session.lock:
            if session.job and not session.job.over:
                raise BusyError("a fit is already running in this tab; stop it or wait for it")
            job = Job()
            try:
                self._waiting.put_nowait((session, job, task))
            except queue.Full:
                raise BusyError(f"{MAX_WAITING} fits are already waiting; try again later") from None
            session.job = job
        return job

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            session, job, task = item
            job.state = "running"
            try:
                job.tell("", 0, None)
                task(session, job)
                job.state = "done"
            except Stopped:
                job.state = "stopped"
            except PatchPrismError as error:
                job.error, job.state = str(error), "failed"
            except Exception as error:
                # No error of a photo or of a network may end this thread.
                job.error, job.state = f"{type(error).__name__}: {error}", "failed"

    def _fit(self, session: Session, job: Job, request: FitRequest) -> None:
        with session.lock:
            view, staged = session.view, [] if request.aside else list(session.staged)
            root = session.roots[session.fit] if request.only_moves and not staged else None
            if request.foreground is not None and isinstance(request.threshold, str):
                session.asked = {"threshold": request.threshold, "foreground": request.foreground}
            if request.head:
                session.asked = {"threshold": "auto", "foreground": "mask"}
            asked = dict(session.asked)
        try:
            made = self._made(view, staged, job, request, asked, session.head)
            content = build_message(made, progress=job.tell).to_bytes()
        finally:
            # Also after a failure, so that photos that break a fit do not break all later fits.
            with session.lock:
                session.staged = session.staged[len(staged) :]
        with session.lock:
            job.fit = session.show(made, content, root=root, aside=request.aside)

    def _made(
        self,
        view: View,
        staged: list[tuple[str, NDArray[np.uint8]]],
        job: Job,
        request: FitRequest,
        asked: dict[str, Any] | None = None,
        head: Head | None = None,
    ) -> View:
        from patchprism.features.extraction import Batches, Photos, extract
        from patchprism.features.patch_features import PatchFeatures
        from patchprism.jobs.settings import describe_origin

        first = self.first[0]
        called = (
            view.called
            if request.model is None
            else request.model
            if request.model in self.checkpoints
            else None
        )
        if request.model in self.checkpoints and request.layer is None:
            request = replace(request, layer=shown_layers(view)[-1])
        other = moves(view, request)
        scores = None
        if other or staged or request.without:  # the threshold of this view has no meaning for the new scores
            scores = {name: first.settings.get(name) for name in ("threshold", "foreground")} | (asked or {})
        view = without(view, request.without)
        settings = settings_of(view, request, first=first, asked=scores)
        if called is not None and request.model == called:
            loaded, weights_at = self.checkpoints[called]
            settings = replace(settings, model=loaded.record.name, weights=weights_at)
        if other and view.gone:
            raise OptionError(f"{view.gone[0]} no longer exists, so no other model or layer can be shown")
        photos = Photos(
            [*view.photos.sources, *(array for _, array in staged)],
            [*view.photos.names, *(name for name, _ in staged)],
            range=view.photos.range,
        )
        todo = list(range(len(photos))) if other else list(range(len(view), len(photos)))
        new: dict[int, Any] = {}
        record, weights, framing, origin = view.record, view.weights, view.framing, view.origin
        if todo:  # a fit of the present tokens needs no network, which a store may not have
            backbone = self._backbone(settings, called, job)
            record, weights = backbone.record, backbone.weights
            framing = settings.framing(record) if other else framing
            origin = describe_origin(backbone.identity, settings, framing)
            job.tell("photos", 0, len(todo))
            # Further layers are likely to follow, so the bank keeps them.
            if other and request.layer is not None:
                found: Iterable[PhotoTokens] = self._bank.tokens(
                    photos,
                    backbone,
                    framing,
                    settings.token_options(),
                    n_patches=view.features.n_patches,
                    told=lambda done: job.tell("photos", done, len(todo)),
                )
            else:
                options = settings.token_options()
                found = extract(
                    photos, backbone, framing, indices=todo, batches=Batches(size=1), options=options
                )
            for done, each in enumerate(found, start=1):
                new[each.index] = each
                job.tell("photos", done, len(todo))
        kept = 0 if other else len(view)
        tokens = [*list(view.features)[:kept], *(new[i].tokens for i in todo)]
        photos.notes |= view.photos.notes
        made = replace(
            view,
            photos=photos,
            framing=framing,
            features=PatchFeatures(tokens, photos.names),
            crops=[*view.crops[:kept], *(new[i].crop for i in todo)],
            sizes=[*view.sizes[:kept], *(new[i].size for i in todo)],
            record=record,
            weights=weights,
            settings=view.settings | asdict(settings) | {"device": view.settings["device"]},
            origin=origin,
            store=None if todo else view.store,
            plain=[
                *view.plain,
                *(photos.names[i] for i in todo if new[i].plain and photos.names[i] not in view.plain),
            ],
            failures=[],
            seconds={},
            called=called,
        )
        fit = view.fitted_here or request.changes_fit
        job.tell("fit" if fit else "colour", 0, None)
        if fit:  # recolored() takes the head from the prism of the view
            made.prism = copy(view.prism)
            made.prism.head = head_of(view, request, head)
            if made.prism.head is not view.prism.head_:
                made.prism.masks = {}
        return made.recolored(settings.prism() if fit else view.prism, fit=fit)

    def backbone_of(self, view: View, job: Job | None = None) -> Backbone | None:
        """The network of a view. If it is not loaded: None, unless a job is given, which then waits for it."""
        loaded = self._backbones.get(view.label)
        if loaded is None and job is not None:
            return self._backbone(settings_of(view, FitRequest(), first=self.first[0]), view.called, job)
        return loaded

    def moved(self, view: View, request: FitRequest, tell: Tell) -> View:
        """A view of another model or layer, computed in this thread."""
        check_request(view, request, self._backbones)
        return self._made(view, [], Telling(told=tell), request)

    def _backbone(self, settings: Settings, called: str | None, job: Job) -> Backbone:
        from patchprism.jobs.network import load_network

        name = called or str(settings.model)
        if name not in self._backbones:
            own = replace(settings, weights=None, device=self._device)
            loaded = load_network(own, job.tell, download=False)
            first = self.first[0]
            if name == first.record.name and loaded.weights.sha256 != first.weights.sha256:
                raise WeightsError(
                    f"the weights of {name} on this machine differ from those of the feature store (SHA-256 "
                    f"{loaded.weights.sha256[:12]}..., not {first.weights.sha256[:12]}...)"
                )
            self._backbones[name] = loaded
        return self._backbones[name]

    def turn(self, session: Session, fit: int, other: int) -> TurnInfo | None:
        """The turn that makes the colours of one fit agree with those of another; see :func:`turn_of`."""
        with session.lock:
            (view, _), (reference, message) = session.kept(fit), session.kept(other)
        return turn_of(view, reference, Message.from_bytes(message).header)

    def save(
        self,
        session: Session,
        folder: str | os.PathLike[str],
        options: dict[str, Any],
        *,
        background: str = "black",
        basis: str = "object",
        overlay_alpha: float | None = None,
    ) -> list[Path] | list[str]:
        """Write the pictures of a session into a folder, with the foreground and the colours that the page shows."""
        with session.lock:
            view = session.view
        shown = reshown(view, options, basis=basis)
        given = self.first[0].prism.loaded_from
        if given and shown.prism.loaded_from != given:  # a new fit must not replace the given prism
            refuse_what_is_read(Output(folder).path(PRISM), [given])
        return shown.save(folder, background=background, basis=basis, overlay_alpha=overlay_alpha)


def map_sources(view: View) -> list[NDArray[np.uint8]]:
    """The photos of a view that are held in memory as arrays."""
    import numpy

    return [source for source in view.photos.sources if isinstance(source, numpy.ndarray)]
