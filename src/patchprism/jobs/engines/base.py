"""The interface of engines: one method, ``map``. A task defines the work; an engine decides where it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Task(Protocol):
    """Work on items, with one result per item.

    A task can be pickled. Each worker gets a copy and keeps it for all of its items, so a task creates expensive
    objects (a network) in its first ``run`` and keeps them.

    Attributes
    ----------
    needs_device : bool
        Whether the task runs a network; such tasks get one GPU each if there are any.
    """

    @property
    def needs_device(self) -> bool:
        """Whether the task runs the network."""

    def run(self, items: Iterable[Any], /) -> Iterator[Any]:
        """The results, in the order of the items; it may read the next items before it yields a result."""


@dataclass(frozen=True)
class WorkerLost:
    """Takes the place of a result if every worker that had the item died."""

    reason: str


class Engine(Protocol):
    """Runs a task over items, in this process or elsewhere.

    Attributes
    ----------
    local : bool
        Whether tasks run in this process, and can use what it has already loaded.
    """

    name: str
    local: bool

    def map(
        self, task: Task, items: Iterable[Any], *, attempts: int = 3
    ) -> Iterator[tuple[Any, Any | WorkerLost]]:
        """Every item with its result, in the order in which the results are ready.

        Only a bounded number of items is read in advance. An error of the task is raised here, and ends the iteration.
        A worker that dies is replaced, and other workers get its items. An item is given up after ``attempts``
        deaths of workers that had no other item, so that it is never blamed for another item's fault.
        """

    def __enter__(self) -> Self:
        """Start the engine."""

    def __exit__(self, *_: object) -> None:
        """Stop everything that was started."""
