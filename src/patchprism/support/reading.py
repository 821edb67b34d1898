"""What a reader of photos reports besides the pixels: notes, and the memory that it is about to use.

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

# Photos are read at once while together they take at most this share of the memory that is free.
SHARE = 0.5
# Memory that reading, framing or drawing a photo takes at its peak, in bytes per pixel: measured 14.2 for a PNG of 179
# megapixels in the reader's process, and 3.1 in the one that asked.
BYTES_A_PIXEL = 18
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
    """Admits work by the memory that it takes, so that all of it together fits into what is free.

    Parameters
    ----------
    free : callable
        Gives the bytes that are free now.
    """

    def __init__(self, free: Callable[[], int] = free_memory) -> None:
        self._free = free
        self._taken = self._limit = 0
        self._changed = threading.Condition()

    def take(self, size: int, *, wait: bool = True) -> None:
        """Wait until so many bytes may be taken; without ``wait`` they are only counted.

        Raises
        ------
        MemoryError
            If they are more than is free while nothing else is at work.
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
        """Say that they are free again."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()


ROOM = Room()


@dataclass
class Reading:
    """One photo's reading."""

    notes: list[str] = field(default_factory=list)
    room: Room = ROOM
    taken: int = 0
    elsewhere: Callable[[int], None] | None = None

    def take(self, size: int) -> None:
        """Wait for memory. Only the first claim waits: one that holds some must not wait for others that do."""
        if self.elsewhere is not None:
            self.elsewhere(size)
        else:
            self.room.take(size, wait=not self.taken)
            self.taken += size


_current: ContextVar[Reading | None] = ContextVar("patchprism_reading", default=None)


@contextmanager
def reading(*, elsewhere: Callable[[int], None] | None = None) -> Iterator[Reading]:
    """Listen to a reader while the block runs.

    Parameters
    ----------
    elsewhere : callable, optional
        Told of the bytes that are wanted, where another process keeps the books.
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
    """Wait for memory on behalf of another process; why there is none, or nothing."""
    listening = _current.get()
    try:
        if listening is not None:
            listening.take(size)
    except MemoryError as error:
        return str(error)
    return ""


def note(text: str) -> None:
    """Say something of the photo that is being read."""
    listening = _current.get()
    if listening is not None and text not in listening.notes:
        listening.notes.append(text)


def claim(size: int, name: str) -> None:
    """Wait until a photo that takes so many bytes may be read or drawn.

    Raises
    ------
    PhotoError
        If it would not fit into the memory even alone.
    """
    listening = _current.get()
    if listening is None:
        return
    try:
        listening.take(size)
    except MemoryError as error:
        raise PhotoError(name, str(error)) from error
