"""What a job is given: a feature store, or photos by files, folders, patterns and addresses."""

from __future__ import annotations

import os
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism import checks
from patchprism.errors import OptionError, PhotoError
from patchprism.folders import filesystem, is_remote, local_path
from patchprism.paths import PHOTO_SUFFIXES
from patchprism.pipeline import list_photos
from patchprism.store import StoredFeatures, is_store

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_input(
    photos: Sequence[str | os.PathLike[str]], *, exclude: str | os.PathLike[str] | None = None
) -> StoredFeatures | list[str]:
    """A feature store, or the names of photos with folders, patterns and addresses replaced by what they mean.

    What folders and patterns bring from below ``exclude`` is left out.

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
    if exclude is not None and is_remote(exclude):
        exclude = None
    # Runs of local names go together, so that a photo that two of them mean is listed once.
    names: dict[str, None] = {}
    for remote, run in groupby(photos, key=is_remote):
        if remote:
            names.update((name, None) for photo in run for name in _remote_photos(os.fspath(photo)))
        else:
            listed = list_photos([local_path(photo) for photo in run], exclude=exclude)
            names.update((os.fspath(path), None) for path in listed)
    if not names:
        raise PhotoError("photos", "none were given")
    return list(names)


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
    if any(sign in path for sign in "*?["):
        found = system.glob(path)
    elif url.endswith("/") or system.isdir(path):
        found = system.find(path)
    else:
        return [url]
    photos = sorted(each for each in found if each.lower().endswith(PHOTO_SUFFIXES))
    if not photos:
        raise PhotoError(url, "matches no photo")
    return [each if "://" in each else f"{scheme}://{each}" for each in photos]


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
