"""Threads that pass on work in order, through queues of bounded size."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from patchprism.support.threads import leave_the_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")

_END = object()
_POLL_S = 0.1  # seconds between checks whether the other end has stopped


class _Line:
    """A queue between two threads, each of which learns when the other one fails."""

    def __init__(self, size: int) -> None:
        self.queue: queue.Queue[Any] = queue.Queue(size)
        self.closed = threading.Event()
        self.error: BaseException | None = None

    def put(self, item: Any) -> bool:
        """Put an item into the queue, waiting for room; False if the other end has stopped."""
        while not self.closed.is_set():
            try:
                self.queue.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False


@contextmanager
def read_ahead(items: Iterable[T], size: int) -> Iterator[Iterator[T]]:
    """Iterate over items that another thread produces, at most ``size`` in advance; its exceptions are raised here.

    Torch's operators use one thread in it, so that it leaves the cores to the network.
    """
    line = _Line(size)

    def run() -> None:
        iterator = iter(items)
        try:
            leave_the_cores()
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

    def received() -> Iterator[T]:
        while (item := line.queue.get()) is not _END:
            yield item
        if line.error is not None:
            raise line.error

    thread = threading.Thread(target=run, name="patchprism-decode", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        line.closed.set()
        thread.join()


@contextmanager
def write_behind(write: Callable[[T], None], size: int) -> Iterator[Callable[[T], None]]:
    """A function that passes items to another thread, which writes them in order; at most ``size`` of them wait.

    At the end of the block, all items have been written. If writing fails, the next call or the end of the block
    raises the exception.
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

    def submit(item: T) -> None:
        if not line.put(item) and line.error is not None:
            raise line.error

    thread = threading.Thread(target=run, name="patchprism-encode", daemon=True)
    thread.start()
    try:
        yield submit
    except BaseException:
        line.closed.set()
        raise
    finally:
        while thread.is_alive():
            try:
                line.queue.put(_END, timeout=_POLL_S)
                thread.join()
            except queue.Full:
                continue
    if line.error is not None:
        raise line.error
