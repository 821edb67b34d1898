"""Engines: where the shards of a job are worked on. ``local`` is this process, ``ray`` a cluster."""

from __future__ import annotations

from patchprism.engines.base import Engine, Task, WorkerLost
from patchprism.errors import OptionError

ENGINES = ("local", "ray")

__all__ = ["ENGINES", "Engine", "Task", "WorkerLost", "open_engine"]


def open_engine(name: str = "local", *, workers: int | None = None) -> Engine:
    """An engine by name; use it in a ``with`` block.

    Parameters
    ----------
    name : {"local", "ray"}
    workers : int, optional
        Ray: how many work at once; by default one a GPU, or one for every two cores where there is none.

    Raises
    ------
    OptionError
        If there is no such engine, or ``workers`` is not a positive number, or given for ``local``.
    ExtraError
        If Ray is not installed.
    """
    if name not in ENGINES:
        raise OptionError(f"engine must be one of {', '.join(ENGINES)}, got {name!r}")
    if name == "local":
        if workers is not None:
            raise OptionError("workers is for --engine ray; the local engine uses this process")
        from patchprism.engines.local import LocalEngine

        return LocalEngine()
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be at least 1, got {workers}")
    from patchprism.engines.ray import RayEngine

    return RayEngine(workers=workers)
