"""The local engine: tasks run in this process, one item after the other, and may use threads."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from patchprism.jobs.engines.base import Task, WorkerLost


class LocalEngine:
    """Runs tasks in this process. If the process is killed, the run ends, and can be resumed later."""

    name = "local"
    local = True

    def map(
        self, task: Task, items: Iterable[Any], *, attempts: int = 3
    ) -> Iterator[tuple[Any, Any | WorkerLost]]:
        """See :class:`~patchprism.jobs.engines.Engine`; the order is that of the items."""
        taken: deque[Any] = deque()

        def feed() -> Iterator[Any]:
            for item in items:
                taken.append(item)
                yield item

        # One run over all items, so that photos of the next shard are read ahead.
        for result in task.run(feed()):
            yield taken.popleft(), result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None
