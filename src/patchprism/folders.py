"""Folders of bytes, here or in an object store, with the same few verbs; every write is whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from patchprism.checks import said
from patchprism.errors import ExtraError, OptionError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Everything that is only needed until a job is finished lies below a folder of this name, temporary files of
# workers that were killed included, so that taking it away leaves nothing half-written anywhere.
WORK = ".patchprism-work"


class Folder(Protocol):
    """A folder; keys are relative paths with ``/``. It can be pickled and sent to a worker."""

    name: str

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes of a file, from ``start`` to before ``stop``; OSError where there is none."""

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Make or replace a file, whole or not at all; OutputError if that fails."""

    def staged(self, key: str) -> Any:
        """A context manager: a local path to write to that becomes the file when the block ends well."""

    def size(self, key: str) -> int | None:
        """A file's size in bytes, None where there is none."""

    def keys(self, prefix: str = "") -> list[str]:
        """The files directly in a folder below, by name."""

    def remove(self, key: str) -> None:
        """Take a file, or a folder with all in it, away; fine if there is none."""

    def below(self, key: str) -> Folder:
        """A folder in this one."""


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is an address such as ``s3://bucket/key``; ``file://`` is local."""
    text = os.fsdecode(path)
    return "://" in text and not text.startswith("file://")


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """The folder at a path or at an address that fsspec opens."""
    if is_remote(path):
        return RemoteFolder(os.fspath(path))
    return LocalFolder(local_path(path))


def local_path(path: str | os.PathLike[str]) -> Path:
    """A path without the ``file://`` that it may begin with."""
    return Path(os.fsdecode(path).removeprefix("file://"))


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

    def keys(self, prefix: str = "") -> list[str]:
        """See :class:`Folder`."""
        path = self.path / prefix
        return sorted(each.name for each in path.iterdir() if each.is_file()) if path.is_dir() else []

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


class RemoteFolder:
    """A folder in an object store, through fsspec; there, a file appears when its upload is complete."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.name = self.url

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
        except OSError as error:
            raise OutputError(f"{self.url}/{key}", error.strerror or str(error)) from error

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

    def keys(self, prefix: str = "") -> list[str]:
        """See :class:`Folder`."""
        system, path = self._at(prefix)
        system.invalidate_cache()
        try:
            listed = system.ls(path, detail=True)
        except FileNotFoundError:
            return []
        return sorted(each["name"].rsplit("/", 1)[-1] for each in listed if each["type"] == "file")

    def remove(self, key: str) -> None:
        """See :class:`Folder`."""
        system, path = self._at(key)
        if system.exists(path):
            system.rm(path, recursive=True)

    def below(self, key: str) -> RemoteFolder:
        """See :class:`Folder`."""
        return RemoteFolder(f"{self.url}/{key}")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it.

    Raises
    ------
    OptionError
        If it is no address of a kind that is known.
    ExtraError
        If fsspec, or what it needs for this kind of address, is not installed.
    """
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ExtraError("ray", f"reading or writing {url.split('://')[0]}:// ({error})") from error
    except Exception as error:  # an unknown protocol; a host, port or user that makes no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OptionError(f"{said(url)} is no address that can be opened: {reason}") from error
    return system, path


def _discard(part: Path) -> None:
    # The first failure is the one to report.
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return
