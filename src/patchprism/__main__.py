"""``python -m patchprism``: the command line."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # The working directory, which Python has put first; it is left before anything else is looked for.
        sys.path.pop(0)
    from patchprism.cli import entry

    entry()
