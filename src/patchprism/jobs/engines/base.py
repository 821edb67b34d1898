"""The interface of engines: one method, ``map``. A task defines the work; an engine decides where it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Task(Protocol):
    """Work on items, one result an item.

    A task can be pickled; a worker gets a copy of its own and keeps it for all the items it is given, so
    what is dear to make (a network) is made in the first ``run`` and kept.

    Attributes
    ----------
    needs_device : bool
        Whether the task runs a network; such tasks get one GPU each if there are any.
    """

    @property
    def needs_device(self) -> bool:
        """Whether the task runs the network."""

    def run(self, items: Iterable[Any], /) -> Iterator[Any]:
        """The results, in the order of the items; the next item may be taken before a result is given."""


@dataclass(frozen=True)
class WorkerLost:
    """In the place of a result: the workers that had the item died, every one of them."""

    reason: str


class Engine(Protocol):
    """Runs a task over items, here or elsewhere.

    Attributes
    ----------
    local : bool
        Whether tasks run in this process, and can be given what it has loaded already.
    """

    name: str
    local: bool

    def map(
        self, task: Task, items: Iterable[Any], *, attempts: int = 3
    ) -> Iterator[tuple[Any, Any | WorkerLost]]:
        """Every item with its result, in the order in which they are done.

        Items are taken a bounded number in advance. What a task raises is raised here, and ends the walk.
        A worker that dies is replaced, and its items are given to others. An item is given up after ``attempts``
        deaths of workers that had no other item, so that it is never blamed for another item's fault.
        """

    def __enter__(self) -> Self:
        """Start what there is to start."""

    def __exit__(self, *_: object) -> None:
        """Give back what was started."""
