"""The work of the server: one view per tab, fits on request, one job at a time."""

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
from patchprism.explorer.layers import LayerBank, shown_layers, turn_of
from patchprism.explorer.message import Message
from patchprism.explorer.sessions import MAX_FITS, BusyError, Job, NoSessionError, Session, Stopped, Telling
from patchprism.explorer.stored import Stored
from patchprism.explorer.uploads import clean_name, read_upload
from patchprism.explorer.wishes import Wish, check_wish, head_of, moves, reshown, settings_of, without
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
    bank : LayerBank, optional
        Keeps the tokens of layers.
    checkpoints : dict, optional
        Other weights of models by what to call them: the network, and where its weights are.
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
        with session.lock:
            free = not session.job or session.job.over
            known = session.found(wish) if free and wish.only_moves and not session.staged else None
            if known is not None:
                if wish.aside:
                    session.aside = known
                else:
                    session.back(known)
                session.job = Job(state="done", fit=known)
                return session.job
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
            view, staged = session.view, [] if wish.aside else list(session.staged)
            root = session.roots[session.fit] if wish.only_moves and not staged else None
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
            job.fit = session.show(made, content, root=root, aside=wish.aside)

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
        called = view.called if wish.model is None else wish.model if wish.model in self.checkpoints else None
        if wish.model in self.checkpoints and wish.layer is None:
            wish = replace(wish, layer=shown_layers(view)[-1])
        other = moves(view, wish)
        scores = None  # that a threshold of this view holds for
        if other or staged or wish.without:
            scores = {name: first.settings.get(name) for name in ("threshold", "foreground")} | (asked or {})
        view = without(view, wish.without)
        settings = settings_of(view, wish, first=first, asked=scores)
        if called is not None and wish.model == called:
            loaded, weights_at = self.checkpoints[called]
            settings = replace(settings, model=loaded.record.name, weights=weights_at)
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
            backbone = self._backbone(settings, called, job)
            record, weights = backbone.record, backbone.weights
            framing = settings.framing(record) if other else framing
            origin = describe_origin(backbone.identity, settings, framing)
            job.tell("photos", 0, len(todo))
            if other and wish.layer is not None:  # others will follow, which one forward pass gives as well
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
        loaded = self._backbones.get(view.label)
        if loaded is None and job is not None:
            return self._backbone(settings_of(view, Wish(), first=self.first[0]), view.called, job)
        return loaded

    def moved(self, view: View, wish: Wish, tell: Tell) -> View:
        """A view of another model or layer, made at once."""
        check_wish(view, wish, self._backbones)
        return self._made(view, [], Telling(told=tell), wish)

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
        """How the colours of one fit are turned to agree with those of another, see :func:`turn_of`."""
        with session.lock:
            (view, _), (reference, message) = session.kept(fit), session.kept(other)
        return turn_of(view, reference, Message.from_bytes(message).header)

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
