"""Fitting a prism over a source, on an engine."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from patchprism.errors import EngineError
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.source import SHARD
from patchprism.jobs.tasks import FoldTask

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from patchprism.jobs.engines import Engine
    from patchprism.jobs.source import Source
    from patchprism.prism.estimator import Prism
    from patchprism.prism.passes import PassT, Walk

    Tell = Callable[[str, int, int | None], None]
    Reader = Callable[[str], NDArray[np.uint8]]


# Passes are folded in at most so many runs of shards, whatever the engine: the runs decide the order of
# additions, and with it the last bit. Each gives D x D numbers, which is what travels and is merged.
FOLDS = 256


def walk_over(
    source: Source, engine: Engine, *, only: Mapping[str, int] | None = None, tell: Tell = nobody
) -> Walk:
    """A walk for :meth:`Prism.fit_by <patchprism.Prism.fit_by>`: workers fold runs of shards, merged in order.

    Parameters
    ----------
    source : Source
    engine : Engine
    only : mapping of str to int, optional
        Names of the photos to fit on, and their places among them; all by default.
    tell : callable
        Called with the stages ``fit, pass 1`` and so on, and shards.
    """
    step = max(1, -(-source.n_shards // FOLDS))
    runs = [(start, min(start + step, source.n_shards)) for start in range(0, source.n_shards, step)]

    passes = itertools.count(1)

    def walk(make: Callable[[], PassT]) -> PassT:
        stage = f"fit, pass {next(passes)}"
        tell(stage, 0, source.n_shards)
        done = 0
        merged = make()
        waiting: dict[int, PassT] = {}
        following = iter(runs)
        expected = next(following, None)
        for (start, stop), result in engine.map(FoldTask(make, source, only), runs):
            if isinstance(result, WorkerLost):
                raise EngineError(f"workers died again and again over a pass: {result.reason}")
            waiting[start] = result
            done += stop - start
            tell(stage, done, source.n_shards)
            # In the runs' order, whatever the order of their ends: sums are the same to the last bit.
            while expected is not None and expected[0] in waiting:
                merged.merge(waiting.pop(expected[0]))
                expected = next(following, None)
        return merged

    return walk


def fit(
    prism: Prism,
    source: Source,
    engine: Engine,
    origin: dict[str, Any],
    *,
    only: frozenset[str] | None = None,
    tell: Tell = nobody,
) -> Prism:
    """Fit a prism on all photos of a source, or on some."""
    ranks = None if only is None else {name: rank for rank, name in enumerate(sorted(only))}
    n_photos = source.n_shards * SHARD if ranks is None else len(ranks)
    prism.fit_by(walk_over(source, engine, only=ranks, tell=tell), n_photos=n_photos)
    if ranks is not None:
        prism.agreements = {}  # by places in the sample, which are not those in the source
    prism.origin = origin
    return prism
