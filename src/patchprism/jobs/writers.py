"""Write the files of a job: pictures, arrays, the report."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchprism.errors import OutputError
from patchprism.support.files import refuse_no_folder
from patchprism.support.folders import is_remote, local_path
from patchprism.support.json_values import to_json

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from patchprism.support.written import Output


WRITERS = 2  # encoding frees the interpreter lock; more threads would only hold more photos in memory


def check_folder(out: str | os.PathLike[str] | None) -> None:
    """Refuse an output folder that is a file, before anything is computed."""
    if out is not None and not is_remote(out):
        folder = local_path(out)
        try:
            folder.exists()
            refuse_no_folder(folder)
        except (OSError, ValueError) as error:  # a name that is too long, or contains NUL
            raise OutputError(str(folder), str(getattr(error, "strerror", None) or error).lower()) from error


class _NotWritten(Exception):
    """Discards a file whose writer decided not to write it."""


def write_files(output: Output, jobs: Sequence[tuple[Path, Callable[[Path], object]]]) -> None:
    """Write files by their names, several at once; a file whose writer returns False is left out."""

    def write_one(name: str, write: Callable[[Path], object]) -> None:
        with suppress(_NotWritten), output.staged(name) as part:
            if write(part) is False:
                raise _NotWritten

    with ThreadPoolExecutor(WRITERS, thread_name_prefix="patchprism-write") as pool:
        for future in [pool.submit(write_one, path.name, write) for path, write in jobs]:
            future.result()


def write_report(output: Output, name: str, report: dict[str, Any]) -> None:
    """Write a report as JSON; bytes in file names that are not text are escaped."""
    with output.staged(name) as part:
        text = to_json(report, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", "utf-8", errors="backslashreplace")


def paths_of(output: Output, names: Sequence[str]) -> list[Path] | list[str]:
    """Paths of the files with these names, or their addresses if the folder is remote."""
    paths = [output.path(name) for name in names]
    return paths if is_remote(output.folder.name) else [Path(each) for each in paths]
