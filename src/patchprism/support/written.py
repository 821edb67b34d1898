"""Record the files that jobs wrote into a folder. Files in the record may be replaced; all others belong to the user.

A report (``report.json``, ``compare.json``) lists the files of its job, each with size and SHA-256. If the user has
replaced one of these files, its size or SHA-256 differs, so the file belongs to the user. A job first checks that it
would not replace any file of the user. Before a file is renamed to its final name, a line in
``.patchprism-files.log`` records its size and SHA-256, so that the files of a killed run are recognised, too. At the
end, ``.patchprism-files.json`` lists all files that are in no report: those of earlier jobs with other options, and
the pictures of a video. If there are none, it is removed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from patchprism.errors import OutputError
from patchprism.support.files import (
    atomic_write,
    check_writable,
    clean_parts,
    refuse_no_folder,
    refuse_to_replace,
)
from patchprism.support.folders import (
    LocalFolder,
    RemoteFolder,
    address_text,
    is_remote,
    local_path,
    open_folder,
    reason_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from patchprism.support.folders import Folder

RECORD = ".patchprism-files.json"
JOURNAL = ".patchprism-files.log"
PRISM = "prism.safetensors"
REPORTS = ("report.json", "compare.json")
VERSION = 1
# Versions that can be read, of this record and of the reports.
VERSIONS = (1, 2)
# Bytes, enough for a record of a million files. Larger reports are not read; the record then lists their files, too.
MAX_RECORD = 256 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}|")


class Stamp(NamedTuple):
    """Size, SHA-256 and time of a file, which show whether it was replaced.

    Attributes
    ----------
    sha256 : str
        Empty if it has not been computed.
    modified : int
        Time in nanoseconds; 0 if it is not recorded. Reports do not record it, so that reports of equal pictures
        are equal, byte for byte.
    """

    bytes: int
    sha256: str = ""
    modified: int = 0


def stamp(path: str | os.PathLike[str]) -> Stamp:
    """The stamp of a file."""
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        return Stamp(status.st_size, hashlib.file_digest(file, "sha256").hexdigest(), status.st_mtime_ns)


class Record:
    """Contents of the records in a folder.

    Attributes
    ----------
    files : dict
        Stamps by name.
    writing : set
        Names that the last run was about to write. They are used only in remote folders, which have no journal.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.files: dict[str, Stamp] = {}
        self.writing: set[str] = set()
        self._themselves: set[str] = set()  # records cannot hold their own stamps
        for name in (*REPORTS, RECORD):
            content = _read(folder, name)
            if content is None:
                continue
            self._themselves.add(name)
            self.files |= _stamps(content)
            if name == RECORD:
                writing = content.get("writing")
                self.writing = set(filter(_is_name, writing if isinstance(writing, list) else ()))
        if RECORD in self._themselves:
            self.files |= _journal(folder)

    def __contains__(self, name: str) -> bool:
        """Whether we wrote the file of that name and it is unchanged; in a remote folder, whether it is listed."""
        if name in self._themselves:
            return True
        if not isinstance(self.folder, LocalFolder):
            return name in self.files or name in self.writing
        if name not in self.files:
            return False
        path = self.folder.path / name
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode):
                return False
            made = self.files[name]
            if status.st_size != made.bytes:
                return False
            # If the time is the same, the file need not be read. If it differs, the file may be a copy.
            return 0 < made.modified == status.st_mtime_ns or (
                bool(made.sha256) and stamp(path).sha256 == made.sha256
            )
        except OSError:
            return False

    def has(self, name: str, size: int) -> bool:
        """Whether we wrote a file of a remote folder and its size is unchanged."""
        made = self.files.get(name)
        return name in self and (made is None or name in self.writing or made.bytes == size)


def is_ours(paths: Iterable[Path]) -> Iterator[bool]:
    """Whether each local file is listed in a record in its folder."""
    home, record = None, None
    for path in paths:
        if path.parent != home:
            home = path.parent
            known = any(os.path.lexists(home / name) for name in (RECORD, *REPORTS))
            record = Record(LocalFolder(home)) if known else None
        yield record is not None and path.name in record


def _read(folder: Folder, name: str) -> dict[str, Any] | None:
    """Contents of a record; None if there is none, or if it is not ours."""
    try:
        if isinstance(folder, LocalFolder):
            status = os.lstat(folder.path / name)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_RECORD:
                return None
        elif (folder.size(name) or MAX_RECORD + 1) > MAX_RECORD:
            return None
        content = json.loads(folder.read(name))
    except (OSError, ValueError, RecursionError):
        return None
    ours = (
        isinstance(content, dict)
        and content.get("version") in VERSIONS
        and isinstance(content.get("patchprism"), str)
    )
    return content if ours else None


def promise(folder: Folder, name: str, made: Stamp) -> None:
    """Add a line to the journal: this file is about to be renamed to ``name``. Remote folders have no journal."""
    if isinstance(folder, LocalFolder):
        line = json.dumps({"name": name, **made._asdict()}).encode() + b"\n"
        # One write to the end of the file, so that lines of several processes do not mix.
        with open(folder.path / JOURNAL, "ab", buffering=0) as file:
            file.write(line)


def _journal(folder: Folder) -> dict[str, Stamp]:
    """Files in the journal of an interrupted run; invalid lines are ignored."""
    if not isinstance(folder, LocalFolder):
        return {}
    try:
        status = os.lstat(folder.path / JOURNAL)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_RECORD:
            return {}
        lines = (folder.path / JOURNAL).read_bytes().splitlines()
    except OSError:
        return {}
    found: dict[str, Stamp] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            found |= _stamps({"files": {entry.pop("name"): entry}})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
    return found


def _is_name(name: Any) -> bool:
    if not isinstance(name, str) or name in ("", ".", ".."):
        return False
    return not any(sign in name for sign in "/\\\0")


def _stamps(record: dict[str, Any]) -> dict[str, Stamp]:
    """The files that a record lists; invalid entries are ignored."""
    files = record.get("files")
    found = {}
    for name, made in files.items() if isinstance(files, dict) else ():
        if not _is_name(name) or not isinstance(made, dict):
            continue
        size, digest, modified = made.get("bytes"), made.get("sha256"), made.get("modified", 0)
        if (
            type(size) is int
            and type(modified) is int
            and isinstance(digest, str)
            and _SHA256.fullmatch(digest)
        ):
            found[name] = Stamp(size, digest, modified)
    return found


def as_json(files: Mapping[str, Stamp]) -> dict[str, Any]:
    """Stamps by name, as in reports."""
    return {name: {"bytes": made.bytes, "sha256": made.sha256} for name, made in files.items()}


class Output:
    """A folder that a job writes into.

    Parameters
    ----------
    out : path
        A folder, which :meth:`claim` creates, or an address.
    prism : path
        The prism that the job reads, if any. If it is in this folder, it is not replaced.

    Attributes
    ----------
    written : dict
        Stamps of the files that the job has written so far.
    """

    def __init__(self, out: str | os.PathLike[str], *, prism: str | os.PathLike[str] = "") -> None:
        self.folder = open_folder(out)
        self.keeps_prism = bool(prism) and self._is_here(prism)
        self.written: dict[str, Stamp] = {}
        self._kept: dict[str, Stamp] = {}

    def path(self, name: str) -> str:
        """Path or address of a file in the folder."""
        if isinstance(self.folder, RemoteFolder):
            return f"{self.folder.name}/{name}"
        return os.path.join(self.folder.name, name)

    def _is_here(self, prism: str | os.PathLike[str]) -> bool:
        path = self.path(PRISM)
        if isinstance(self.folder, RemoteFolder) or is_remote(prism):
            return address_text(prism) == address_text(path)
        try:
            return os.path.samefile(local_path(prism), path)
        except OSError:  # one of them does not exist
            return False

    def check(self, names: Iterable[str], read: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Refuse to replace files of the user.

        Parameters
        ----------
        names : iterable of str
            Names of the files that the job may write.
        read : iterable of path
            The job's photos.

        Raises
        ------
        OutputError
            If a file of one of these names exists that no record lists, or that the job reads.
        """
        names = self._to_write(names)
        if isinstance(self.folder, LocalFolder):
            refuse_no_folder(self.folder.path)
            refuse_to_replace(self.folder.path, names, (each for each in read if not is_remote(each)))
        else:
            check_writable(self.folder.name)
        there = _there(self.folder)
        taken = [there[key] for name in names if (key := _folded(name)) in there]
        if not taken:
            return
        record = Record(self.folder)
        for name, size in taken:
            if name not in record or (size is not None and not record.has(name, size)):
                raise OutputError(
                    self.path(name),
                    "it exists already, and PatchPrism did not write it; move it, or write to another folder",
                )

    def claim(self, names: Iterable[str], read: Iterable[str | os.PathLike[str]] = ()) -> None:
        """Check, create the folder, remove unfinished files of killed runs, and record which files will be written.

        Raises
        ------
        OutputError
            As for :meth:`check`, or if the folder cannot be created or written to.
        """
        names = self._to_write(names)
        self.check(names, read)
        if isinstance(self.folder, LocalFolder):
            try:
                self.folder.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(self.folder.name, reason_of(error).lower()) from error
            clean_parts(self.folder.path)
        record = Record(self.folder)
        for name, _ in _there(self.folder).values():
            if name == RECORD or name not in record:
                continue
            made = record.files.get(name)
            if made is not None:
                self._kept[name] = made
        self._write(self._kept, names)
        self.folder.remove(JOURNAL)  # its contents are now in the record

    def _to_write(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not (self.keeps_prism and name == PRISM)]

    def save_prism(self, save: Callable[[Path], object]) -> list[str]:
        """Write the prism, unless the job reads the one in this folder; returns the names of the files written."""
        if self.keeps_prism:
            return []
        with self.staged(PRISM) as part:
            save(part)
        return [PRISM]

    @contextmanager
    def staged(self, name: str) -> Iterator[Path]:
        """A local path to write to, which becomes the file if the block raises no error."""
        try:
            if isinstance(self.folder, LocalFolder):
                with atomic_write(self.folder.path / name) as part:
                    yield part
                    made = stamp(part)
                    promise(self.folder, name, made)
            else:
                with self.folder.staged(name) as part:
                    yield part
                    made = stamp(part)
        except OutputError as error:  # raised by one of our writers; it names the temporary file
            raise OutputError(self.path(name), error.reason) from error
        self.written[name] = made

    def finish(self) -> None:
        """Record the files that were written and that no report lists."""
        listed = set(REPORTS)
        for name in REPORTS:
            listed |= _stamps(_read(self.folder, name) or {}).keys()
        rest = {name: made for name, made in (self._kept | self.written).items() if name not in listed}
        if rest:
            self._write(rest, ())
        else:
            self.folder.remove(RECORD)
        self.folder.remove(JOURNAL)

    def _write(self, files: Mapping[str, Stamp], writing: Iterable[str]) -> None:
        from patchprism.support.version import __version__

        record = {
            "version": VERSION,
            "patchprism": __version__,
            "writing": list(writing),
            "files": {name: made._asdict() for name, made in files.items()},
        }
        content = json.dumps(record, indent=0).encode()
        if isinstance(self.folder, LocalFolder):
            with atomic_write(self.folder.path / RECORD) as part:
                part.write_bytes(content)
        else:
            self.folder.write(RECORD, content)


def _there(folder: Folder) -> dict[str, tuple[str, int | None]]:
    """All entries of a folder by folded name: the name, and the size if the listing includes it."""
    if isinstance(folder, LocalFolder):
        try:
            return {_folded(name): (name, None) for name in os.listdir(folder.path)}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise OutputError(folder.name, reason_of(error).lower()) from error
    assert isinstance(folder, RemoteFolder)
    return {_folded(name): (name, size) for name, size in folder.sizes().items()}


def _folded(name: str) -> str:
    """A name as the file system compares it: on macOS and Windows, ``Results.png`` is the same as ``results.png``."""
    if sys.platform in ("darwin", "win32"):
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return name
