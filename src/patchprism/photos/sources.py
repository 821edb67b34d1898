"""Photos by their names: paths and addresses, and the names that a feature store brings from elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patchprism.errors import OptionError, PatchPrismError, PhotoError
from patchprism.photos.images import read_photo
from patchprism.photos.paths import is_stream
from patchprism.support.folders import filesystem, is_remote, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

# The grey that replaces a missing photo.
GONE_GREY = 128
# A photo that a store names by an address is read whole; the largest that the reader takes, at 16 bits a channel.
MAX_FETCHED = 1 << 30

# Protocol, then bucket or host. These characters decide which server is contacted, so unusual ones are not allowed.
_PLACE = re.compile(r"([a-z][a-z0-9+.-]*)://+([^/\\?#\s]+)(?:/.*)?")
# Message for a photo that can no longer be read when its pictures are drawn.
DRAWN_WITHOUT = "its pictures are drawn without it"
# Contents of pipes. A pipe can be read only once, but a job may need the photo again.
_piped: dict[str, bytes] = {}
_piped_lock = threading.Lock()


@dataclass(frozen=True)
class SourceReader:
    """Reads photos by their names: paths, and addresses that fsspec opens.

    Parameters
    ----------
    range : (low, high), optional
        As in :func:`~patchprism.read_photo`.
    """

    range: tuple[float, float] | None = None

    def __call__(self, name: str) -> NDArray[np.uint8]:
        """A photo, (H, W, 3) uint8."""
        return self.decode(fetch_source(name))

    def decode(self, fetched: tuple[str, bytes | None]) -> NDArray[np.uint8]:
        """A photo, (H, W, 3) uint8, from what :func:`fetch_source` gave."""
        name, content = fetched
        return read_photo(local_path(name) if content is None else content, name=name, range=self.range)


read_source = SourceReader()


def in_range(
    reader: Callable[[str], NDArray[np.uint8]], range: tuple[float, float] | None
) -> Callable[[str], NDArray[np.uint8]]:
    """The reader of a job with a range. A reader that the caller passes is used as it is."""
    return SourceReader(range) if reader is read_source else reader


def fetch_source(name: str) -> tuple[str, bytes | None]:
    """A photo's name, and what is at it where that is an address or a stream of this process."""
    if not is_remote(name):
        return name, read_stream(name)
    try:
        system, path = filesystem(name)
        return name, bytes(system.cat_file(path))
    except PatchPrismError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(name, "no such file") from error
    except Exception as error:  # each kind of address has exceptions of its own
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise PhotoError(name, reason.splitlines()[0]) from error


def read_stream(name: str | os.PathLike[str]) -> bytes | None:
    """The contents of a name such as ``/dev/stdin``, which means another file in another process; None for a file.

    A pipe is read once, and what it gave is kept.

    Raises
    ------
    PhotoError
        If it is a terminal or another device, or gives more than a photo may have.
    """
    path = os.fsdecode(name)
    if not is_stream(path):
        return None
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISREG(kind):
            return Path(path).read_bytes()
        if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
            raise PhotoError(path, "is a device, not a file")
        with _piped_lock:
            if path not in _piped:
                with open(path, "rb") as file:
                    content = file.read(MAX_FETCHED + 1)
                if len(content) > MAX_FETCHED:
                    raise PhotoError(path, f"is larger than {MAX_FETCHED:,} bytes")
                _piped[path] = content
            return _piped[path]
    except OSError as error:
        raise PhotoError(path, (error.strerror or str(error)).lower()) from error


def content_of(photo: NDArray[np.uint8]) -> str:
    """Digest of a photo's pixels, (H, W, 3) uint8: what tells whether a photo that is read again is the same."""
    found = hashlib.blake2b(repr(photo.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(photo).data)
    return found.hexdigest()


def read_again(
    name: str,
    size: tuple[int, int],
    content: str | None,
    reader: Callable[[str], NDArray[np.uint8]] = read_source,
) -> NDArray[np.uint8]:
    """A photo, (H, W, 3) uint8, that was read before, if it is still the same.

    Parameters
    ----------
    size : tuple of int
        The (H, W) that it had.
    content : str or None
        The result of :func:`content_of`, if it is known.
    reader : callable
        A name -> (H, W, 3) uint8.

    Raises
    ------
    PhotoError
        If it is missing or has changed.
    """
    try:
        photo = reader(name)
    except PhotoError as error:
        raise PhotoError(name, f"could not be read again ({error.reason})") from error
    except (OSError, ValueError) as error:
        raise PhotoError(name, f"could not be read again ({error})") from error
    if photo.shape[:2] != size or (content is not None and content_of(photo) != content):
        raise PhotoError(name, "was replaced after its features were extracted")
    return photo


def stamp_of(name: str, *, exact: bool) -> list[int] | None:
    """Values that change when the file changes; empty for addresses, where each check would cost a request.

    ``exact`` adds the time of the last change of the file's metadata. This time cannot be set, so it detects a
    replaced file with the same size and modification time. But a copy of the file also has another one.
    """
    if is_remote(name):
        return None
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # ValueError: a name with a NUL, out of a store
        return None
    return [status.st_size, status.st_mtime_ns, *([status.st_ctime_ns] if exact else [])]


# ---------------------------------------------------------------- names out of a store


def place_of(name: str) -> str | None:
    """Protocol and bucket or host of an address; None for a path and for anything that is not a plain address.

    Examples
    --------
    >>> place_of("s3://dogs/2024/rex.png"), place_of("dogs/rex.png"), place_of("zip://rex.png::http://host/a.zip")
    ('s3://dogs', None, None)
    """
    found = _PLACE.fullmatch(name)
    # "::" chains file systems, ".." may lead out of the bucket.
    if not found or not name.isprintable() or "::" in name or ".." in name.split("/") or not is_remote(name):
        return None
    return f"{found[1]}://{found[2]}"


class Places(frozenset[str]):
    """Where the photos that a store names are read: buckets and hosts, and for relative paths the store's folder.

    Attributes
    ----------
    folder : str or None
        The folder that contains a store on this machine.
    """

    folder: str | None = None


def places_for(store: str | os.PathLike[str], fetch_from: Sequence[str] = ()) -> Places:
    """Where the photos that a store names are read: its own bucket, host or folder, and those that are asked for.

    Raises
    ------
    OptionError
        If ``fetch_from`` names more, or less, than a bucket or host.
    """
    places = set()
    for each in [fetch_from] if isinstance(fetch_from, str) else fetch_from:
        place = place_of(each)
        if place is None or place != each.rstrip("/"):
            raise OptionError(
                f"fetch_from must be a protocol and a bucket or host, like s3://bucket, got {each!r}"
            )
        places.add(place)
    own = place_of(os.fspath(store))
    found = Places(places | ({own} if own else set()))
    if os.fspath(store) and not is_remote(store):
        found.folder = os.path.dirname(os.path.abspath(local_path(store)))
    return found


def elsewhere(names: Iterable[str], places: Collection[str]) -> list[str]:
    """The places of addresses that are not read, each once."""
    found = {place_of(name) for name in names if is_remote(name)}
    return sorted(place for place in found if place is not None and place not in places)


def read_stored(
    name: str,
    size: tuple[int, int],
    places: Collection[str],
    reader: Callable[[str], NDArray[np.uint8]] = read_source,
) -> NDArray[np.uint8] | None:
    """A photo that a store names, (H, W, 3) uint8; None if it is missing, has changed, or may not be fetched.

    A store may come from anywhere. Its names open plain files, and addresses in ``places``; no devices, and no
    strangers' machines. A relative path is looked for from the working directory, then from the store's folder.

    Parameters
    ----------
    size : tuple of int
        The (H, W) that it had.
    places : collection of str
        As :func:`places_for` gives them.
    reader : callable
        A name -> (H, W, 3) uint8.

    Raises
    ------
    ExtraError
        If what opens such addresses is not installed.
    """
    if is_remote(name):
        try:
            if place_of(name) not in places or not _is_fetched(name):
                return None
            photo = reader(name)
        except (PhotoError, OSError, ValueError):
            return None
        return photo if photo.shape[:2] == size else None
    for path in stored_paths(name, places):
        try:
            if path.is_file() and (found := reader(os.fspath(path))).shape[:2] == size:
                return found
        except (PhotoError, OSError, ValueError):  # ValueError: a name with a NUL
            continue
    return None


def stored_paths(name: str, places: Collection[str]) -> list[Path]:
    """Places to look for a photo of a store: its path itself, and relative to the store's folder."""
    path = local_path(name)
    folder = getattr(places, "folder", None)
    return [path] if folder is None or path.is_absolute() else [path, folder / path]


def _is_fetched(name: str) -> bool:
    """Whether there is a file at an address, and of a photo's length: behind some, devices are files without any."""
    try:
        system, path = filesystem(name)
        found = system.info(path)
    except PatchPrismError:
        raise
    except Exception:  # each kind of address has exceptions of its own
        return False
    return found["type"] == "file" and 0 < (found["size"] or 0) <= MAX_FETCHED


def grey(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The grey picture that replaces a missing photo of this (H, W), (H, W, 3) uint8."""
    return np.full((*size, 3), GONE_GREY, np.uint8)


class StoredPhoto:
    """A photo that a store names, read when it is first asked for.

    Parameters
    ----------
    name, size, places, reader
        As in :func:`read_stored`.

    Attributes
    ----------
    gone : bool or None
        Whether it is gone, and plain grey of the size that it had stands for it; None until it was asked for.
    """

    def __init__(
        self,
        name: str,
        size: tuple[int, int],
        places: Collection[str],
        reader: Callable[[str], NDArray[np.uint8]] = read_source,
    ) -> None:
        self.name, self.size, self.places, self.reader = name, size, places, reader
        self.gone: bool | None = None

    def __fspath__(self) -> str:
        return self.name

    @property
    def paths(self) -> list[Path]:
        """Where on this machine it may lie."""
        return [] if is_remote(self.name) else stored_paths(self.name, self.places)

    def read(self) -> NDArray[np.uint8]:
        """The photo, (H, W, 3) uint8; once it is found to be gone, it stays so."""
        photo = None if self.gone else read_stored(self.name, self.size, self.places, self.reader)
        self.gone = photo is None
        return grey(self.size) if photo is None else photo
