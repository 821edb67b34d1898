"""``python -m patchprism``: the command line."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        # Python puts the working directory first on the search path. Remove it before anything is imported.
        sys.path.pop(0)
    from patchprism.cli import entry

    entry()
