"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that becomes ``path`` once the block has ended well.

    The temporary file lies in the same folder (a rename within a file system is atomic), is hidden, and
    keeps the suffix, since some writers choose the format by it. When the block raises, it is removed and
    what lay at ``path`` before is still there.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write, in a folder that exists.

    Yields
    ------
    Path
        Where the block must write.

    Raises
    ------
    OutputError
        If the operating system refuses: no such folder, no permission, disk full.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "note.txt") as part:
    ...         _ = part.write_text("whole")
    ...     (Path(folder) / "note.txt").read_text()
    'whole'
    """
    target = Path(path)
    # Not tempfile.mkstemp: it makes files that only their owner may read, and rename keeps that.
    part = target.with_name(f".{secrets.token_hex(8)}.part{target.suffix}")
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        _discard(part)
        raise OutputError(str(target), _reason(error)) from error
    except BaseException:
        _discard(part)
        raise


def refuse_to_replace(
    folder: str | os.PathLike[str], names: Iterable[str], read: Iterable[str | os.PathLike[str]]
) -> None:
    """Refuse to write files over what a job reads.

    A link is no refuge for a photo's other name: renaming replaces the link, and leaves the photo.

    Parameters
    ----------
    folder : path
        Where files are to be written.
    names : iterable of str
        Their names in it.
    read : iterable of path
        The job's photos.

    Raises
    ------
    OutputError
        If one is among them.

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


def _discard(part: Path) -> None:
    # The first failure is the one to report; a folder that has vanished fails here as well.
    try:
        part.unlink(missing_ok=True)
    except OSError:
        return


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "its folder does not exist"
    if isinstance(error, IsADirectoryError):
        return "a folder of that name is there already"
    return (error.strerror or str(error)).lower()
