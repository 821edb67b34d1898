"""Read photos in separate processes, so that a photo that crashes the decoder does not end the job."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from patchprism.errors import PhotoError
from patchprism.support.reading import admit, note, reading
from patchprism.support.search_path import safe_environment, safe_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# The search path is passed as arguments, because Python's default begins with the working directory.
_START = "import sys; sys.path[:] = sys.argv[1:]; from patchprism.photos.isolated import serve; serve()"


class IsolatedReader:
    """Calls a given reader in separate processes, one for each thread that reads photos.

    A process is started when it is first needed. It ends with the ``with`` block, or when this process ends for any
    reason.

    Parameters
    ----------
    reader : callable
        A name -> (H, W, 3) uint8. It must be picklable. Its exceptions are raised here.
    fetch : callable, optional
        A name -> the value that is passed to the reader instead of the name. It is called in this process, which may
        have credentials and file systems that the other processes do not have.
    """

    def __init__(
        self, reader: Callable[[Any], NDArray[np.uint8]], *, fetch: Callable[[str], Any] | None = None
    ) -> None:
        self._pickled = pickle.dumps(reader)
        self._command = [sys.executable, "-P", "-c", _START, *safe_path(reader)]
        self._fetch = fetch
        self._own = threading.local()
        self._all: list[_Child] = []
        self._lock = threading.Lock()

    def __call__(self, name: str) -> NDArray[np.uint8]:
        """The photo, (H, W, 3) uint8.

        Raises
        ------
        PhotoError
            If the photo cannot be read, or crashed the process that read it.
        """
        wanted = name if self._fetch is None else self._fetch(name)
        child: _Child | None = getattr(self._own, "child", None)
        if child is None:
            child = self._own.child = _Child(self._command, self._pickled)
            with self._lock:
                self._all.append(child)
        try:
            return child.read(wanted)
        except _Ended as error:
            self._own.child = None
            with self._lock:
                self._all.remove(child)
            raise PhotoError(name, f"crashed the process that was reading it ({child.end()})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for child in self._all:
                child.end()
            self._all.clear()
        self._own = threading.local()


def isolated(
    reader: Callable[[str], NDArray[np.uint8]],
) -> AbstractContextManager[Callable[[str], NDArray[np.uint8]]]:
    """An :class:`IsolatedReader`, or the reader itself if it cannot be pickled."""
    try:
        return IsolatedReader(reader)
    except (pickle.PicklingError, AttributeError, TypeError):  # for example, a nested function
        return nullcontext(reader)


class _Ended(Exception):
    """The process ended before it sent the photo."""


class _Child:
    """A process that reads photos."""

    def __init__(self, command: list[str], reader: bytes) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=safe_environment()
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._to.write(reader)

    def read(self, wanted: Any) -> NDArray[np.uint8]:
        try:
            self._send(wanted)
            answer = pickle.load(self._from)
            while isinstance(answer, int):  # number of bytes that the reader is about to use
                self._send(admit(answer))
                answer = pickle.load(self._from)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise _Ended from error
        if isinstance(answer, Exception):
            raise answer
        shape, notes = answer
        for text in notes:
            note(text)
        photo = np.empty(shape, np.uint8)
        view = photo.data.cast("B")
        while len(view):
            count = self._from.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise _Ended
            view = view[count:]
        return photo

    def _send(self, value: Any) -> None:
        pickle.dump(value, self._to)
        self._to.flush()

    def end(self) -> str:
        """Make the process end; returns its signal or exit code."""
        for pipe in (self._to, self._from):
            with suppress(OSError):  # buffered data cannot be sent if the process has ended
                pipe.close()
        code = self._process.wait()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve() -> None:
    """The main loop of the process: receives a reader, then requests, and sends photos."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C, which also arrives here
    # Output that a decoder prints must not be mixed with the photos.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    try:
        reader = pickle.load(source)
        while True:
            _answer(out, source, reader, pickle.load(source))
    except (EOFError, BrokenPipeError):
        os._exit(0)


def _answer(
    out: IO[bytes], source: IO[bytes], reader: Callable[[Any], NDArray[np.uint8]], wanted: Any
) -> None:
    def ask(size: int) -> None:
        out.write(pickle.dumps(size))
        out.flush()
        refused = pickle.load(source)
        if refused:
            raise MemoryError(refused)

    photo: NDArray[np.uint8] | None = None
    try:
        with reading(elsewhere=ask) as heard:
            photo = np.ascontiguousarray(reader(wanted))
        answer = pickle.dumps((photo.shape, heard.notes))
    except Exception as error:
        # Every error is raised where the photo was requested.
        try:
            answer = pickle.dumps(error)
        except Exception:
            answer = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    out.write(answer)
    if photo is not None and photo.size:
        out.write(photo.data)
    out.flush()
