"""Open the input of a job: photos or a feature store become a source of tokens."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from patchprism.backbones import WeightsOrigin, find_record
from patchprism.errors import OptionError, PhotoError, StoreError
from patchprism.features.extraction import Batches, Photos, photo_names
from patchprism.features.records import record_from
from patchprism.features.store import StoredFeatures
from patchprism.features.store.reader import PhotoRow
from patchprism.jobs.coloring import NEW, Coloring
from patchprism.jobs.extraction import Extraction, failures_of, n_shards, notes_of
from patchprism.jobs.given import ALPHA
from patchprism.jobs.inputs import sampled
from patchprism.jobs.network import (
    NETWORK_STAGE,
    about_dtype,
    load_network,
    notes_on_network,
    open_network,
    warn_of_cost,
    with_model,
)
from patchprism.jobs.settings import TOKEN_DEFAULTS, Settings, describe_origin
from patchprism.jobs.shards import Shards
from patchprism.jobs.source import SHARD, Failure, MemorySource, StoreSource
from patchprism.jobs.working import remembered_batch
from patchprism.photos.framing import check_range
from patchprism.photos.sources import in_range, places_for
from patchprism.support.memory import give_back_memory
from patchprism.support.reading import Note
from patchprism.support.words import none_could

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchprism.backbones import Backbone, BackboneRecord
    from patchprism.jobs.run import Run
    from patchprism.jobs.source import Source
    from patchprism.photos.framing import Framing
    from patchprism.support.folders import Folder


@dataclass(kw_only=True)
class Opened:
    """The tokens of a job, and what is known about them.

    Attributes
    ----------
    origin : dict
        Everything that features depend on, as in a prism.
    settings : dict
        Every setting as it was used, for ``report.json``.
    only : frozenset of str, optional
        Names of the photos to fit on; all by default.
    notes : list of Note
        Notes of the job, with an empty name, and of its photos.
    places : collection of str, optional
        For a store, the places that its photos may be read from.
    load : callable, optional
        Returns the backbone; None if there is none.
    """

    source: Source
    origin: dict[str, Any]
    failures: list[Failure]
    framing: Framing
    record: BackboneRecord
    weights: WeightsOrigin
    settings: dict[str, Any]
    only: frozenset[str] | None = None
    notes: list[Note] = field(default_factory=list)
    places: frozenset[str] | None = None
    load: Callable[[], Backbone] | None = None


def resolved_for(
    settings: Settings,
    given: StoredFeatures | list[Any],
    run: Run | None = None,
    coloring: Coloring = NEW,
    *,
    kept: str = "",
) -> Settings:
    """Settings with every choice made; a store determines those of the network.

    ``run`` and ``kept`` determine the network if none is named: see :func:`~patchprism.jobs.network.with_model`.
    """
    if isinstance(given, StoredFeatures):
        made: dict[str, Any] = {
            "model": given.origin.get("model"),
            "preset": given.origin.get("preset"),
            "size": given.framing.size,
            "stride": given.framing.stride,
            "mean": given.framing.mean,
            "std": given.framing.std,
            "dtype": given.origin.get("dtype"),
            "range": _range_of(given),
            **{name: given.origin.get(name, default) for name, default in TOKEN_DEFAULTS.items()},
        }
        for name, there in made.items():
            if isinstance(there, list):  # from JSON; in options it is a tuple
                there = made[name] = tuple(there)
            wanted = getattr(settings, name)
            if wanted is not None and wanted != there and (name, wanted) != ("dtype", "auto"):
                raise OptionError(f"{name} is fixed by the feature store ({there}), got {wanted}")
        if settings.weights is not None:
            raise OptionError("weights cannot be used with a feature store, which already holds features")
        # Mean and deviation are in the store's framing.
        given_by_store = {
            name: value for name, value in made.items() if value is not None and name not in ("mean", "std")
        }
        settings = replace(settings, **given_by_store)
        # The range of a prism does not apply to the photos of a store.
        return replace(coloring.resolved(settings), range=made["range"])
    if run is not None:
        settings = with_model(settings, run, coloring, kept=kept)
    return coloring.resolved(settings, run.backbone.record if run and run.backbone else None)


def _range_of(store: StoredFeatures) -> tuple[float, float] | None:
    try:
        return check_range("range", store.origin.get("range"))  # type: ignore[no-any-return]
    except OptionError as error:
        raise StoreError(f"{store.path}: damaged feature store: {error}") from error


def open_tokens(
    given: StoredFeatures | list[Any],
    settings: Settings,
    run: Run,
    coloring: Coloring = NEW,
    *,
    work: Folder | None = None,
    sample_only: bool = False,
    strict: bool = False,
) -> Opened:
    """The tokens of the input: from a store, or computed from photos by the network.

    Parameters
    ----------
    given : StoredFeatures or list
        As :func:`~patchprism.jobs.inputs.open_input` gives it.
    settings : Settings
        Resolved.
    coloring : Coloring
        The sample, and the prism that these tokens must match.
    work : Folder, optional
        Where tokens are kept shard by shard; in memory by default.
    sample_only : bool
        Whether only the photos of the sample are wanted.
    strict : bool
        Whether the first photo that cannot be read raises an error.
    """
    if isinstance(given, StoredFeatures):
        coloring.check(given.origin)
        names = given.names if coloring.sample.count else []
        only, origin = sampled_origin(names, given.origin, coloring, len(given))
        places = places_for(given.path, coloring.fetch_from)
        return Opened(
            source=StoreSource(given, places, in_range(run.reader, settings.range)),
            origin=origin,
            failures=[Failure(str(each["photo"]), str(each["reason"])) for each in given.failures],
            framing=given.framing,
            record=record_of(given),
            weights=weights_of(given.origin),
            settings=_as_used(settings, run, origin, device=None),
            only=only,
            notes=given.notes,
            places=places,
        )
    if coloring.fetch_from:
        raise OptionError("fetch_from is only for feature stores; photos given by address are read anyway")
    if work is None:
        given = sample_of(given, coloring)
        return open_in_memory(given, settings, run, coloring.check, strict=strict)
    only, said = sampled_origin(given, {}, coloring, len(given))
    if only is not None and sample_only:
        given, only = [name for name in given if name in only], None
    with run.watch("load model"):
        network = open_network(settings, backbone=run.backbone, engine=run.engine, tell=run.tell)
    coloring.check(network.origin)
    network = remembered_batch(work, network)
    # float32, because colours must not depend on whether tokens are kept on disk or in memory.
    shards = Shards(work, n_shards(len(given)), "float32", in_range(run.reader, settings.range))
    job = Extraction(given, network, shards, run.engine, batch_size=settings.batch_size, tell=run.tell)
    warn_of_cost(network, run, len(given))
    with run.watch(NETWORK_STAGE):
        job.run()
    give_back_memory()
    first = shards.table(0)  # contains what only the loaded network knows
    return Opened(
        source=shards,
        origin=network.origin | said,
        failures=failures_of(shards),
        framing=network.framing,
        record=network.record,
        weights=WeightsOrigin(**first.weights | {"left_out": tuple(first.weights["left_out"])}),
        settings=_as_used(settings, run, network.origin, device=first.device),
        only=only,
        notes=[
            *notes_on_network(run, network.weights),
            *about_dtype(run, network.origin["dtype"], first.device),
            *notes_of(shards),
        ],
        load=network.load,
    )


def open_in_memory(
    given: list[Any],
    settings: Settings,
    run: Run,
    check: Callable[[dict[str, Any]], None] = lambda origin: None,
    *,
    framing: Framing | None = None,
    strict: bool,
) -> Opened:
    """Tokens of photos, held in memory; ``framing`` replaces that of the settings."""
    photos = Photos(given, photo_names(given), range=settings.range)
    backbone = run.backbone
    if backbone is None and framing is None:
        # Wrong input is refused before anything heavy is loaded.
        settings.framing(find_record(str(settings.model)))
    with run.watch("load model"):
        backbone = backbone or load_network(settings, run.tell)
        network = open_network(settings, backbone=backbone, engine=run.engine, tell=run.tell)
    if framing is not None:
        backbone.check_overlap(framing)
        fitting = settings.fitting(framing, backbone.record)
        origin = describe_origin(backbone.identity, fitting, framing)
        network = replace(network, framing=framing, origin=origin, options=fitting.token_options())
    check(network.origin)
    found: dict[int, Any] = {}
    failures: dict[int, PhotoError] = {}
    warn_of_cost(network, run, len(photos))
    with run.watch(NETWORK_STAGE):
        for tokens in run.extract(
            photos,
            backbone,
            network.framing,
            batches=Batches(size=settings.batch_size, patches=network.batch_patches, shard=SHARD),
            failed=None if strict else failures.__setitem__,
            options=network.options,
        ):
            found[tokens.index] = tokens
            run.tell("photos", len(found) + len(failures), len(photos))
    failed = [Failure(photos.names[i], failures[i].reason) for i in sorted(failures)]
    if not found:
        raise PhotoError(failed[0].photo, none_could(failed[0].reason, len(failed)))
    order = sorted(found)
    kept = photos.subset(order)
    rows = [
        PhotoRow(
            kept.names[at],
            found[i].tokens.shape[:2],
            found[i].size,
            found[i].crop,
            found[i].plain,
            photos.content(i),
        )
        for at, i in enumerate(order)
    ]
    return Opened(
        source=MemorySource(kept, rows, [found[i].tokens for i in order]),
        origin=network.origin,
        failures=failed,
        framing=network.framing,
        record=network.record,
        weights=network.weights,
        settings=_as_used(settings, run, network.origin, device=backbone.device.type),
        notes=[
            *notes_on_network(run, network.weights),
            *about_dtype(run, network.origin["dtype"], backbone.device.type),
            *(Note(kept.names[i], text) for i in sorted(kept.notes) for text in kept.notes[i]),
        ],
        load=network.load,
    )


def _as_used(settings: Settings, run: Run, origin: dict[str, Any], *, device: str | None) -> dict[str, Any]:
    """Settings for a report; ``device`` is None if no network ran."""
    known = {"model": origin.get("model", settings.model), "dtype": origin.get("dtype")}
    known["tile"] = origin.get("tile", settings.tile)
    return asdict(settings) | known | {"device": device, "engine": run.engine.name}


def record_of(store: StoredFeatures) -> BackboneRecord:
    """The record of the model that made a store's tokens, as stored in it; neither registry nor hub is asked.

    Raises
    ------
    StoreError
        If the store has no such record.
    """
    try:
        return record_from(store.model)
    except ValueError as error:
        raise StoreError(f"{store.path}: damaged feature store, {error}") from error


def weights_of(origin: dict[str, Any]) -> WeightsOrigin:
    """The origin of the weights, from the entries of a store or a prism."""
    return WeightsOrigin(
        source=str(origin.get("weights_source")),
        sha256=str(origin.get("weights_sha256") or ""),
        taken_from=str(origin.get("weights_taken_from") or ""),
    )


def sample_of(names: list[Any], coloring: Coloring) -> list[Any]:
    """A job's sample, in order. Photos with a mask are always in it, but alpha channels are not looked for."""
    sample = coloring.sample
    chosen = sampled(names, sample.count, sample.seed)
    if coloring.masks is None or coloring.masks.name == ALPHA or len(chosen) == len(names):
        return chosen
    wanted = {*coloring.masks.match(names), *chosen}
    return [name for name in names if name in wanted]


def sampled_origin(
    names: list[str], origin: dict[str, Any], coloring: Coloring, total: int
) -> tuple[frozenset[str] | None, dict[str, Any]]:
    """The names of a sample (None for all photos), and the origin of a prism that is fitted on it."""
    sample = coloring.sample
    chosen = sample_of(names, coloring)
    if sample.count is None or len(chosen) == total:
        return None, origin
    return frozenset(chosen), origin | {"sample": {"photos": len(chosen), "of": total, "seed": sample.seed}}
