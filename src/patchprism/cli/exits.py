"""The exit codes of the commands."""

EXIT_FAILED = 1
EXIT_USAGE = 2  # used by Typer
EXIT_SOME_PHOTOS_FAILED = 3
EXIT_BUG = 70
EXIT_INTERRUPTED = 130
