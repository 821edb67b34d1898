"""``python -m patchprism``: the command line."""

from patchprism.search_path import leave_working_directory

if __name__ == "__main__":
    # Python has put the working directory first; it is left before NumPy and the rest are looked for.
    leave_working_directory()
    from patchprism.cli import entry

    entry()
