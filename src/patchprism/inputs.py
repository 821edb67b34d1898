"""What a job is given: a feature store, or photos by files, folders, patterns and addresses."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import checks
from patchprism.errors import OptionError, PhotoError
from patchprism.folders import RemoteFolder, address_text, filesystem, is_remote, reason_of
from patchprism.paths import note_left_out, photo_suffixes
from patchprism.pipeline import list_photos
from patchprism.reading import Note, reading
from patchprism.store import StoredFeatures, is_store
from patchprism.written import Record

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_input(
    photos: Sequence[str | os.PathLike[str]],
) -> StoredFeatures | list[str]:
    """A feature store, or the names of photos with folders, patterns and addresses replaced by what they mean.

    Of what folders and patterns bring, files that an earlier job wrote are left out.

    Raises
    ------
    StoreError
        If the store cannot be used.
    PhotoError
        If a name gives no photo.
    OptionError
        If a store does not come alone.
    """
    if isinstance(photos, (str, os.PathLike)):
        photos = [photos]
    store = store_among(photos)
    if store is not None:
        return StoredFeatures(store)
    # Runs of local names go together, so that a photo that two of them mean is listed once.
    names: dict[str, None] = {}
    for remote, run in groupby(photos, key=is_remote):
        if remote:
            names.update((name, None) for photo in run for name in _remote_photos(address_text(photo)))
        else:
            listed = list_photos(list(run))
            names.update((os.fspath(path), None) for path in listed)
    if not names:
        raise PhotoError("photos", "none were given")
    return list(names)


def listed_input(
    photos: Sequence[str | os.PathLike[str]],
) -> tuple[StoredFeatures | list[str], list[Note]]:
    """What :func:`open_input` gives, and what is to be said of it."""
    with reading() as heard:
        given = open_input(photos)
    return given, [Note("", text) for text in heard.notes]


def store_among(photos: Sequence[Any]) -> str | os.PathLike[str] | None:
    """The feature store, where photos are one, given alone or in a sequence.

    Raises
    ------
    OptionError
        If a store does not come alone.
    """
    given = [photos] if isinstance(photos, (str, os.PathLike)) else photos
    stores = [each for each in given if isinstance(each, (str, os.PathLike)) and is_store(each)]
    if stores and len(given) > 1:
        raise OptionError(f"a feature store comes alone, got {os.fspath(stores[0])} beside other photos")
    return stores[0] if stores else None


def _remote_photos(url: str) -> list[str]:
    system, path = filesystem(url)
    scheme = url.split("://", 1)[0]
    try:
        if any(sign in path for sign in "*?["):
            found = system.glob(path, detail=True)
        elif url.endswith("/") or system.isdir(path):
            found = system.find(path, detail=True)
        else:
            return [url]
    except Exception as error:  # each kind of address has exceptions of its own
        raise PhotoError(url, reason_of(error)) from error

    def full(path: str) -> str:
        return path if "://" in path else f"{scheme}://{path}"

    records: dict[str, Record] = {}
    photos = []
    taken = [each for each in sorted(found) if each.lower().endswith(photo_suffixes())]
    for each in taken:
        home, _, name = each.rpartition("/")
        if home not in records:
            records[home] = Record(RemoteFolder(full(home)))
        if not records[home].has(name, int(found[each].get("size") or 0)):
            photos.append(full(each))
    if photos:
        others = {each.rsplit("/", 1)[-1] for each in set(found) - set(taken)}
        note_left_out(url, (name for name in others if name and not name.startswith(".")))
    if not photos:
        raise PhotoError(url, "matches no photo")
    return photos


def sampled(names: list[str], count: int | None, seed: int) -> list[str]:
    """A seeded sample of so many names, in their order; all of them where there are no more.

    Raises
    ------
    OptionError
        If the count is below 1, or the seed no whole number from 0.
    """
    if count is None:
        return names
    count, seed = checks.integer("sample", count, low=1), checks.seed("seed", seed)
    if count >= len(names):
        return names
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[at] for at in sorted(chosen.tolist())]
