"""Sessions: the state of each tab of the served page, with its fits and its job."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from patchprism.errors import PatchPrismError
from patchprism.explorer.layers import shown_layers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from patchprism.explorer.fit_requests import FitRequest
    from patchprism.jobs.run import Tell
    from patchprism.jobs.view import View
    from patchprism.prism.head import Head

MAX_FITS = 4  # number of earlier fits of a tab that undo can go back to


class NoSessionError(PatchPrismError):
    """The session of a tab is unknown, or was removed because there were too many."""


class BusyError(PatchPrismError):
    """The server has too much work already."""


class Stopped(BaseException):
    """Raised inside a job to stop it. It is no Exception, so that no handler mistakes it for a bad photo."""


@dataclass
class Job:
    """The progress and the result of a job."""

    state: str = "queued"
    stage: str = ""
    done: int = 0
    total: int | None = None
    error: str = ""
    fit: int | None = None  # the number of the new fit
    stop: threading.Event = field(default_factory=threading.Event)

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Record progress; raises :class:`Stopped` if the job should stop."""
        if self.stop.is_set():
            raise Stopped
        self.stage, self.done, self.total = stage, done, total

    def public(self) -> dict[str, Any]:
        """The values that are sent to the page."""
        return {
            "state": self.state,
            "stage": self.stage,
            "done": self.done,
            "total": self.total,
            "error": self.error,
            "fit": self.fit,
        }

    @property
    def over(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("done", "failed", "stopped")


@dataclass(kw_only=True)
class Telling(Job):
    """A job whose progress is passed on to a callback."""

    told: Tell

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Pass on the progress."""
        self.told(stage, done, total)


@dataclass
class Session:
    """The view of one tab, and its earlier views.

    Attributes
    ----------
    view, message : View, bytes
        The fit that is shown.
    staged : list of (name, photo)
        Uploaded photos that the next fit adds.
    job : Job, optional
        The last job.
    head : Head, optional
        The last head that was taught or uploaded.
    attention : tuple, optional
        The last result of :func:`~patchprism.explorer.modes.find_attention`.
    matches : list of dict, optional
        The result of the last search.
    asked : dict
        ``threshold`` and ``foreground`` that the tab has chosen for all further fits.
    fits : dict
        Views and messages of the fits that are kept, by their number.
    fit, newest : int
        Number of the fit that is shown, and the largest number.
    roots : dict
        For each fit, the number of the fit that its colours are turned to agree with.
    aside : int, optional
        Number of the fit that is shown beside.
    """

    view: View
    message: bytes
    staged: list[tuple[str, NDArray[np.uint8]]] = field(default_factory=list)
    job: Job | None = None
    head: Head | None = None
    attention: tuple[NDArray[np.float32], dict[str, Any]] | None = None
    matches: list[dict[str, Any]] | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: dict[str, Any] = field(default_factory=dict)
    fits: OrderedDict[int, tuple[View, bytes]] = field(default_factory=OrderedDict)
    fit: int = 0
    newest: int = 0
    roots: dict[int, int] = field(default_factory=lambda: {0: 0})
    aside: int | None = None

    def show(self, view: View, message: bytes, *, root: int | None = None, aside: bool = False) -> int:
        """Show another fit, or keep it beside the one that is shown; returns its number.

        ``root`` is the fit whose colours it is turned to agree with, by default itself. The last few fits are kept.
        """
        self.fits[self.fit] = self.view, self.message
        self.newest += 1
        self.roots[self.newest] = self.newest if root is None else root
        if aside:
            self.aside = self.newest
            self.fits[self.newest] = view, message
        else:
            self.fit, self.view, self.message = self.newest, view, message
        needed = {self.fit, self.roots[self.fit], self.aside}
        last = [number for number in self.fits if number not in needed][-MAX_FITS:]
        needed |= {*last, *(self.roots[number] for number in last)}
        for number in [number for number in self.fits if number not in needed]:
            del self.fits[number]
        return self.newest

    def copy(self) -> Session:
        """A new session that shows the same fit."""
        root = self.roots[self.fit]
        if root == self.fit:
            return Session(self.view, self.message)
        fits = OrderedDict({0: self.kept(root)})
        return Session(self.view, self.message, fits=fits, fit=1, newest=1, roots={0: 0, 1: 0})

    def kept(self, fit: int) -> tuple[View, bytes]:
        """A fit by its number.

        Raises
        ------
        NoSessionError
            If it is no longer kept.
        """
        if fit == self.fit:
            return self.view, self.message
        if fit not in self.fits:
            raise NoSessionError(f"that fit is no longer kept; undo goes back at most {MAX_FITS} fits")
        return self.fits[fit]

    def found(self, request: FitRequest) -> int | None:
        """The number of a fit with the requested model or layer, if one is kept."""
        root = self.roots[self.fit]
        for number, (view, _) in [(self.fit, (self.view, b"")), *self.fits.items()]:
            if self.roots[number] == root and _like(view, request, self.view):
                return number
        return None

    def back(self, fit: int) -> None:
        """Show a fit that was kept.

        Raises
        ------
        NoSessionError
            If it is no longer kept.
        """
        view, message = self.kept(fit)
        self.fits[self.fit] = self.view, self.message
        self.view, self.message, self.fit = view, message, fit


def _like(view: View, request: FitRequest, now: View) -> bool:
    """Whether a view has the requested model or layer."""
    return (
        view.label == (request.model or now.label)
        and view.store is None
        and shown_layers(view) == (request.layer,)
    )
