"""Write files so that no unfinished file is ever visible."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from patchprism.errors import OutputError
from patchprism.support.folders import (
    address_text,
    discard,
    filesystem,
    is_remote,
    local_path,
    split_address,
    system_reason,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path to write to, which is renamed to ``path`` if the block raises no error.

    The temporary file lies in the same folder (a rename within a file system is atomic), is hidden, and keeps the
    suffix, because some writers choose the format by it. If the block raises an error, the temporary file is removed,
    and the file at ``path`` stays as it was.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, in a folder that exists, or an address, to which the temporary file is copied.

    Yields
    ------
    Path
        Where the block must write.

    Raises
    ------
    OutputError
        If the operating system refuses (no such folder, no permission, disk full), or if ``path`` is a device.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "note.txt") as part:
    ...         _ = part.write_text("whole")
    ...     (Path(folder) / "note.txt").read_text()
    'whole'
    """
    if is_remote(path):
        folder, name = split_address(path)
        with folder.staged(name) as part:
            yield part
        return
    target = local_path(path)
    _refuse_device(target)
    # Not tempfile.mkstemp, because it creates files that only their owner may read, and a rename keeps this mode.
    part = part_beside(target)
    try:
        with _held(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY):
            yield part
            os.replace(part, target)
    except OSError as error:
        discard(part)
        raise OutputError(str(target), _reason(error)) from error
    except BaseException:
        discard(part)
        raise


_PART = re.compile(r"\.patchprism-[0-9a-f]{16}\.part(\.\w+)?")


def part_beside(target: Path) -> Path:
    """A new temporary name for a file or folder: hidden, in the same folder, with the same suffix."""
    return target.with_name(f".patchprism-{secrets.token_hex(8)}.part{target.suffix}")


@contextmanager
def held_folder(part: Path) -> Iterator[None]:
    """Make a folder that :func:`clean_parts` leaves alone while the block runs."""
    part.mkdir()
    with _held(part, os.O_RDONLY):
        yield


@contextmanager
def _held(part: Path, flags: int) -> Iterator[None]:
    """Hold a lock that tells :func:`clean_parts` that a part is in use. If the process is killed, it is released."""
    try:
        import fcntl
    except ImportError:  # on Windows, clean_parts does nothing
        yield
        return
    descriptor = os.open(part, flags, 0o666)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def clean_parts(folder: str | os.PathLike[str]) -> None:
    """Remove unfinished files of killed runs from a folder, but not those that are in use."""
    try:
        import fcntl

        entries = list(os.scandir(folder))
    except (ImportError, OSError):
        return
    for entry in entries:
        if not _PART.fullmatch(entry.name) or not (
            entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False)
        ):
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
            finally:
                os.close(descriptor)


def check_target(
    path: str | os.PathLike[str],
    photos: Iterable[str | os.PathLike[str]] = (),
    *,
    read: Iterable[str | os.PathLike[str] | None] = (),
    make_folder: bool = False,
) -> str:
    """Check, before anything is computed, that one file can be written, and return its path or address as text.

    An existing file may be replaced, unless the job reads it.

    Parameters
    ----------
    path : path
        Path or address of the file to write.
    photos : iterable of path
        The job's photos.
    read : iterable of path or None
        Other inputs of the job: files, and folders such as a feature store.
    make_folder : bool
        Whether the job creates the folder if it is missing.

    Raises
    ------
    OutputError
        If its folder does not exist, if it is a folder or a device, or if the job reads it.
    """
    photos = list(photos)
    if is_remote(path):
        text = address_text(path)
        split_address(path)
        check_writable(text)
        refuse_what_is_read(text, [*photos, *read])
        return text
    target = local_path(path)
    if target.is_dir():
        raise OutputError(str(target), "it is a folder")
    _refuse_device(target)
    if make_folder:
        refuse_no_folder(target, above=True)
    elif not target.parent.is_dir():
        raise OutputError(str(target), "its folder does not exist; create it first")
    refuse_to_replace(target.parent, [target.name], [each for each in photos if not is_remote(each)])
    refuse_what_is_read(target, read)
    clean_parts(target.parent)
    return str(target)


def refuse_no_folder(path: str | os.PathLike[str], *, above: bool = False) -> None:
    """Refuse an output folder if it, or a folder above it, is not a folder.

    Parameters
    ----------
    above : bool
        Whether to check only the folders above ``path``, which is then the path of a file.

    Raises
    ------
    OutputError
        If one of them is a file or a broken link.
    """
    folder = local_path(path)
    for each in folder.parents if above else (folder, *folder.parents):
        if os.path.isdir(each):
            return
        if os.path.lexists(each):
            what = "a file, not a folder" if os.path.exists(each) else "a link to a file that does not exist"
            raise OutputError(str(folder), f"{'it' if each == folder else each} is {what}")


def refuse_what_is_read(path: str | os.PathLike[str], read: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse to replace an input of the job, or to write into a folder that is an input.

    Parameters
    ----------
    path : path
        Path or address of the file or folder to write.
    read : iterable of path or None
        Inputs of the job: files, folders such as a feature store, and networks in folders (``hf:FOLDER``).

    Raises
    ------
    OutputError
        If ``path`` is one of the inputs, or lies in one.
    """
    remote = is_remote(path)
    text = address_text(path).rstrip("/") if remote else str(local_path(path))
    real = text if remote else _real(text)
    for each in read:
        if not each:
            continue
        given = each.removeprefix("hf:") if isinstance(each, str) else each
        if is_remote(given) != remote:
            continue
        if remote:
            theirs = address_text(given).rstrip("/")
            found = real == theirs or real.startswith(f"{theirs}/")
        else:
            other = local_path(given)
            if not os.path.lexists(other):
                continue
            # If the input is a link, neither the link itself nor its target may be replaced.
            names = {os.path.realpath(other), _real(other)}
            found = real in names or any(
                real.startswith(name + os.sep) for name in names if os.path.isdir(name)
            )
        if found:
            raise OutputError(text, "this job reads it")


def _real(path: str | os.PathLike[str]) -> str:
    """The path with all links resolved, except one at its end."""
    home, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(home), name)


def check_writable(address: str) -> None:
    """Refuse addresses that can only be read, and those that cannot be opened.

    Raises
    ------
    OutputError
        If it is a web address or a data URL.
    ExtraError, OptionError
        From :func:`patchprism.support.folders.filesystem`.
    """
    scheme = address.split("://")[0].lower()
    if scheme in ("http", "https", "data"):
        raise OutputError(address, f"{scheme} addresses can only be read")
    filesystem(address)


def refuse_to_replace(
    folder: str | os.PathLike[str], names: Iterable[str], read: Iterable[str | os.PathLike[str]]
) -> None:
    """Refuse to write files over the photos of the job.

    A link to a photo may be replaced: the rename replaces the link, and the photo stays.

    Parameters
    ----------
    folder : path
        Where files are to be written.
    names : iterable of str
        Names of these files.
    read : iterable of path
        The job's photos.

    Raises
    ------
    OutputError
        If a photo would be replaced.

    Examples
    --------
    >>> refuse_to_replace("photos", ["results.png"], ["photos/dog.png", "results.png"])
    """
    written, home = set(names), os.path.realpath(folder)
    homes: dict[str, str] = {}
    for path in read:
        base, name = os.path.split(os.fspath(path))
        if name in written:
            if base not in homes:
                homes[base] = os.path.realpath(base or ".")
            if homes[base] == home:
                raise OutputError(os.fspath(path), "it is one of the photos of this job")


def _refuse_device(target: Path) -> None:
    """Refuse to replace a device, a pipe or a socket: after a rename, it would be lost for every program."""
    try:
        mode = os.stat(target).st_mode
    except (
        OSError,
        ValueError,
    ):  # it does not exist, or the name is invalid, which is reported when it is written
        return
    # /dev/stdout is a link, and may lead to a file.
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)) or os.path.realpath(target.parent) == "/dev":
        raise OutputError(str(target), "it is a device or a pipe; choose a file")


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "its folder does not exist; create it first"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    return system_reason(error)
