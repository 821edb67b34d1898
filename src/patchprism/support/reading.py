"""What a reader of photos reports besides the pixels: notes, and how much memory it is about to use.

A reader is a function from a name to an array, in this or another process. To get its notes, call it inside
:func:`reading`; outside it, notes are lost. The notes go into the row of the photo, the summary and ``report.json``.
:class:`patchprism.photos.isolated.IsolatedReader` transfers them from another process.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchprism.errors import PhotoError
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Photos that are read at the same time use at most this share of the free memory.
SHARE = 0.5
# Peak memory for reading, framing or drawing a photo, in bytes per pixel. For a PNG of 179 megapixels, 14.2 were
# measured in the reader's process and 3.1 in the process that requested the photo.
BYTES_PER_PIXEL = 18
# Smaller requests are never refused, because the free memory is only an estimate.
ALWAYS = 256 << 20


@dataclass(frozen=True)
class Note:
    """A note about a photo that was read, or about a job.

    Attributes
    ----------
    name : str
        Name of the photo; empty for a note about the job.
    """

    name: str
    text: str


class Room:
    """Delays work until there is memory for it, so that everything that runs at the same time fits into free memory.

    Parameters
    ----------
    free : callable
        Returns the bytes that are free now.
    """

    def __init__(self, free: Callable[[], int] = free_memory) -> None:
        self._free = free
        self._taken = self._limit = 0
        self._changed = threading.Condition()

    def take(self, size: int, *, wait: bool = True) -> None:
        """Wait until ``size`` bytes are available, and reserve them; without ``wait``, reserve them at once.

        Raises
        ------
        MemoryError
            If nothing else is reserved and ``size`` exceeds the free memory.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: not self._taken or self._taken + size <= self._limit)
            if not self._taken:
                free = self._free()
                if size > max(free, ALWAYS):
                    raise MemoryError(
                        f"needs {size / 1e9:.1f} GB of memory to be read, and {free / 1e9:.1f} GB are free"
                    )
                self._limit = int(SHARE * free)
            self._taken += size

    def give_back(self, size: int) -> None:
        """Release bytes that were reserved."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()


ROOM = Room()


@dataclass
class Reading:
    """Notes and reserved memory of one photo while it is read."""

    notes: list[str] = field(default_factory=list)
    room: Room = ROOM
    taken: int = 0
    elsewhere: Callable[[int], None] | None = None

    def take(self, size: int) -> None:
        """Wait for memory and reserve it. Only the first claim of a photo waits, because readers that hold memory
        and wait for each other would never finish.
        """
        if self.elsewhere is not None:
            self.elsewhere(size)
        else:
            self.room.take(size, wait=not self.taken)
            self.taken += size


_current: ContextVar[Reading | None] = ContextVar("patchprism_reading", default=None)


@contextmanager
def reading(*, elsewhere: Callable[[int], None] | None = None) -> Iterator[Reading]:
    """Collect the notes and memory claims of a reader that runs in the block.

    Parameters
    ----------
    elsewhere : callable, optional
        Called with the number of bytes of each claim, if another process does the accounting.
    """
    listening = Reading(elsewhere=elsewhere)
    token = _current.set(listening)
    try:
        yield listening
    finally:
        _current.reset(token)
        if listening.taken:
            listening.room.give_back(listening.taken)


def admit(size: int) -> str:
    """Wait for memory on behalf of another process; the reason if there is not enough, otherwise an empty text."""
    listening = _current.get()
    try:
        if listening is not None:
            listening.take(size)
    except MemoryError as error:
        return str(error)
    return ""


def note(text: str) -> None:
    """Add a note about the photo that is being read."""
    listening = _current.get()
    if listening is not None and text not in listening.notes:
        listening.notes.append(text)


def claim(size: int, name: str) -> None:
    """Wait until there is memory to read or draw a photo.

    Parameters
    ----------
    size : int
        Bytes that this needs.
    name : str
        Name of the photo, for the error.

    Raises
    ------
    PhotoError
        If the photo would not fit into memory even alone.
    """
    listening = _current.get()
    if listening is None:
        return
    try:
        listening.take(size)
    except MemoryError as error:
        raise PhotoError(name, str(error)) from error
