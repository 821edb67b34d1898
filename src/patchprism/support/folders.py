"""One interface to local folders and to folders in an object store. No unfinished file is ever visible."""

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
from patchprism.support.checks import short_repr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# A folder of this name contains everything that a job needs only until it is finished, and the temporary files of
# killed workers. So no unfinished file is left when it is removed.
WORK = ".patchprism-work"
# This file distinguishes our work folders from other folders of the same name.
MARKER = "PATCHPRISM-WORK"
# Files in a work folder. The job that works in the folder holds LOCK. It creates ENDING when it has ended and begins
# to remove the folder; these two files are removed last.
LOCK, ENDING = "lock", "ending"
MARKER_TEXT = b"PatchPrism keeps unfinished work here, and deletes this folder when the job is done.\n"


class Made(Protocol):
    """Size and time of a file when it was written, such as a :class:`~patchprism.support.written.Stamp`."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def modified(self) -> int:
        """Its time in nanoseconds."""


class Folder(Protocol):
    """A folder. Keys are relative paths with ``/``. Folders can be pickled and sent to workers."""

    name: str

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a file, from ``start`` up to but not including ``stop``; OSError if the file is missing."""

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Create or replace a file atomically; OutputError if that fails."""

    def staged(self, key: str) -> Any:
        """A context manager: a local path to write to, which becomes the file if the block raises no error."""

    def size(self, key: str) -> int | None:
        """Size of a file in bytes; None if it is missing."""

    def keys(self, prefix: str = "", *, folders: bool = False) -> list[str]:
        """Sorted names of the files (or of the folders) directly in a subfolder."""

    def unchanged(self, written: Mapping[str, Made]) -> bool:
        """Whether all of these files still exist directly in this folder, with the same size and time."""

    def remove(self, key: str) -> None:
        """Remove a file, or a folder with all its contents, if it exists."""

    def below(self, key: str) -> Folder:
        """A subfolder of this folder."""


# Path objects turn the two slashes of an address into one.
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")


def address_text(path: str | os.PathLike[str]) -> str:
    """The text of a path or an address; an address that lost a slash in a path object is corrected.

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
        return (
            True  # without fsspec the address cannot be opened, and opening it raises the error that says so
        )
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
    """A local path as a :class:`~pathlib.Path`; in an address ``file://...``, escapes such as ``%20`` are decoded.

    Raises
    ------
    OptionError
        If the address contains ``%00``, which no path can contain.

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
    """Whether a folder is one of our work folders: not a link, and with the marker in it."""
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
            discard(part)
            if isinstance(error, OutputError):  # raised by one of our writers; it names the staged path
                raise OutputError(str(target), error.reason) from error
            if isinstance(error, OSError):
                raise OutputError(str(target), system_reason(error)) from error
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
            with suppress(FileNotFoundError, NotADirectoryError):  # the latter if a parent is a file
                path.unlink()

    def below(self, key: str) -> LocalFolder:
        """See :class:`Folder`."""
        return LocalFolder(self.path / key, work=self.work)

    def make_work(self) -> None:
        """Create this folder as a work folder. If it exists, it must be a work folder or empty, and not a link.

        Raises
        ------
        OutputError
            If it is a link or a file, or if it has contents but not the marker of a work folder.
        OSError
            If it cannot be created.
        """
        with suppress(FileExistsError):  # if the parent is a file, the next line raises an error
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
        """Open the lock file of a work folder without changing its contents; a link is refused."""
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        try:
            return os.fdopen(os.open(self.path / LOCK, flags, 0o666), "r+b", buffering=0)
        except OSError as error:
            if error.errno == errno.ELOOP or not stat.S_ISREG(os.lstat(self.path / LOCK).st_mode):
                raise OutputError(str(self.path / LOCK), "it is a link; remove it") from error
            raise

    def refuse_links(self) -> None:
        """Refuse a work folder that contains a link, because files elsewhere could be overwritten or deleted.

        Raises
        ------
        OutputError
            If there is a link.
        """
        for base, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                status = os.lstat(os.path.join(base, name))
                if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                    raise OutputError(
                        os.path.join(base, name), "it is a link in PatchPrism's work folder; remove it"
                    )


class RemoteFolder:
    """A folder in an object store, accessed with fsspec. A file there becomes visible when its upload is complete."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.name = self.url
        self._listed: dict[str, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_listed": None}  # workers do not need the listing

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
            # This does nothing in object stores, which have no folders, but other remote file systems need it.
            system.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            system.pipe_file(path, bytes(data))
        except Exception as error:  # each file system raises its own exceptions
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
        """See :class:`Folder`. Compares only sizes, with a listing that is fetched once, at the first call."""
        if self._listed is None:
            self._listed = self.sizes()
        return all(self._listed.get(key) == made.bytes for key, made in written.items())

    def keys(self, prefix: str = "", *, folders: bool = False) -> list[str]:
        """See :class:`Folder`."""
        return sorted(self.sizes(prefix, "directory" if folders else "file"))

    def sizes(self, prefix: str = "", kind: str = "file") -> dict[str, int]:
        """Sizes in bytes, by name, of the entries of one kind ("file" or "directory") directly in a subfolder."""
        system, path = self._at(prefix)
        system.invalidate_cache()
        try:
            listed = system.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        except Exception as error:  # each file system raises its own exceptions
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
    """A file as a local path; the file at an address is copied for the duration of the block.

    Raises
    ------
    FileNotFoundError
        If there is no file at the address.
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
        except Exception as error:  # each file system raises its own exceptions
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
        If the protocol is unknown, or the address cannot be opened.
    ExtraError
        If fsspec, or the package that it needs for this protocol, is not installed.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        scheme = url.split("::")[-1].split("://")[0]
        raise ExtraError.of(error, "ray", f"reading or writing {scheme}://", "ray") from error
    except PatchPrismError:
        raise
    except Exception as error:  # an unknown protocol, or invalid credentials, for example
        raise OptionError(f"{short_repr(url)} cannot be opened as an address: {reason_of(error)}") from error
    return system, path


def reason_of(error: BaseException) -> str:
    """The message of an exception from another library, on one line."""
    message = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(message).strip().split("\n")[0]


def system_reason(error: OSError) -> str:
    """What the operating system says about an error, for the end of a message."""
    return (error.strerror or str(error)).lower()


def discard(part: Path) -> None:
    """Remove a temporary file after a failure. The failure is reported, so errors of the removal are ignored."""
    with suppress(OSError):
        part.unlink(missing_ok=True)
