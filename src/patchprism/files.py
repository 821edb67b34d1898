"""Writing files so that nobody ever meets half of one."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
