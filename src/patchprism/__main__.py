"""``python -m patchprism``: the command line."""

from patchprism.cli import entry

if __name__ == "__main__":
    entry()
