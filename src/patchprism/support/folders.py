"""Folders of bytes, here or in an object store, with the same few verbs; every write is whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote_to_bytes

from patchprism.errors import ExtraError, OptionError, OutputError, PatchPrismError
from patchprism.support.checks import said

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Everything that a job needs only until it is finished is in a folder of this name, including temporary files of
# killed workers. So removing this folder leaves no unfinished files.
WORK = ".patchprism-work"
# This file distinguishes our work folders from other folders of the same name.
MARKER = "PATCHPRISM-WORK"
# Held by the job that works in it; there once that job has ended and takes the folder away, these two last.
LOCK, ENDING = "lock", "ending"
MARKER_TEXT = b"PatchPrism keeps unfinished work here, and deletes this folder when the job is done.\n"


class Made(Protocol):
    """A file as it was written; :class:`~patchprism.support.written.Stamp` is one."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def modified(self) -> int:
        """Its time in nanoseconds."""


class Folder(Protocol):
    """A folder; keys are relative paths with ``/``. It can be pickled and sent to a worker."""

    name: str

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a file, from ``start`` up to but without ``stop``; OSError if the file is missing."""

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Make or replace a file, whole or not at all; OutputError if that fails."""

    def staged(self, key: str) -> Any:
        """A context manager: a local path to write to that becomes the file when the block ends well."""

    def size(self, key: str) -> int | None:
        """Size of a file in bytes; None if it is missing."""

    def keys(self, prefix: str = "", *, folders: bool = False) -> list[str]:
        """The files directly in a folder below, by name; or the folders there."""

    def unchanged(self, written: Mapping[str, Made]) -> bool:
        """Whether all of these files, directly in this folder, are there with the size and time that they had."""

    def remove(self, key: str) -> None:
        """Take a file, or a folder with all in it, away; fine if there is none."""

    def below(self, key: str) -> Folder:
        """A folder in this one."""


# Path objects turn the two slashes of an address into one.
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def address_text(path: str | os.PathLike[str]) -> str:
    """The text of a path or an address; an address that went through a path object is put right.

    Examples
    --------
    >>> address_text(Path("s3://bucket/out")), address_text("photos/a.png")
    ('s3://bucket/out', 'photos/a.png')
    """
    text = os.fsdecode(path)
    found = _ONE_SLASH.match(text)
    if found and _is_protocol(found[1]):
        slashes = "///" if found[1] == "file" else "//"
        return f"{found[1]}:{slashes}{text[found.end() :]}"
    return text


def _is_protocol(word: str) -> bool:
    try:
        from fsspec.registry import known_implementations
    except ImportError:
        return True  # what opens addresses is not installed, and whoever asks for it will say so
    return word.lower() in known_implementations


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address such as ``s3://bucket/key``; ``file://`` is local."""
    text = address_text(path)
    return "://" in text and not text.startswith("file://")


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a path or at an address that fsspec opens."""
    if is_remote(path):
        return RemoteFolder(address_text(path))
    return LocalFolder(local_path(path))


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path; of an address ``file://...`` the path that it means, with ``%20`` and its kin read.

    Raises
    ------
    OptionError
        If the address holds what no path can hold.

    Examples
    --------
    >>> local_path("file:///data/my%20dogs").as_posix()
    '/data/my dogs'
    """
    text = address_text(path)
    if not text.startswith("file://"):
        return Path(text)
    text = text.removeprefix("file://")
    if text.startswith("localhost/"):
        text = text.removeprefix("localhost")
    text = os.fsdecode(unquote_to_bytes(os.fsencode(text)))
    if "\0" in text:
        raise OptionError(f"{os.fsdecode(path)}: %00 is not allowed in the name of a file")
    return Path(text)


def split_address(path: str | os.PathLike[str]) -> tuple[RemoteFolder, str]:
    """The folder and the name of a file at an address."""
    parent, _, name = address_text(path).rstrip("/").rpartition("/")
    if not name or parent.endswith(("/", ":")):
        raise OutputError(address_text(path), "the address names no file")
    return RemoteFolder(parent), name


def is_work(path: Path) -> bool:
    """Whether a folder is a work folder of ours: a real one, with the marker in it."""
    try:
        marker = path / MARKER
        if not stat.S_ISDIR(os.lstat(path).st_mode) or not stat.S_ISREG(os.lstat(marker).st_mode):
            return False
        with open(marker, "rb") as file:
            return file.read(len(MARKER_TEXT) + 1) == MARKER_TEXT
    except OSError:
        return False


class LocalFolder:
    """A folder on this machine, or on a file system that all workers share."""

    def __init__(self, path: Path, *, work: Path | None = None) -> None:
        self.path = path
        self.name = str(path)
        self.work = work or path / WORK

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """See :class:`Folder`."""
        with open(self.path / key, "rb") as file:
            file.seek(start)
            return file.read(-1 if stop is None else stop - start)

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See :class:`Folder`."""
        with self.staged(key) as part:
            part.write_bytes(data)

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """See :class:`Folder`."""
        target = self.path / key
        staging = self.work / "tmp"
        part = staging / f"{secrets.token_hex(8)}{target.suffix}"
        try:
            staging.mkdir(parents=True, exist_ok=True)
            yield part
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
        except BaseException as error:
            _discard(part)
            if isinstance(error, OutputError):  # a writer of ours, speaking of the staged path
                raise OutputError(str(target), error.reason) from error
            if isinstance(error, OSError):
                raise OutputError(str(target), (error.strerror or str(error)).lower()) from error
            raise

    def size(self, key: str) -> int | None:
        """See :class:`Folder`."""
        path = self.path / key
        return path.stat().st_size if path.is_file() else None

    def unchanged(self, written: Mapping[str, Made]) -> bool:
        """See :class:`Folder`."""
        try:
            for key, made in written.items():
                status = os.stat(self.path / key)
                if (status.st_size, status.st_mtime_ns) != (made.bytes, made.modified):
                    return False
        except OSError:
            return False
        return True

    def keys(self, prefix: str = "", *, folders: bool = False) -> list[str]:
        """See :class:`Folder`."""
        path = self.path / prefix
        found = path.iterdir() if path.is_dir() else ()
        return sorted(each.name for each in found if (each.is_dir() if folders else each.is_file()))

    def remove(self, key: str) -> None:
        """See :class:`Folder`."""
        path = self.path / key
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(FileNotFoundError, NotADirectoryError):  # below a file there is nothing either
                path.unlink()

    def below(self, key: str) -> LocalFolder:
        """See :class:`Folder`."""
        return LocalFolder(self.path / key, work=self.work)

    def make_work(self) -> None:
        """Make this folder, to hold work that is deleted with it; one that is there must be a real one of ours.

        Raises
        ------
        OutputError
            If it is a link or a file, or holds something and lacks the marker of a work folder.
        OSError
            If it cannot be made.
        """
        with suppress(FileExistsError):  # a file in the parent's place is said by the next line
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            self.path.mkdir()
        if not stat.S_ISDIR(os.lstat(self.path).st_mode):
            raise OutputError(
                self.name,
                "it is a link or a file, but PatchPrism needs a work folder of this name; remove it",
            )
        if not is_work(self.path):
            if {path.name for path in self.path.iterdir()} - {LOCK, ENDING}:
                raise OutputError(
                    self.name,
                    "PatchPrism needs a work folder of this name, but did not make the folder that is there; "
                    "move it",
                )
            with suppress(FileExistsError), open(self.path / MARKER, "xb") as file:
                file.write(MARKER_TEXT)

    def open_lock(self) -> IO[bytes]:
        """The file to lock in a work folder; never one that a link leads to, and nothing in it is changed."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            return os.fdopen(os.open(self.path / LOCK, flags, 0o666), "r+b", buffering=0)
        except OSError as error:
            if error.errno == errno.ELOOP or not stat.S_ISREG(os.lstat(self.path / LOCK).st_mode):
                raise OutputError(str(self.path / LOCK), "it is a link; remove it") from error
            raise

    def refuse_links(self) -> None:
        """Refuse a work folder in which a link would lead what is written or deleted to somewhere else.

        Raises
        ------
        OutputError
            If there is one.
        """
        for base, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                status = os.lstat(os.path.join(base, name))
                if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                    raise OutputError(
                        os.path.join(base, name), "it is a link in PatchPrism's work folder; remove it"
                    )


class RemoteFolder:
    """A folder in an object store, through fsspec; there, a file appears when its upload is complete."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.name = self.url
        self._listed: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_listed": None}  # workers have no use for it

    def _at(self, key: str) -> tuple[Any, str]:
        return filesystem(f"{self.url}/{key}" if key else self.url)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """See :class:`Folder`."""
        system, path = self._at(key)
        return bytes(system.cat_file(path, start=start, end=stop))

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See :class:`Folder`."""
        system, path = self._at(key)
        try:
            # Stores of objects know no folders and do nothing here; file systems behind an address do.
            system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            system.pipe_file(path, bytes(data))
        except Exception as error:  # each kind of address has exceptions of its own
            raise OutputError(f"{self.url}/{key}", reason_of(error)) from error

    @contextmanager
    def staged(self, key: str) -> Iterator[Path]:
        """See :class:`Folder`."""
        with tempfile.TemporaryDirectory(prefix="patchprism-") as scratch:
            part = Path(scratch, f"staged{Path(key).suffix}")
            yield part
            self.write(key, part.read_bytes())

    def size(self, key: str) -> int | None:
        """See :class:`Folder`."""
        system, path = self._at(key)
        try:
            info = system.info(path)
        except FileNotFoundError:
            return None
        return int(info["size"]) if info["type"] == "file" else None

    def unchanged(self, written: Mapping[str, Made]) -> bool:
        """See :class:`Folder`; by their sizes, and as it was when this was first asked: one request for all files."""
        if self._listed is None:
            self._listed = self.sizes()
        return all(self._listed.get(key) == made.bytes for key, made in written.items())

    def keys(self, prefix: str = "", *, folders: bool = False) -> list[str]:
        """See :class:`Folder`."""
        return sorted(self.sizes(prefix, "directory" if folders else "file"))

    def sizes(self, prefix: str = "", kind: str = "file") -> dict[str, int]:
        """Sizes of the files, or of what else is asked for, directly in a folder below, by name."""
        system, path = self._at(prefix)
        system.invalidate_cache()
        try:
            listed = system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # each kind of address has exceptions of its own
            raise OutputError(f"{self.url}/{prefix}".rstrip("/"), reason_of(error)) from error
        found = ((each["name"].rstrip("/").rsplit("/", 1)[-1], each) for each in listed)
        return {name: int(each["size"] or 0) for name, each in found if each["type"] == kind}

    def remove(self, key: str) -> None:
        """See :class:`Folder`."""
        system, path = self._at(key)
        if system.exists(path):
            system.rm(path, recursive=True)

    def below(self, key: str) -> RemoteFolder:
        """See :class:`Folder`."""
        return RemoteFolder(f"{self.url}/{key}")


@contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file as a path of this machine: itself, or a copy of what is at an address while the block runs.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the address.
    OSError
        If the address cannot be read.
    """
    if not is_remote(path):
        yield local_path(path)
        return
    system, at = filesystem(address_text(path))
    with tempfile.TemporaryDirectory(prefix="patchprism-") as scratch:
        copy = Path(scratch, "copy")
        try:
            copy.write_bytes(system.cat_file(at))
        except OSError:
            raise
        except Exception as error:  # each kind of address has exceptions of its own
            raise OSError(reason_of(error)) from error
        yield copy


def check_content(path: Path) -> None:
    """Refuse a file of this machine that cannot be read, or that is empty.

    Raises
    ------
    OSError
        If it cannot be opened; safetensors calls that a missing file.
    ValueError
        If it is empty.
    """
    with path.open("rb") as file:
        if not file.read(1):
            raise ValueError("the file is empty")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises
    ------
    OptionError
        If it is no address of a kind that is known.
    ExtraError
        If fsspec, or what it needs for this kind of address, is not installed.
    OptionError
        If there is no such kind of address.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.split("::")[-1].split("://")[0]
        raise ExtraError.of(error, "ray", f"reading or writing {scheme}://", "ray") from error
    except PatchPrismError:
        raise
    except Exception as error:  # an unknown protocol, credentials that make no sense
        raise OptionError(f"{said(url)} cannot be opened as an address: {reason_of(error)}") from error
    return system, path


def reason_of(error: BaseException) -> str:
    """The message of an exception from another library, on one line."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(said).strip().split("\n")[0]


def _discard(part: Path) -> None:
    # The first failure is the one to report.
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return
