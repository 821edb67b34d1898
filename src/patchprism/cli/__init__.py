"""The command line: thin, and the only part of PatchPrism that knows about a terminal."""

from __future__ import annotations

import atexit
import codecs
import errno
import gc
import io
import os
import sys
from typing import NoReturn

from patchprism.cli.exits import EXIT_BUG, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE


def entry() -> None:
    """Run :func:`main` as the whole of its own process: the entry point of the shell.

    Importing torch creates about a million objects that live until the process ends. Python's garbage collector
    would walk them many times while they are created, and the interpreter would take them down one by one at the
    end: together 0.5 s of the 1.7 s that starting and leaving with torch take. So the collector waits for that
    number of objects, and the process ends without the interpreter's clean-up.
    """
    gc.set_threshold(1_000_000, 20, 20)
    leaving = _Leaving()
    # Handlers run in reverse order, so that this one runs after all others and after all threads have ended.
    atexit.register(leaving.end_process)
    try:
        _open_streams()
        from patchprism.support.search_path import leave_working_directory

        leave_working_directory()
        from patchprism.support.memory import keep_memory
        from patchprism.support.threads import spin_less

        keep_memory()
        spin_less()
        main()
        leaving.code = 0
    except KeyboardInterrupt:  # before Typer was there to take it
        leaving.code = EXIT_INTERRUPTED
        _stop()
    except SystemExit as stop:
        leaving.code = stop.code
        raise
    finally:
        gc.freeze()


class _Leaving:
    """Ends the process once Python has called all exit handlers.

    Attributes
    ----------
    code : int, str or None
        As in ``sys.exit``; anything but a number leaves the end of the process to Python.
    """

    def __init__(self) -> None:
        self.code: int | str | None = "unknown"

    def end_process(self) -> None:
        """Flush the standard streams and end the process."""
        code = 0 if self.code is None else self.code
        if not isinstance(code, int):
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):  # Python reports it
            return
        os._exit(code)


def main() -> None:
    """Run the command line; every failure is one line on standard error and an exit code that is not 0."""
    from patchprism.cli.app import app
    from patchprism.errors import PatchPrismError

    _refuse_empty(sys.argv[1:])
    try:
        app(prog_name="patchprism")
    except PatchPrismError as error:
        from patchprism.cli.flags import named_by_flags

        _fail(named_by_flags(error), EXIT_FAILED)
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED:  # how Typer passes Ctrl-C on, without a message
            _stop()
        raise
    except BrokenPipeError:
        # The reader of our output has closed it.
        _say_no_more()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is not None:  # a name that is too long, a folder that is not ours to read, ...
            reason = (error.strerror or type(error).__name__).lower()
            _fail(f"{os.fsdecode(error.filename)}: {reason}", EXIT_FAILED)
        if error.errno != errno.ENOSPC:
            _defect(error)
        # Files are written by writers of ours, which name them.
        _say_no_more()
        _fail("cannot print the results: no space left on device", EXIT_FAILED)
    except Exception as error:
        if _lacks_memory(error):
            _fail("out of memory; use a smaller --size or --batch-size", EXIT_FAILED)
        _defect(error)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse empty arguments: they come from shell variables that are not set, and "" as a path is this folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (argument.startswith("--") and equals and not value):
            name = option or (before if before.startswith("-") else "an argument")
            _fail(f"{name} is empty; perhaps a shell variable is not set", EXIT_USAGE)


def _lacks_memory(error: Exception) -> bool:
    # torch has a class of its own for GPUs, and none for main memory.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def _open_streams() -> None:
    """Have standard streams that take anything: a job must not fail for where its words go."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed, and the next file to be opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The bytes of a path as they are, for whoever opens it; elsewhere what cannot be spelt is a "?".
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def _say_no_more() -> None:
    # Python would complain once more while shutting down.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _defect(error: Exception) -> NoReturn:
    if os.environ.get("PATCHPRISM_DEBUG"):
        raise error
    _fail(
        f"{type(error).__name__}: {error} (a bug in PatchPrism; set PATCHPRISM_DEBUG=1 to see where)",
        EXIT_BUG,
    )


def _stop() -> NoReturn:
    """Exit because the user interrupted the command, which is not an error."""
    print("stopped", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    from patchprism.cli.console import shown

    # A value of thousands of letters would hide the message.
    words = [word if len(word) <= 500 else f"{word[:200]}...{word[-50:]}" for word in message.split()]
    print(f"error: {shown(' '.join(words))}", file=sys.stderr)
    sys.exit(code)
