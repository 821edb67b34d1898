"""Where processes of ours import from: never from the working directory, which may be a folder of anybody's files.

Python puts the working directory, or the folder of the script that runs, first on its search path, and takes an
empty entry of PYTHONPATH for the working directory. A data set that holds a ``numpy.py`` would then be executed.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def safe_path(guest: Any = None) -> list[str]:
    """The search path for a process that this one starts.

    It is this process's, without the working directory and the folder of the script that runs. What PYTHONPATH
    names by a name, and the folder where this package lies, stay.

    Parameters
    ----------
    guest : object, optional
        A function or instance that the process is sent. The folder that its module was imported from comes last, so
        that nothing in it hides a module from elsewhere.
    """
    home = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    kept = [entry for entry in sys.path if entry and (_same(entry, home) or not _is_implied(entry))]
    if not any(_same(entry, home) for entry in kept):
        kept.append(home)
    name = getattr(guest, "__module__", None) or type(guest).__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file and name.partition(".")[0] not in ("patchprism", "builtins"):
        folder = os.path.dirname(os.path.realpath(file))
        package = os.path.basename(file).startswith("__init__.")
        for _ in range(name.count(".") + package):
            folder = os.path.dirname(folder)
        kept.append(folder)
    return list(dict.fromkeys(kept))


def leave_working_directory() -> None:
    """Take the working directory off this process's search path, and out of what its children inherit.

    For processes that are our own, before anything heavy is imported.
    """
    here = os.path.realpath(os.curdir)
    named = _named()
    sys.path[:] = [
        entry for entry in sys.path if entry in named or (entry and os.path.realpath(entry) != here)
    ]
    if "PYTHONPATH" in os.environ:
        os.environ.update(safe_environment())


def safe_environment() -> dict[str, str]:
    """The environment for a process that this one starts: PYTHONPATH without empty entries."""
    environment = dict(os.environ)
    if "PYTHONPATH" in environment:
        environment["PYTHONPATH"] = os.pathsep.join(_named())
    return environment


def _named() -> list[str]:
    """The entries of PYTHONPATH that name a folder."""
    return [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]


def _is_implied(entry: str) -> bool:
    """Whether an entry is Python's own doing: the working directory, or the folder of the script that runs."""
    if any(_same(entry, named) for named in _named()):
        return False
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return _same(entry, os.curdir) or (
        script is not None and _same(entry, os.path.dirname(script) or os.curdir)
    )


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
