"""A tab of the served page: its fits, and the one that is being made."""

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

    from patchprism.explorer.wishes import Wish
    from patchprism.jobs.run import Tell
    from patchprism.jobs.view import View
    from patchprism.prism.head import Head

MAX_FITS = 4  # of a tab, which undo goes back to


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
    fit: int | None = None  # the number of what was made
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
            "fit": self.fit,
        }

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed", "stopped")


@dataclass(kw_only=True)
class Telling(Job):
    """A fit that somebody waits for, who is told how far it is."""

    told: Tell

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Pass it on."""
        self.told(stage, done, total)


@dataclass
class Session:
    """One tab's view, and those that it had before.

    ``asked`` is what the tab has asked of all fits to come: ``threshold`` and ``foreground``. ``fits`` are views and
    messages by their number, ``fit`` the number of the one that is shown, ``newest`` the largest. ``roots`` says whose
    colours a fit of another model or layer is turned to agree with. ``aside`` is the fit that is shown beside.
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
        """A session that shows the same, with nothing else of this one."""
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

    def found(self, wish: Wish) -> int | None:
        """The number of a fit that shows another model or layer as a wish asks for it, if one is kept."""
        root = self.roots[self.fit]
        for number, (view, _) in [(self.fit, (self.view, b"")), *self.fits.items()]:
            if self.roots[number] == root and _like(view, wish, self.view):
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


def _like(view: View, wish: Wish, now: View) -> bool:
    """Whether a view shows what a wish for another model or layer asks for."""
    return (
        view.label == (wish.model or now.label) and view.store is None and shown_layers(view) == (wish.layer,)
    )
