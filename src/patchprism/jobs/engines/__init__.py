"""Engines, which run the shards of a job: ``local`` in this process, ``ray`` on a cluster."""

from __future__ import annotations

from patchprism.errors import OptionError
from patchprism.jobs.engines.base import Engine, Task, WorkerLost
from patchprism.support import checks

# More workers than any cluster has cores.
MAX_WORKERS = 100_000
ENGINES = ("local", "ray")

__all__ = ["ENGINES", "Engine", "Task", "WorkerLost", "open_engine"]


def open_engine(name: str = "local", *, workers: int | None = None) -> Engine:
    """An engine by name; use it in a ``with`` block.

    Parameters
    ----------
    name : {"local", "ray"}
    workers : int, optional
        Number of workers of Ray; by default one per GPU, or one per two cores if there is no GPU.

    Raises
    ------
    OptionError
        If there is no such engine, or ``workers`` is not a positive number, or given for ``local``.
    ExtraError
        If Ray is not installed.
    """
    if checks.choice("engine", name, allowed=ENGINES) == "local":
        if workers is not None:
            raise OptionError(
                "workers is only for the engine ray; the local engine uses this process", option="workers"
            )
        from patchprism.jobs.engines.local import LocalEngine

        return LocalEngine()
    if workers is not None:
        workers = checks.integer("workers", workers, low=1, high=MAX_WORKERS)
    from patchprism.jobs.engines.ray import RayEngine

    return RayEngine(workers=workers)
