"""Inputs of a job: a feature store, or photos given as files, folders, patterns and addresses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np

from patchprism.errors import OptionError, PhotoError
from patchprism.features.store import StoredFeatures, is_store
from patchprism.photos.paths import find_photos, note_left_out, photo_suffixes
from patchprism.support import checks
from patchprism.support.folders import (
    RemoteFolder,
    address_text,
    filesystem,
    is_remote,
    local_path,
    reason_of,
)
from patchprism.support.reading import Note, reading
from patchprism.support.written import Record

if TYPE_CHECKING:
    from collections.abc import Sequence


def open_input(photos: Any) -> StoredFeatures | list[Any]:
    """A feature store, or photos with folders, patterns and addresses replaced by the files they mean.

    Photos are paths and addresses (str), images or arrays. In folders and patterns, files that an earlier job wrote
    are left out.

    Raises
    ------
    StoreError
        If the store cannot be used.
    PhotoError
        If a name matches no photo.
    OptionError
        If photos are given in a form that is not allowed, or a store is given together with others.
    """
    given = several(photos)
    store = store_among(given)
    return list_photos(given) if store is None else StoredFeatures(store)


def listed_input(photos: Any) -> tuple[StoredFeatures | list[Any], list[Note]]:
    """The result of :func:`open_input`, and notes about it."""
    with reading() as heard:
        given = open_input(photos)
    return given, [Note("", text) for text in heard.notes]


def store_among(photos: Sequence[Any]) -> str | os.PathLike[str] | None:
    """The feature store, if one is given instead of photos, alone or in a sequence.

    Raises
    ------
    OptionError
        If a store is given together with others.
    """
    given = [photos] if isinstance(photos, (str, os.PathLike)) else photos
    stores = [each for each in given if isinstance(each, (str, os.PathLike)) and is_store(each)]
    if stores and len(given) > 1:
        raise OptionError(
            f"a feature store must be given alone, got {os.fspath(stores[0])} together with other photos"
        )
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
    except Exception as error:  # each kind of address has its own exceptions
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
    """A random sample of the names, in their order; all names if there are not more.

    Raises
    ------
    OptionError
        If the count is below 1, or the seed is not a whole number from 0.
    """
    if count is None:
        return names
    count, seed = checks.integer("sample", count, low=1), checks.seed("seed", seed)
    if count >= len(names):
        return names
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[at] for at in sorted(chosen.tolist())]


def several(photos: Any) -> Sequence[Any]:
    """The given photos as a sequence; they may also be a single photo or an iterator.

    Raises
    ------
    OptionError
        If they are none of these, or have no fixed order.
    """
    from PIL import Image

    alone = (str, os.PathLike, bytes, bytearray, Image.Image)
    if isinstance(photos, alone) or hasattr(photos, "read") or getattr(photos, "ndim", 1) in (2, 3):
        return [as_text(photos)]
    wanted = "photos must be paths, images or arrays"
    if isinstance(photos, Mapping):
        raise OptionError(f"{wanted}, got {type(photos).__name__}: pass its values", option="photos")
    if isinstance(photos, Set):
        # The order of the photos determines the names of files, and the last bit of the colours.
        raise OptionError(
            f"{wanted} in a fixed order, which a {type(photos).__name__} does not have: pass a sorted list",
            option="photos",
        )
    try:
        members = iter(photos)
    except TypeError:
        raise OptionError(f"{wanted}, got {type(photos).__name__}", option="photos") from None
    return [as_text(photo) for photo in members]


def as_text(photo: Any) -> Any:
    """The path of a photo as text, if it is a path object of bytes; anything else unchanged."""
    if isinstance(photo, os.PathLike) and isinstance(os.fspath(photo), bytes):
        return os.fsdecode(photo)
    return photo


def list_photos(photos: Sequence[Any]) -> list[Any]:
    """Photos with folders, patterns and addresses replaced by the files they mean, each once.

    In folders and patterns, files that an earlier job wrote are left out.
    """
    listed: list[Any] = []
    seen: set[str] = set()
    for photo in photos:
        if not isinstance(photo, (str, os.PathLike)):
            listed.append(photo)
            continue
        if is_remote(photo):
            found = {name: name for name in _remote_photos(address_text(photo))}
        else:
            # os.path.realpath, because Path.resolve raises on links that go in circles
            found = {os.path.realpath(path): os.fspath(path) for path in find_photos([local_path(photo)])}
        listed += [name for key, name in found.items() if key not in seen]
        seen |= found.keys()
    if not listed:
        raise PhotoError("photos", "none were given")
    return listed
