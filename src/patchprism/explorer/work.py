"""The work of the server: one view per tab, fits on request, one job at a time."""

from __future__ import annotations

import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError, PatchPrismError, PhotoError, WeightsError
from patchprism.explorer.build import build_message
from patchprism.explorer.stored import Stored
from patchprism.explorer.uploads import clean_name, read_upload
from patchprism.explorer.wishes import Wish, check_wish, head_of, reshown, settings_of, without
from patchprism.support.files import refuse_what_is_read
from patchprism.support.written import PRISM, Output

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.backbones import Backbone
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.view import View
    from patchprism.prism.head import Head

MAX_SESSIONS = 16
MAX_PHOTOS = 48
MAX_SESSION_BYTES = 768 << 20  # of decoded photos
MAX_WAITING = 8
MAX_FITS = 4  # earlier fits of a tab, for undo


class NoSessionError(PatchPrismError):
    """The session of a tab is unknown, or was dropped for newer ones."""


class BusyError(PatchPrismError):
    """There is too much to do already."""


class Stopped(BaseException):
    """Raised inside a job to end it; no Exception, so that nothing on the way takes it for a bad photo."""


@dataclass
class Job:
    """One fit, as the page sees it."""

    state: str = "queued"
    stage: str = ""
    done: int = 0
    total: int | None = None
    error: str = ""
    stop: threading.Event = field(default_factory=threading.Event)

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Record progress; raises :class:`Stopped` if the job should stop."""
        if self.stop.is_set():
            raise Stopped
        self.stage, self.done, self.total = stage, done, total

    def public(self) -> dict[str, Any]:
        """The state for the page."""
        return {
            "state": self.state,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "error": self.error,
        }

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "stopped")


@dataclass
class Session:
    """One tab's view, and those that it had before.

    ``asked`` is what the tab has asked of all fits to come: ``threshold`` and ``foreground``. ``fits`` are views and
    messages by their number, ``fit`` the number of the one that is shown.
    """

    view: View
    message: bytes
    staged: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    job: Job | None = None
    head: Head | None = None  # the last that was taught or given
    attention: tuple[NDArray[np.float32], dict[str, Any]] | None = None  # the last that was asked for
    matches: list[dict[str, Any]] | None = None  # of the last search
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[str, Any] = field(default_factory=dict)
    fits: OrderedDict[int, tuple[View, bytes]] = field(default_factory=OrderedDict)
    fit: int = 0

    def show(self, view: View, message: bytes) -> None:
        """Show another fit, and keep the one before."""
        self.fits[self.fit] = self.view, self.message
        self.fit = max(self.fits) + 1
        self.view, self.message = view, message
        while len(self.fits) > MAX_FITS:
            self.fits.popitem(last=False)

    def back(self, fit: int) -> None:
        """Show a fit that was kept.

        Raises
        ------
        NoSessionError
            If it is not there any more.
        """
        if fit == self.fit:
            return
        if fit not in self.fits:
            raise NoSessionError(f"that fit is no longer kept; undo goes back at most {MAX_FITS} fits")
        self.fits[self.fit] = self.view, self.message
        self.view, self.message = self.fits[fit]
        self.fit = fit


Task = Callable[[Session, Job], None]  # what the one thread does for a session


class Workshop:
    """Sessions and the one thread that computes for them.

    Parameters
    ----------
    view : View
        The view of every new tab.
    message : bytes
        Its message.
    backbone : Backbone, optional
        The network of the view. Without it, the view comes from a store, and the network is loaded when it is needed.
    device : str
        Device of networks that are loaded here.
    """

    def __init__(
        self, view: View, message: bytes, backbone: Backbone | None, *, device: str = "auto"
    ) -> None:
        self.first = view, message
        self.stored = Stored.of(view)
        self._backbones = {} if backbone is None else {backbone.record.name: backbone}
        self._device = str(backbone.device) if backbone else device
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()
        self._waiting: queue.Queue[tuple[Session, Job, Task] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="patchprism-explore", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop what is running and wait for it, but not for long."""
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
        """A new session, showing the first view or another session's.

        If there are too many sessions, the one that was idle for longest is dropped.
        """
        shown = self.first
        if like is not None:
            other = self.session(like)
            shown = other.view, other.message
        name = secrets.token_urlsafe(12)
        with self._lock:
            if len(self._sessions) >= MAX_SESSIONS:
                idle = next((key for key, s in self._sessions.items() if not s.job or s.job.over), None)
                if idle is None:
                    raise BusyError(f"{MAX_SESSIONS} tabs are already in use; close one and try again")
                del self._sessions[idle]
            self._sessions[name] = Session(*shown)
        return name

    def session(self, name: str) -> Session:
        """A session by its name.

        Raises
        ------
        NoSessionError
            If there is none.
        """
        with self._lock:
            if name not in self._sessions:
                raise NoSessionError("this tab's session has ended; load the page again")
            self._sessions.move_to_end(name)
            return self._sessions[name]

    def add_photo(self, session: Session, content: bytes, name: str) -> str:
        """Read an uploaded photo, to be there with the next fit; returns the name that it got.

        Raises
        ------
        PhotoError
            If it cannot be read, or there are too many.
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

    def start(self, session: Session, wish: Wish) -> Job:
        """Queue a fit.

        Raises
        ------
        BusyError
            If this tab has one already, or too many wait.
        PatchPrismError
            If the wish cannot be fulfilled.
        """
        check_wish(session.view, wish, self._backbones)
        return self.queue(session, partial(self._fit, wish=wish))

    def queue(self, session: Session, task: Task) -> Job:
        """Queue what :mod:`patchprism.explorer.tasks` makes; raises as :meth:`start` does."""
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
                # No error of a photo or a network may end this thread.
                job.error, job.state = f"{type(error).__name__}: {error}", "failed"

    def _fit(self, session: Session, job: Job, wish: Wish) -> None:
        with session.lock:
            view, staged = session.view, list(session.staged)
            if wish.foreground is not None and isinstance(wish.threshold, str):
                session.asked = {"threshold": wish.threshold, "foreground": wish.foreground}
            if wish.head:
                session.asked = {"threshold": "auto", "foreground": "mask"}
            asked = dict(session.asked)
        try:
            made = self._made(view, staged, job, wish, asked, session.head)
            content = build_message(made, progress=job.tell).to_bytes()
        finally:
            # Also after a failure: photos that break a fit must not break all that follow.
            with session.lock:
                session.staged = session.staged[len(staged) :]
        with session.lock:
            session.show(made, content)

    def _made(
        self,
        view: View,
        staged: list[tuple[str, NDArray[np.uint8]]],
        job: Job,
        wish: Wish,
        asked: dict[str, Any] | None = None,
        head: Head | None = None,
    ) -> View:
        from patchprism.features.extraction import Batches, Photos, extract
        from patchprism.features.patch_features import PatchFeatures
        from patchprism.jobs.settings import describe_origin

        first = self.first[0]
        other = wish.model not in (None, view.record.name)
        scores = None  # that a threshold of this view holds for
        if other or staged or wish.without:
            scores = {name: first.settings.get(name) for name in ("threshold", "foreground")} | (asked or {})
        view = without(view, wish.without)
        settings = settings_of(view, wish, first=first, asked=scores)
        other = settings.model != view.record.name
        if other and view.gone:
            raise OptionError(
                f"{view.gone[0]} no longer exists, so only the model of the feature store can be shown"
            )
        photos = Photos(
            [*view.photos.sources, *(array for _, array in staged)],
            [*view.photos.names, *(name for name, _ in staged)],
            range=view.photos.range,
        )
        todo = list(range(len(photos))) if other else list(range(len(view), len(photos)))
        new: dict[int, Any] = {}
        record, weights, framing, origin = view.record, view.weights, view.framing, view.origin
        if todo:  # tokens of a store are fitted again without its network
            backbone = self._backbone(settings, job)
            record, weights = backbone.record, backbone.weights
            framing = settings.framing(record) if other else framing
            origin = describe_origin(backbone.identity, settings, framing)
            job.tell("photos", 0, len(todo))
            for each in extract(
                photos,
                backbone,
                framing,
                indices=todo,
                batches=Batches(size=1),
                options=settings.token_options(),
            ):
                new[each.index] = each
                job.tell("photos", len(new), len(todo))
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
        )
        fit = view.fitted_here or wish.changes_fit
        job.tell("fit" if fit else "colour", 0, None)
        if fit:  # which takes its head from the view that it is made of
            made.prism = copy(view.prism)
            made.prism.head = head_of(view, wish, head)
            if made.prism.head is not view.prism.head_:
                made.prism.masks = {}
        return made.recolored(settings.prism() if fit else view.prism, fit=fit)

    def backbone_of(self, view: View, job: Job | None = None) -> Backbone | None:
        """The network of a view; loaded if a job is given that can wait for it, else None where it is not yet."""
        loaded = self._backbones.get(view.record.name)
        if loaded is None and job is not None:
            return self._backbone(settings_of(view, Wish(), first=self.first[0]), job)
        return loaded

    def _backbone(self, settings: Settings, job: Job) -> Backbone:
        from patchprism.jobs.network import load_network

        name = str(settings.model)
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

    def save(
        self, session: Session, folder: str | os.PathLike[str], options: dict[str, Any], **output: Any
    ) -> list[Path] | list[str]:
        """Write a session's pictures, with another shown foreground, components or scaling, into a folder."""
        with session.lock:
            view = session.view
        shown = reshown(view, options, basis=output.get("basis", "object"))
        given = self.first[0].prism.loaded_from
        if given and shown.prism.loaded_from != given:  # fitted again; this must not replace the first fit
            refuse_what_is_read(Output(folder).path(PRISM), [given])
        return shown.save(folder, **output)


def map_sources(view: View) -> list[NDArray[np.uint8]]:
    """The arrays among a view's sources: photos that are held in memory."""
    import numpy

    return [source for source in view.photos.sources if isinstance(source, numpy.ndarray)]
