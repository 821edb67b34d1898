"""What the jobs share: tokens of what was given, by shards, and what came of a job."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patchprism.backbones import WeightsOrigin
from patchprism.errors import OptionError, PatchPrismError, StoreError
from patchprism.features.store import StoredFeatures
from patchprism.jobs.inputs import sampled
from patchprism.jobs.settings import TOKEN_DEFAULTS, Settings, Stopwatch
from patchprism.jobs.shards import Lost, Shards, StoreShards
from patchprism.jobs.work import Extraction, failures_of, n_shards, notes_of, open_network, remembered_batch
from patchprism.photos.images import value_range
from patchprism.support.memory import give_back_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from patchprism.backbones import Backbone
    from patchprism.jobs.engines import Engine
    from patchprism.jobs.shards import Source
    from patchprism.jobs.work import Held, Network, Reader, Tell
    from patchprism.photos.framing import Framing
    from patchprism.prism.estimator import Prism
    from patchprism.support.folders import Folder
    from patchprism.support.reading import Note


@dataclass(kw_only=True)
class Outcome:
    """What came of a job.

    Attributes
    ----------
    n_photos, n_patches : int
        Done, without those that failed.
    failures : list of Lost
        Photos that could not be done, and why.
    model, weights_source : str
    seconds : dict
        Time spent in each stage, in this run.
    prism : Prism or None
    fitted_here : bool
    missing : int
        Photos of a store that were not there any more where one was to be drawn.
    unasked : list of str
        Buckets and hosts of those that lie at addresses which are not to be asked.
    already : bool
        Whether the store was there already, whole and of the same photos.
    rows : list of dict
        The first photos, as ``report.json`` has them.
    hints : list of str
        What a person should know before believing the pictures.
    notes : list of Note
        What photos hold that is not read, and the like.
    """

    n_photos: int
    n_patches: int
    failures: list[Lost]
    model: str
    weights_source: str
    seconds: dict[str, float]
    prism: Prism | None = None
    fitted_here: bool = False
    missing: int = 0
    unasked: list[str] = field(default_factory=list)
    already: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@contextmanager
def tidied(work: Folder, held: Held) -> Iterator[None]:
    """Take the work away after a failure that leaves nothing to take up: tokens are kept for another threshold, say.

    For use within ``working``: the work of a run that is still at it is not ours to take away. What is there
    decides, and not what has failed.
    """
    try:
        yield
    except PatchPrismError:
        shards = Shards(work, 0, "float32")
        tables = (shards.load(shard) for shard in sorted(shards.committed()))
        if not any(table is not None and table.photos for table in tables):
            held.end()
        raise


@dataclass(kw_only=True)
class Opened:
    """Tokens by shards, from photos or from a store."""

    source: Source
    origin: dict[str, Any]
    failures: list[Lost]
    framing: Framing
    model: dict[str, Any]
    weights: dict[str, Any]
    only: frozenset[str] | None = None
    notes: list[Note] = field(default_factory=list)


def resolved_for(settings: Settings, given: StoredFeatures | list[str], prism: Prism | None) -> Settings:
    """Settings with every choice made; a store has made those of the network."""
    if isinstance(given, StoredFeatures):
        made: dict[str, Any] = {
            "model": given.origin.get("model"),
            "preset": given.origin.get("preset"),
            "size": given.framing.size,
            "mean": given.framing.mean,
            "std": given.framing.std,
            "dtype": given.origin.get("dtype"),
            "range": _range_of(given),
            **{name: given.origin.get(name, default) for name, default in TOKEN_DEFAULTS.items()},
        }
        for name, there in made.items():
            if isinstance(there, list):  # JSON's; an option is a tuple
                there = made[name] = tuple(there)
            wanted = getattr(settings, name)
            if wanted is not None and wanted != there and (name, wanted) != ("dtype", "auto"):
                raise OptionError(f"{name} is settled by the feature store ({there}), got {wanted}")
        if settings.weights is not None:
            raise OptionError("weights is for photos; a feature store holds what the network made of them")
        settings = replace(settings, **{name: value for name, value in made.items() if value is not None})
        # A prism's range is none of the store's photos'.
        return replace(settings.resolved(prism), range=made["range"])
    return settings.resolved(prism)


def _range_of(store: StoredFeatures) -> tuple[float, float] | None:
    try:
        return value_range(store.origin.get("range"))
    except OptionError as error:
        raise StoreError(f"{store.path}: damaged feature store: {error}") from error


def open_tokens(
    given: StoredFeatures | list[str],
    settings: Settings,
    work: Folder,
    engine: Engine,
    sample: int | None,
    seed: int,
    backbone: Backbone | None,
    reader: Reader,
    tell: Tell,
    watch: Stopwatch,
    *,
    check: Callable[[dict[str, Any]], None] = lambda origin: None,
    whole: bool = False,
) -> Opened:
    """Tokens of what was given: at hand in a store, else out of the network.

    ``whole`` says that photos outside of the sample are wanted as well.
    """
    if isinstance(given, StoredFeatures):
        check(given.origin)
        only, origin = sampled_origin(given.names if sample else [], given.origin, sample, seed, len(given))
        return Opened(
            source=StoreShards(given),
            origin=origin,
            failures=[Lost(str(each["photo"]), str(each["reason"])) for each in given.failures],
            framing=given.framing,
            model=given.model,
            weights=weights_of(given.origin).report(),
            only=only,
            notes=given.notes,
        )
    only, said = sampled_origin(given, {}, sample, seed, len(given))
    if only is not None and not whole:
        given, only = [name for name in given if name in only], None
    with watch("load model"):
        network: Network = open_network(settings, backbone=backbone, engine=engine, tell=tell)
    check(network.origin)
    network = remembered_batch(work, network)
    # float32: the colours of a hundred photos must not differ from those of ten for the sake of disk space.
    shards = Shards(work, n_shards(len(given)), "float32")
    job = Extraction(given, network, shards, engine, batch_size=settings.batch_size, reader=reader, tell=tell)
    with watch("read photos and run network"):
        job.run()
    give_back_memory()
    return Opened(
        source=shards,
        origin=network.origin | said,
        failures=failures_of(shards),
        framing=network.framing,
        model=asdict(network.record),
        weights=network.weights.report(),
        only=only,
        notes=notes_of(shards),
    )


def weights_of(origin: dict[str, Any]) -> WeightsOrigin:
    """Where the weights of tokens came from, by what a store or a prism keeps of it."""
    return WeightsOrigin(
        source=str(origin.get("weights_source")),
        sha256=str(origin.get("weights_sha256") or ""),
        taken_from=str(origin.get("weights_taken_from") or ""),
    )


def sampled_origin(
    names: list[str], origin: dict[str, Any], sample: int | None, seed: int, total: int
) -> tuple[frozenset[str] | None, dict[str, Any]]:
    """The names of a sample, None for all, and the origin of a prism that is fitted on it."""
    chosen = sampled(names, sample, seed)
    if sample is None or len(chosen) == total:
        return None, origin
    return frozenset(chosen), origin | {"sample": {"photos": len(chosen), "of": total, "seed": seed}}
