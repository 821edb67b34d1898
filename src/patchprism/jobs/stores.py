"""Photos -> a feature store."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from patchprism.errors import OptionError, OutputError, PatchPrismError, StoreError
from patchprism.features.store import StoredFeatures, layout
from patchprism.jobs.extraction import Extraction, failures_of, n_shards, notes_of
from patchprism.jobs.inputs import listed_input
from patchprism.jobs.network import (
    NETWORK_STAGE,
    about_dtype,
    kept_model,
    notes_on_network,
    open_network,
    warn_of_cost,
)
from patchprism.jobs.opened import record_of, resolved_for, weights_of
from patchprism.jobs.run import Outcome, Run, no_progress
from patchprism.jobs.shards import Shards
from patchprism.jobs.source import Failure, rows_of
from patchprism.jobs.store_writer import StoreWriter
from patchprism.jobs.working import remembered_batch, working
from patchprism.photos.sources import in_range
from patchprism.support import checks
from patchprism.support.files import refuse_no_folder
from patchprism.support.folders import WORK, LocalFolder, is_remote, is_work, open_folder
from patchprism.support.version import __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from patchprism.jobs.run import Tell
    from patchprism.jobs.settings import Settings
    from patchprism.support.folders import Folder


def extract_features(
    photos: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    settings: Settings,
    run: Run,
    tokens: str = "float16",
    overwrite: bool = False,
) -> Outcome:
    """Photos -> a feature store.

    Parameters
    ----------
    photos : sequence of path
        Files, folders, patterns, and addresses that fsspec opens.
    out : path
        The store to write; a folder or an address.
    tokens : {"float16", "float32"}
        Dtype of the stored tokens.
    overwrite : bool
        Whether a store of other photos or features may be replaced.

    Raises
    ------
    PatchPrismError
        One of its subclasses: for an option, the photos, the model or the store.
    """
    tokens = checks.dtype("tokens", tokens, allowed=tuple(layout.DTYPES))
    names, said = listed_input(photos)
    if isinstance(names, StoredFeatures):
        raise OptionError(f"{names.path} is already a feature store; give photos")
    watch = run.watch
    folder = open_folder(out)
    work = folder.below(WORK)
    settings = resolved_for(settings, names, run, kept=kept_model(work) or _made_with(folder))
    with watch("load model"):
        network = open_network(settings, backbone=run.backbone, engine=run.engine, tell=run.tell)
    if not is_remote(out):
        _check_free(folder, overwrite)
    shards = Shards(work, n_shards(len(names)), tokens, in_range(run.reader, settings.range))
    try:
        with working(work, folder.name) as held:
            network = remembered_batch(work, network)
            job = Extraction(
                names, network, shards, run.engine, batch_size=settings.batch_size, tell=run.tell
            )
            key = job.identity
            try:
                there = _finished(folder, key, overwrite)
            except PatchPrismError:
                held.end()
                raise
            if there is not None:
                held.end()
                return there
            _start(folder, work, job.basis)
            writer = StoreWriter(shards, folder, run.engine)
            writer.resume(job.key)
            warn_of_cost(network, run, len(names))
            with watch(NETWORK_STAGE):
                job.run(committed=writer.committed, done=writer.add)
            try:
                failures = failures_of(shards)
            except PatchPrismError:
                for name in _OURS - {WORK}:
                    folder.remove(name)
                held.end()
                raise
            said += [*notes_on_network(run, network.weights), *notes_of(shards)]
            with watch("write"):
                writer.finish(
                    {
                        "version": layout.VERSION,
                        "written_by": __version__,
                        "key": key,
                        "origin": network.origin,
                        "model": asdict(network.record),
                        "failures": [{"photo": each.photo, "reason": each.reason} for each in failures],
                        "plain": [row.name for row in rows_of(shards) if row.plain],
                        "notes": [{"photo": each.name, "note": each.text} for each in said],
                    }
                )
            # Belongs to this run, not to the store.
            said += about_dtype(run, network.origin["dtype"], shards.table(0).device)
            held.end()
    except PatchPrismError:
        if isinstance(folder, LocalFolder):
            with suppress(OSError):  # not empty
                folder.path.rmdir()
        raise
    made = StoredFeatures(out)
    return Outcome(
        n_photos=len(made),
        n_patches=made.n_patches,
        failures=failures,
        model=network.record.title,
        weights_source=str(network.weights),
        seconds=watch.seconds,
        notes=said,
    )


# All files in the folder of a store, including the one that macOS's Finder adds.
_OURS = frozenset({"zarr.json", *layout.TABLES, WORK, ".DS_Store"})


def _check_free(folder: Folder, overwrite: bool) -> None:
    """Refuse to write a store into a folder with files that do not belong to a store."""
    assert isinstance(folder, LocalFolder)
    path = folder.path
    refuse_no_folder(path)
    if not path.is_dir():
        return
    names = {each.name for each in path.iterdir()}
    # A work folder is accepted by its name here, because it may be the work of another command.
    if not _OURS.issuperset(names):
        raise OutputError(str(path), "the folder holds other files; choose a new one")
    # Files with the names of a store's tables belong to a store only if its record or its work folder is there.
    if names & set(layout.TABLES) and "zarr.json" not in names and not is_work(path / WORK):
        raise OutputError(str(path), "the folder holds other files; choose a new one")
    for name in sorted(names & _OURS - {".DS_Store"}):
        if (path / name).is_symlink():
            raise OutputError(str(path / name), "it is a link; choose a new folder")


def _finished(folder: Folder, key: str, overwrite: bool) -> Outcome | None:
    """The outcome for an existing store, if it is the requested one."""
    if folder.size("zarr.json") is None:
        return None
    try:
        there = StoredFeatures(folder.name)
    except StoreError:
        if overwrite and _is_ours(folder):
            return None
        raise
    if there.key == key:
        return Outcome(
            n_photos=len(there),
            n_patches=there.n_patches,
            failures=[Failure(each["photo"], each["reason"]) for each in there.failures],
            model=record_of(there).title,
            weights_source=str(weights_of(there.origin)),
            seconds={},
            already=True,
            notes=there.notes,
        )
    if overwrite:
        return None
    raise OutputError(
        folder.name,
        "a feature store of other photos or settings exists there; overwrite=True replaces it",
    )


def _made_with(folder: Folder) -> str:
    """Name of the model of an existing store; empty if there is none."""
    try:
        return str(layout.load_json(folder, "zarr.json")["attributes"]["patchprism"]["model"]["name"])
    except (StoreError, KeyError, TypeError):
        return ""


def _is_ours(folder: Folder) -> bool:
    """Whether the folder contains a feature store, even a damaged one, and not another program's Zarr group."""
    try:
        attributes = layout.load_json(folder, "zarr.json").get("attributes")
    except StoreError:
        return False
    return isinstance(attributes, dict) and isinstance(attributes.get("patchprism"), dict)


def _start(folder: Folder, work: Folder, basis: str) -> None:
    """Resume the work of a job with the same settings, even with other photos; discard that of other jobs."""
    job = json.dumps({"basis": basis}).encode()
    try:
        same = work.read("job.json") == job
    except OSError:
        same = False
    folder.remove("zarr.json")  # first, because from now on this is not a complete store
    for name in layout.TABLES:
        # Tokens are written during a run, so those of an interrupted run can be kept; the rest is written at the end.
        if name != "tokens" or not same:
            folder.remove(name)
    if not same:
        work.remove("shards")
        work.write("job.json", job)


def write_table(features: StoredFeatures, path: str | os.PathLike[str], *, tell: Tell = no_progress) -> None:
    """A store as a Parquet table: one row per patch, with ``photo``, ``row``, ``column`` and ``vector`` (float32).

    Raises
    ------
    ExtraError
        If pyarrow is not installed.
    OutputError
        If it cannot be written.
    """
    from patchprism.features.store.table import write_parquet

    write_parquet(features, path, tell=tell)
