"""The Ray engine: a pool of actors on a cluster, each with its own copy of the task."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from patchprism.errors import EngineError, ExtraError
from patchprism.jobs.engines.base import WorkerLost
from patchprism.support.search_path import safe_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from patchprism.jobs.engines.base import Task

CORES_PER_WORKER = 2
# Items sent to an actor at once: the one it works on, and the next.
AHEAD = 2


class RayEngine:
    """Runs tasks on actors of a Ray cluster.

    The cluster is the one that this process is already connected to, or else the one that ``RAY_ADDRESS`` names, or
    else one that is started on this machine and stopped at the end.

    Parameters
    ----------
    workers : int, optional
        Number of actors in a pool; by default one per GPU, or one per two cores if there is no GPU.

    Raises
    ------
    ExtraError
        If Ray is not installed.
    """

    name = "ray"
    local = False

    def __init__(self, *, workers: int | None = None) -> None:
        try:
            import ray
        except ImportError as error:
            raise ExtraError.of(error, "ray", "engine ray", "ray") from error
        self._ray: Any = ray
        self.workers = workers
        self._started = False
        # Actors without a network are kept between maps, because starting one takes seconds, more than a pass.
        self._kept: list[Any] = []

    def __enter__(self) -> Self:
        if not self._ray.is_initialized():
            here: dict[str, Any] = {}
            if not os.environ.get("RAY_ADDRESS"):
                # By default Ray starts a dashboard.
                cores = max(self.workers or 1, os.cpu_count() or 1)
                here = {"include_dashboard": False, "num_cpus": cores}
            try:
                with _safe_workers() as config:
                    self._ray.init(log_to_driver=False, logging_level="ERROR", job_config=config, **here)
            except Exception as error:
                if "ray[client]" in str(error):
                    raise ExtraError("ray", "an address of ray://", "ray[client]") from error
                raise EngineError(f"Ray cannot be started or reached: {error}") from error
            self._started = True
        return self

    def __exit__(self, *_: object) -> None:
        _kill(self._ray, self._kept)
        self._kept = []
        if self._started:
            self._ray.shutdown()

    def map(
        self, task: Task, items: Iterable[Any], *, attempts: int = 3
    ) -> Iterator[tuple[Any, Any | WorkerLost]]:
        """See :class:`~patchprism.jobs.engines.Engine`."""
        kept = [] if task.needs_device else self._kept
        pool = _Pool(self._ray, task, kept, *self._room(task))
        self._kept = [] if kept else self._kept  # the pool owns them now
        todo = iter(items)
        again: deque[tuple[Any, int]] = deque()
        try:
            while True:
                while pool.has_room(alone=(suspect := bool(again))):
                    try:
                        item, tried = again.popleft() if suspect else (next(todo), 0)
                    except StopIteration:
                        break
                    pool.submit(item, tried, alone=suspect)
                if not pool.running:
                    return
                for item, tried, outcome in pool.collect():
                    if isinstance(outcome, WorkerLost) and tried < attempts:
                        again.append((item, tried))
                    else:
                        yield item, outcome
        finally:
            if task.needs_device or pool.running:
                _kill(self._ray, pool.actors)  # to free the memory of the network
            else:
                self._kept += pool.actors

    def _room(self, task: Task) -> tuple[int, dict[str, Any]]:
        """Number of actors in a pool, and the resources that each requests from the cluster."""
        have = self._ray.cluster_resources()
        gpus, cores = int(have.get("GPU", 0)), int(have.get("CPU", 1))
        count = self.workers or (gpus if task.needs_device and gpus else max(1, cores // CORES_PER_WORKER))
        if not task.needs_device:
            # Without reserved cores, because the pool that runs the network may hold all of them while chunks are
            # written.
            return count, {"num_cpus": 0, "scheduling_strategy": "SPREAD"}
        per_worker = max(1, min(CORES_PER_WORKER, cores // count))
        return count, {"num_cpus": per_worker, "num_gpus": min(1.0, gpus / count) if gpus else 0}


@contextlib.contextmanager
def _safe_workers() -> Iterator[Any]:
    """The settings of a job whose workers do not import from the working directory.

    Ray puts it and the script's folder first on its workers' search path, unless the job has its own working
    directory. Ray's processes inherit the environment.
    """
    config = None
    if not os.environ.get("RAY_ADDRESS", "").startswith("ray://"):  # the job then starts on another machine
        from ray.job_config import JobConfig

        config = JobConfig()
        config._runtime_env_has_working_dir = lambda: True  # type: ignore[method-assign]
    given = os.environ.get("PYTHONPATH")
    os.environ.update(safe_environment())
    try:
        yield config
    finally:
        if given is not None:
            os.environ["PYTHONPATH"] = given


class _Pool:
    """Actors, and the items that they work on."""

    def __init__(self, ray: Any, task: Task, actors: list[Any], count: int, claim: dict[str, Any]) -> None:
        self.ray, self.count = ray, count
        self.actor_class = ray.remote(max_restarts=0, **claim)(_Worker)
        self.threads = claim["num_cpus"] if task.needs_device else 0
        self.task = [ray.put(task)]  # in a list, or Ray would unpack it for every item
        self.name = uuid.uuid4().hex
        self.actors = dict.fromkeys(actors, 0)  # number of items of each; an item alone counts as AHEAD items
        self.running: dict[
            Any, tuple[Any, int, Any, int]
        ] = {}  # reference -> item, times tried, actor, count

    def has_room(self, *, alone: bool) -> bool:
        """Whether another item can be submitted; with ``alone``, one that needs an actor to itself."""
        least = 0 if len(self.actors) < self.count else min(self.actors.values())
        return least == 0 if alone else least < AHEAD

    def submit(self, item: Any, tried: int, *, alone: bool) -> None:
        """Give an item to the least busy actor; with ``alone``, that actor gets no other item until it is done."""
        if len(self.actors) < self.count:
            self.actors[self.actor_class.remote(self.threads)] = 0
        actor = min(self.actors, key=lambda each: self.actors[each])
        counts = AHEAD if alone else 1
        self.actors[actor] += counts
        self.running[actor.do.remote(self.name, self.task, item)] = item, tried, actor, counts

    def collect(self) -> Iterator[tuple[Any, int, Any]]:
        """Wait for an item, and yield its outcome; if its worker died, also those of the worker's other items."""
        (ready, *_), _ = self.ray.wait(list(self.running), num_returns=1)
        item, tried, actor, counts = self.running[ready]
        outcome = self._outcome(ready)
        if not isinstance(outcome, WorkerLost):
            del self.running[ready]
            self.actors[actor] -= counts
            yield item, tried, outcome
            return
        # A result that was still being sent is lost when its worker dies, so the first item without a result need not
        # be the one that killed the worker. Only an item that had the worker to itself is blamed; each of the others
        # gets a worker to itself next.
        del self.actors[actor]
        for reference in [each for each, (_, _, its, _) in self.running.items() if its is actor]:
            item, tried, _, counts = self.running.pop(reference)
            outcome = self._outcome(reference)
            yield item, tried + (counts == AHEAD), outcome

    def _outcome(self, reference: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause if isinstance(error.cause, Exception) else error from error
        except (errors.RayActorError, errors.ObjectLostError) as error:
            return WorkerLost(str(error).splitlines()[0])


def _kill(ray: Any, actors: Iterable[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):
            ray.kill(actor)


class _Worker:
    """A process that keeps its task, and the expensive objects that the task made, until it gets another task."""

    def __init__(self, threads: int) -> None:
        if threads:
            import torch

            # Otherwise, two workers on one machine would each use all of its cores.
            torch.set_num_threads(threads)
        self.name = ""
        self.task: Any = None

    def do(self, name: str, task: list[Any], item: Any) -> Any:
        """The result of one item."""
        if name != self.name:
            import ray

            self.name, self.task = name, ray.get(task[0])
        (result,) = list(self.task.run(iter([item])))
        return result
