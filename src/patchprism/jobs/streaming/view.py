"""A feature store -> a View: what :func:`patchprism.visualize` makes of photos, without the network."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from patchprism.errors import OptionError, StoreError
from patchprism.features.extraction import Photos
from patchprism.features.patch_features import PatchFeatures
from patchprism.features.records import record_from
from patchprism.features.store import StoredFeatures
from patchprism.features.store.reader import LARGE
from patchprism.jobs.engines import open_engine
from patchprism.jobs.settings import Stopwatch, check_origin, with_mask
from patchprism.jobs.shards import StoreShards
from patchprism.jobs.streaming.opened import resolved_for, sampled_origin, weights_of
from patchprism.jobs.view import Failure, View
from patchprism.jobs.work import fit, nobody
from patchprism.photos.sources import StoredPhoto, in_range, places_for, read_source
from patchprism.support.memory import free_memory

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from patchprism.backbones import BackboneRecord
    from patchprism.features.store.reader import PhotoRow
    from patchprism.jobs.settings import Settings
    from patchprism.jobs.work import Tell
    from patchprism.prism.estimator import Prism


def view_store(
    store: StoredFeatures | str | os.PathLike[str],
    *,
    settings: Settings,
    prism: Prism | None = None,
    force: bool = False,
    sample: int | None = None,
    seed: int = 0,
    fetch_from: Sequence[str] = (),
    tell: Tell = nobody,
) -> View:
    """Colour the photos of a feature store, in memory.

    Parameters
    ----------
    store : StoredFeatures or path
    settings : Settings
        What a store settles, the model and the framing, may be left out.
    prism, force
        As in :func:`~patchprism.visualize`.
    sample : int, optional
        Fit on, and show, a sample of so many photos drawn with ``seed``: the one that ``render --sample`` fits on.
    seed : int
    fetch_from
        As in :func:`~patchprism.visualize`.
    tell : callable

    Returns
    -------
    View
        Its photos are read, when they are first shown, from where the store says that they were; one that is not
        there any more, has another size by now, or lies at an address that is not to be asked, is shown as plain
        grey. The tokens are those of the store, so that the colours are those which ``render`` gives the store.

    Raises
    ------
    StoreError
        If the store cannot be used.
    OptionError
        If an option contradicts the store.
    PrismError
        If the prism is of other features, or nothing is left in the foreground.
    """
    if not isinstance(store, StoredFeatures):
        store = StoredFeatures(store)
    places = places_for(store.path, fetch_from)
    settings = resolved_for(settings, store, prism)
    to_fit = None if prism else settings.prism()
    watch = Stopwatch()
    if prism is not None:
        if sample is not None:
            raise OptionError("sample is for fitting; the prism is fitted already")
        prism = with_mask(prism, settings.mask_options())
        if not force:
            check_origin(prism, store.origin)
    only, origin = sampled_origin(store.names if sample else [], store.origin, sample, seed, len(store))
    if only is None:
        # Float32 at least: what is fitted and coloured is a copy.
        need = 2 * 4 * store.n_patches * store.width
        if need > LARGE and need > free_memory():
            raise StoreError(
                f"{store.path}: its tokens take {need / 1e9:,.1f} GB, which is more memory than this machine has "
                "free; patchprism render takes a store photo by photo, and sample=N shows a part of it"
            )
    rows: list[PhotoRow] = []
    tokens: list[Any] = []
    with watch("read store"):
        for row, each in store.read(0, len(store)):
            if only is None or row.name in only:
                rows.append(row)
                tokens.append(each)
                tell("features", len(rows), len(only or store))
    features = PatchFeatures(tokens, [row.name for row in rows])
    if to_fit is not None:
        with watch("fit prism"), open_engine("local") as engine:
            prism = fit(to_fit, StoreShards(store), engine, origin, only=only, tell=tell)
    assert prism is not None
    with watch("colour"):
        parts = [prism.split(each, name=name) for name, each in zip(features.names, features, strict=True)]
    reader = in_range(read_source, settings.range)
    photos = Photos([StoredPhoto(row.name, row.size, places, reader) for row in rows], features.names)
    for index, row in enumerate(rows):
        said = tuple(each.text for each in store.notes if each.name == row.name)
        if said:
            photos.notes[index] = said
    return View(
        notes=[each.text for each in store.notes if not each.name],
        photos=photos,
        framing=store.framing,
        features=features,
        prism=prism,
        parts=parts,
        crops=[row.crop for row in rows],
        sizes=[row.size for row in rows],
        record=record_of(store),
        weights=weights_of(origin),
        settings=asdict(settings) | {"dtype": origin.get("dtype")},
        fitted_here=to_fit is not None,
        failures=[Failure(str(each["photo"]), str(each["reason"])) for each in store.failures],
        seconds=watch.seconds,
        origin=origin,
        plain=[row.name for row in rows if row.plain],
        store=[
            store.path,
            *([] if only is None else ["--sample", str(sample), "--seed", str(seed)]),
            *(word for place in sorted(places_for("", fetch_from)) for word in ("--fetch-from", place)),
        ],
    )


def record_of(store: StoredFeatures) -> BackboneRecord:
    """The record of the model that a store's tokens are of, as the store keeps it: no registry and no hub is asked.

    Raises
    ------
    StoreError
        If the store has no such record.
    """
    try:
        return record_from(store.model)
    except ValueError as error:
        raise StoreError(f"{store.path}: damaged feature store, {error}") from error
