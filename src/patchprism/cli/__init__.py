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
    """The entry point of the shell: run :func:`main` in its own process.

    Importing torch creates about a million objects that live until the process ends. Python's garbage collector
    would scan them many times while they are created, and the interpreter would free them one by one at the end.
    Together this takes 0.5 s of the 1.7 s of a start and exit with torch. Therefore, the collector waits for a million
    new objects, and the process ends without the interpreter's clean-up, unless exit handlers are registered already.
    """
    gc.set_threshold(1_000_000, 20, 20)
    process_exit = _Exit()
    # Handlers run in reverse order, so that this one runs after all others and after all threads have ended. If there
    # are some already, such as those of tools that measure coverage, it would keep them from running.
    if not atexit._ncallbacks():
        atexit.register(process_exit.end_process)
    try:
        _open_streams()
        from patchprism.support.search_path import leave_working_directory

        leave_working_directory()
        from patchprism.support.memory import keep_memory
        from patchprism.support.threads import spin_less

        keep_memory()
        spin_less()
        main()
        process_exit.code = 0
    except KeyboardInterrupt:  # before Typer handles it
        process_exit.code = EXIT_INTERRUPTED
        _stop()
    except SystemExit as stop:
        process_exit.code = stop.code
        raise
    finally:
        gc.freeze()


class _Exit:
    """Ends the process once Python has called all exit handlers.

    Attributes
    ----------
    code : int, str or None
        As in ``sys.exit``. With a string, the end of the process is left to Python.
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
        _discard_output()
        sys.exit(EXIT_FAILED)
    except OSError as error:
        if error.filename is not None:  # a name that is too long, a folder without permission, ...
            reason = (error.strerror or type(error).__name__).lower()
            _fail(f"{os.fsdecode(error.filename)}: {reason}", EXIT_FAILED)
        if error.errno != errno.ENOSPC:
            _defect(error)
        # The code that writes files reports their errors itself, so this one is about the standard output.
        _discard_output()
        _fail("cannot print the results: no space left on device", EXIT_FAILED)
    except Exception as error:
        if _lacks_memory(error):
            _fail("out of memory; use a smaller --size or --batch-size", EXIT_FAILED)
        _defect(error)


def _refuse_empty(arguments: list[str]) -> None:
    """Refuse empty arguments: unset shell variables cause them, and as a path "" means the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        if not argument or (argument.startswith("--") and equals and not value):
            name = option or (before if before.startswith("-") else "an argument")
            _fail(f"{name} is empty; perhaps a shell variable is not set", EXIT_USAGE)


def _lacks_memory(error: Exception) -> bool:
    # torch has an exception for the memory of GPUs, but none for main memory.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    )


def _open_streams() -> None:
    """Make sure that the standard streams exist and accept any text, so that no job fails because of its messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file to be opened would get its number
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        # In UTF-8, a path is printed with its exact bytes, so that other programs can open it. In other encodings, "?"
        # replaces characters that cannot be encoded.
        utf8 = codecs.lookup(sys.stdout.encoding).name == "utf-8"
        sys.stdout.reconfigure(errors="surrogateescape" if utf8 else "replace")


def _discard_output() -> None:
    # Otherwise Python would report the error again at the end of the process.
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

    # A value of thousands of characters would hide the message.
    words = [word if len(word) <= 500 else f"{word[:200]}...{word[-50:]}" for word in message.split()]
    print(f"error: {shown(' '.join(words))}", file=sys.stderr)
    sys.exit(code)
