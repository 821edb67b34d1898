"""Threads that hand work on in order, a bounded amount at a time; and who may use the cores."""

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


class Turns:
    """The network's turns, and those of the threads around it.

    A network on a CPU divides every operator among all cores and waits for the slowest: a core that is lent to a
    codec for a millisecond costs that millisecond on each of them. So there they take turns: frame by frame the
    threads around wait while the network is at work, and it waits until they have put down what they hold.

    Parameters
    ----------
    apart : bool
        Whether they take turns. On an accelerator nobody waits.
    """

    def __init__(self, *, apart: bool) -> None:
        self.apart = apart
        self._changed = threading.Condition()
        self._at_work, self._network = 0, False

    @contextmanager
    def network(self) -> Iterator[None]:
        """For the network; one thread at a time."""
        if not self.apart:
            yield
            return
        with self._changed:
            self._network = True
            self._changed.wait_for(lambda: not self._at_work)
        try:
            yield
        finally:
            with self._changed:
                self._network = False
                self._changed.notify_all()

    @contextmanager
    def around(self) -> Iterator[None]:
        """For everything else, a frame at a time; never held while waiting for another thread."""
        if not self.apart:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._network)
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()


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
            # A generator is closed where it ran: it may hold a file that its own thread opened.
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
