"""Keep the working directory, which may contain files of anyone, off the search path of the processes that we start.

Python puts the working directory, or the folder of the running script, first on its search path. An empty entry of
PYTHONPATH also means the working directory. If a data set contained a ``numpy.py``, Python would run it.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def safe_path(guest: Any = None) -> list[str]:
    """The search path for a process that this one starts.

    This is the search path of this process, without the working directory and the folder of the running script.
    Folders that PYTHONPATH names, and the folder that contains this package, stay.

    Parameters
    ----------
    guest : object, optional
        A function or instance that is sent to the process. The folder that its module was imported from comes last,
        so that it cannot hide other modules.
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
    """Remove the working directory from the search path of this process and of its child processes.

    Call it only in processes that we start, before anything heavy is imported.
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
    """Whether Python itself added an entry: the working directory, or the folder of the running script."""
    if any(_same(entry, named) for named in _named()):
        return False
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    return _same(entry, os.curdir) or (
        script is not None and _same(entry, os.path.dirname(script) or os.curdir)
    )


def _same(one: str, other: str) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
