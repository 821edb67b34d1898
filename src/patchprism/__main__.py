"""``python -m patchprism``: the command line."""

from patchprism.cli import main

if __name__ == "__main__":
    main()
