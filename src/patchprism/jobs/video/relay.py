"""Threads that hand work on in order, a bounded amount at a time."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_END = object()
_PATIENCE = 0.1  # seconds between looks at whether anybody still waits at the other end


class _Line:
    """A queue whose ends learn of each other's failure."""

    def __init__(self, size: int) -> None:
        self.queue: queue.Queue[Any] = queue.Queue(size)
        self.closed = threading.Event()
        self.error: BaseException | None = None

    def put(self, item: Any) -> bool:
        """Hand on an item, waiting for room; False once the other end has gone."""
        while not self.closed.is_set():
            try:
                self.queue.put(item, timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False


@contextmanager
def read_ahead(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """The items, made in a thread of their own, at most ``size`` in advance; its failure is raised here."""
    line = _Line(size)

    def run() -> None:
        iterator = iter(items)
        try:
            for item in iterator:
                if not line.put(item):
                    break
        except BaseException as error:
            line.error = error
        finally:
            # A generator is closed in the thread where it ran, because it may hold a file that this thread opened.
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            line.put(_END)

    def taken() -> Iterator[T]:
        while (item := line.queue.get()) is not _END:
            yield item
        if line.error is not None:
            raise line.error

    thread = threading.Thread(target=run, name="patchprism-decode", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        line.closed.set()
        thread.join()


@contextmanager
def write_behind(write: Callable[[T], None], size: int) -> Iterator[Callable[[T], None]]:
    """A function that has items written in a thread of their own, in order, at most ``size`` of them waiting.

    All is written once the block has ended well. A failure of the writing is raised by the next call, or at
    the end of the block.
    """
    line = _Line(size)

    def run() -> None:
        try:
            while (item := line.queue.get()) is not _END:
                if not line.closed.is_set():
                    write(item)
        except BaseException as error:
            line.error = error
            line.closed.set()

    def give(item: T) -> None:
        if not line.put(item) and line.error is not None:
            raise line.error

    thread = threading.Thread(target=run, name="patchprism-encode", daemon=True)
    thread.start()
    try:
        yield give
    except BaseException:
        line.closed.set()
        raise
    finally:
        while thread.is_alive():
            try:
                line.queue.put(_END, timeout=_PATIENCE)
                thread.join()
            except queue.Full:
                continue
    if line.error is not None:
        raise line.error
