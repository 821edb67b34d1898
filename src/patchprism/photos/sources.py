"""Read photos by their names: paths and addresses of the user, and the names that a feature store contains."""

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
from patchprism.support.folders import filesystem, is_remote, local_path, reason_of, system_reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

# The grey that replaces a missing photo.
GONE_GREY = 128
# Maximum size of a photo at an address or in a pipe, in bytes. This is enough for the largest photo that the reader
# accepts, with 16 bits per channel.
MAX_FETCHED = 1 << 30

# Protocol, then bucket or host. These determine which server is contacted, so unusual characters are not allowed.
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
        """A photo, (H, W, 3) uint8, from the result of :func:`fetch_source`."""
        name, content = fetched
        return read_photo(local_path(name) if content is None else content, name=name, range=self.range)


read_source = SourceReader()


def in_range(
    reader: Callable[[str], NDArray[np.uint8]], range: tuple[float, float] | None
) -> Callable[[str], NDArray[np.uint8]]:
    """The default reader with a range; any other reader unchanged."""
    return SourceReader(range) if reader is read_source else reader


def fetch_source(name: str) -> tuple[str, bytes | None]:
    """A photo's name and, if it is an address or a stream of this process, its content; otherwise None."""
    if not is_remote(name):
        return name, read_stream(name)
    try:
        system, path = filesystem(name)
        return name, bytes(system.cat_file(path))
    except PatchPrismError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(name, "no such file") from error
    except Exception as error:  # each file system raises its own exceptions
        raise PhotoError(name, reason_of(error)) from error


def read_stream(name: str | os.PathLike[str]) -> bytes | None:
    """The content of a stream of this process, such as ``/dev/stdin``; None for other names.

    A pipe is read once, and its content is kept.

    Raises
    ------
    PhotoError
        If it is a terminal or another device, or its content is too large.
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
        raise PhotoError(path, system_reason(error)) from error


def content_of(photo: NDArray[np.uint8]) -> str:
    """Digest of a photo's pixels, (H, W, 3) uint8. It shows whether the photo is unchanged when it is read again."""
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
        The (H, W) of the photo when it was read before.
    content : str or None
        The result of :func:`content_of` then, if it is known.
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
    """Values that change when the file changes; None if it is missing, or an address, which would cost a request.

    ``exact`` adds the time of the last change of the file's metadata. Programs cannot set this time, so it detects a
    replaced file with the same size and modification time. But it also differs for a copy of the file.
    """
    if is_remote(name):
        return None
    try:
        status = os.stat(name)
    except (OSError, ValueError):  # ValueError: a name with a NUL, which a store may contain
        return None
    return [status.st_size, status.st_mtime_ns, *([status.st_ctime_ns] if exact else [])]


# ---------------------------------------------------------------- names that a feature store contains


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
    """Where photos of a store may be read: buckets and hosts, and, for relative paths, the folder of the store.

    Attributes
    ----------
    folder : str or None
        The folder that contains a store on this machine.
    """

    folder: str | None = None


def places_for(store: str | os.PathLike[str], fetch_from: Sequence[str] = ()) -> Places:
    """Where photos of a store may be read: from its own bucket, host or folder, and from ``fetch_from``.

    Raises
    ------
    OptionError
        If a value of ``fetch_from`` is not a protocol with a bucket or host.
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
    """The buckets and hosts of addresses that are not in ``places``, sorted, each once."""
    found = {place_of(name) for name in names if is_remote(name)}
    return sorted(place for place in found if place is not None and place not in places)


def read_stored(
    name: str,
    size: tuple[int, int],
    places: Collection[str],
    reader: Callable[[str], NDArray[np.uint8]] = read_source,
) -> NDArray[np.uint8] | None:
    """A photo that a store names, (H, W, 3) uint8; None if it is missing, has another size, or may not be fetched.

    A store may come from anyone. So its names open only regular files and addresses in ``places``: no devices, and no
    other servers. A relative path is looked up in the working directory, then in the folder of the store.

    Parameters
    ----------
    size : tuple of int
        The (H, W) of the photo when its features were extracted.
    places : collection of str
        The result of :func:`places_for`.
    reader : callable
        A name -> (H, W, 3) uint8.

    Raises
    ------
    ExtraError
        If the package that opens such addresses is not installed.
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
    """Paths where a photo of a store may be: its path, and its path relative to the folder of the store."""
    path = local_path(name)
    folder = getattr(places, "folder", None)
    return [path] if folder is None or path.is_absolute() else [path, folder / path]


def _is_fetched(name: str) -> bool:
    """Whether there is a file at an address with the size of a photo; some file systems list devices as empty files."""
    try:
        system, path = filesystem(name)
        found = system.info(path)
    except PatchPrismError:
        raise
    except Exception:  # each file system raises its own exceptions
        return False
    return found["type"] == "file" and 0 < (found["size"] or 0) <= MAX_FETCHED


def grey(size: tuple[int, int]) -> NDArray[np.uint8]:
    """The grey picture that replaces a missing photo of this (H, W), (H, W, 3) uint8."""
    return np.full((*size, 3), GONE_GREY, np.uint8)


class StoredPhoto:
    """A photo that a store names, read on demand.

    Parameters
    ----------
    name, size, places, reader
        As in :func:`read_stored`.

    Attributes
    ----------
    gone : bool or None
        Whether the photo is missing, so that :meth:`read` returns plain grey of its size; None before it was read.
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
        """Where the photo may be on this machine."""
        return [] if is_remote(self.name) else stored_paths(self.name, self.places)

    def read(self) -> NDArray[np.uint8]:
        """The photo, or grey if it is missing, (H, W, 3) uint8. A missing photo is not looked up again."""
        photo = None if self.gone else read_stored(self.name, self.size, self.places, self.reader)
        self.gone = photo is None
        return grey(self.size) if photo is None else photo
