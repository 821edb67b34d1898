"""The command line: thin, and the only part of PatchPrism that knows about a terminal."""

from __future__ import annotations

import gc
import os
import sys

EXIT_FAILED = 1
EXIT_USAGE = 2  # Typer's own
EXIT_SOME_PHOTOS_FAILED = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


def entry() -> None:
    """What the shell starts: :func:`main` in a process of its own.

    Importing torch makes a million objects that live to the end. Python's collector walks them many times on
    the way in and once more on the way out: 0.5 s of the 1.7 s that starting and leaving with torch take.
    """
    from patchprism.batching import keep_memory

    gc.set_threshold(100_000, 20, 20)
    keep_memory()
    try:
        main()
    finally:
        gc.freeze()


def main() -> None:
    """Run the command line; every failure is one line on standard error and an exit code that is not 0."""
    from patchprism.cli.app import app
    from patchprism.errors import PatchPrismError

    try:
        app(prog_name="patchprism")
    except PatchPrismError as error:
        _fail(str(error), EXIT_FAILED)
    except SystemExit as stop:
        if stop.code == EXIT_INTERRUPTED:  # Typer's way of passing Ctrl-C on, without a word
            _fail("interrupted", EXIT_INTERRUPTED)
        raise
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more while shutting down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if os.environ.get("PATCHPRISM_DEBUG"):
            raise
        _fail(
            f"{type(error).__name__}: {error} (a defect of PatchPrism; PATCHPRISM_DEBUG=1 shows where)",
            EXIT_BUG,
        )


def _fail(message: str, code: int) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
