"""Fit a prism to the photos of a source, on an engine."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import EngineError, PrismError
from patchprism.jobs.engines import WorkerLost
from patchprism.jobs.run import no_progress
from patchprism.jobs.source import SHARD, digest
from patchprism.jobs.tasks import FoldTask
from patchprism.prism.estimator import Prism
from patchprism.support.folders import LocalFolder
from patchprism.support.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patchprism.jobs.engines import Engine
    from patchprism.jobs.opened import Opened
    from patchprism.jobs.run import Run, Tell
    from patchprism.jobs.source import Source
    from patchprism.prism.passes import PassT, Walk
    from patchprism.support.folders import Folder


# Maximum number of runs of shards in a pass, for every engine. The runs determine the order of additions, and so the
# last bit of the result. Each run returns D x D numbers, which are sent and merged.
FOLDS = 256


def state_of(prism: Prism) -> dict[str, Any]:
    """Everything that determines the colours of a prism, as JSON values and arrays; not the path of its file."""
    heads = {
        name: None if (head := getattr(prism, name, None)) is None else head.to_bytes().hex()
        for name in ("head", "head_")
    }
    masks = {name: packed.hex() for name, packed in prism.masks.items()}
    return vars(prism) | {"loaded_from": "", "masks": masks} | heads


def walk_over(
    source: Source, engine: Engine, *, only: Mapping[str, int] | None = None, tell: Tell = no_progress
) -> Walk:
    """A walk for :meth:`Prism.fit_by <patchprism.Prism.fit_by>`: workers fold runs of shards, merged in order.

    Parameters
    ----------
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
                raise EngineError(f"workers died repeatedly during a pass of the fit: {result.reason}")
            waiting[start] = result
            done += stop - start
            tell(stage, done, source.n_shards)
            # In the order of the runs, not in the order in which they finish, so that sums are equal to the last bit.
            while expected is not None and expected[0] in waiting:
                merged.merge(waiting.pop(expected[0]))
                expected = next(following, None)
        return merged

    return walk


def fit(prism: Prism, opened: Opened, run: Run) -> Prism:
    """Fit a prism on all photos of a job, or on its sample."""
    ranks = None if opened.only is None else {name: rank for rank, name in enumerate(sorted(opened.only))}
    n_photos = opened.source.n_shards * SHARD if ranks is None else len(ranks)
    with run.watch("fit prism"):
        walk = walk_over(opened.source, run.engine, only=ranks, tell=run.tell)
        prism.fit_by(walk, n_photos=n_photos, masks=_masks_by_place(prism, opened.source, ranks))
    if ranks is not None:
        prism.agreements = {}  # their keys are places in the sample, not in the source
    prism.origin = opened.origin
    return prism


def _masks_by_place(prism: Prism, source: Source, ranks: Mapping[str, int] | None) -> dict[int, bytes]:
    """A prism's masks by the photos' places in the fit."""
    found = {}
    for shard in range(source.n_shards) if prism.masks else ():
        for place, row in enumerate(source.rows(shard)):
            index = shard * SHARD + place if ranks is None else ranks.get(row.name)
            if index is not None and row.name in prism.masks:
                found[index] = prism.masks[row.name]
    return found


def fit_or_resume(prism: Prism, opened: Opened, run: Run, work: Folder) -> Prism:
    """The fitted prism; it is loaded if the interrupted run had already fitted it."""
    source = opened.source
    tokens = [source.key(shard) for shard in range(source.n_shards)]
    # The options of the prism, which together with the tokens determine the fit.
    key = digest(
        __version__,
        tokens,
        state_of(prism),
        opened.origin,
        sorted(opened.only or ()),
        run.engine.name,
    )
    name = f"prism-{key}.safetensors"
    if isinstance(work, LocalFolder) and work.size(name) is not None:
        with suppress(PrismError, OSError, ValueError, AttributeError):  # damaged: fitted again
            fitted = Prism.load(work.path / name)
            said = json.loads(work.read(f"{name}.json"))
            fitted.masks = prism.masks
            fitted.agreements = {int(index): float(value) for index, value in said["agreements"].items()}
            if said["label_counts"] is not None:
                fitted.label_counts = np.array(said["label_counts"], np.int64).reshape(2, -1)
            return fitted
    fit(prism, opened, run)
    counts = None if prism.label_counts is None else prism.label_counts.tolist()
    said = {"agreements": prism.agreements, "label_counts": counts}
    work.write(f"{name}.json", json.dumps(said).encode())
    with work.staged(name) as part:
        prism.save(part)
    return prism
