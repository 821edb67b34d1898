"""Download one file over HTTP: with progress, resumed after a break, checked, and renamed only when complete."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchprism.backbones.checkpoint import file_kind
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from patchprism.backbones.record import Progress

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 0.5  # before the second attempt; doubled before each further one


class OfflineError(Exception):
    """The server cannot be reached. Users never see this error, because callers replace it with advice."""


class _BrokenError(OfflineError):
    """The server was reached, but broke off or asked to wait, so another attempt may succeed."""


@dataclass(frozen=True)
class _Notes:
    """The state of an unfinished download, which is kept in a file beside it."""

    url: str
    validator: str  # ETag or Last-Modified, which tells the server whether its file has changed since
    total: int | None


def fetch(
    url: str, path: Path, *, on_complete: Callable[[Path], None], progress: Progress | None = None
) -> None:
    """Download a file of weights to ``path``; processes that want the same file wait for each other.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``.
    path : Path
        Exists only when the download is complete.
    on_complete : callable
        Called with the complete file's temporary path, before it is renamed.
    progress : callable, optional
        ``progress(message, done_bytes, total_bytes or None)``.

    Raises
    ------
    OfflineError
        If the server cannot be reached, or every attempt is interrupted. Received data are kept, and the next call
        continues.
    WeightsError
        If the server refuses, the file does not contain weights, or the disk is full.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if path.is_file():  # another process was faster
                return
            part = path.with_name(path.name + ".part")
            _complete(url, part, path.name, progress)
            try:
                file_kind(part)
            except WeightsError as error:
                _forget(part)
                raise WeightsError(f"{url}: {str(error).removeprefix(f'{part}: ')}") from error
            on_complete(part)
            os.replace(part, path)
            _forget(part)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error


def _complete(url: str, part: Path, name: str, progress: Progress | None) -> None:
    """Complete the partial file, in several attempts if necessary."""
    for attempt in range(_ATTEMPTS):
        try:
            return _attempt(url, part, name, progress)
        except _BrokenError:
            if attempt + 1 == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_S * 2**attempt)
    return None


def _attempt(url: str, part: Path, name: str, progress: Progress | None) -> None:
    have, known = _resumable(url, part)
    headers = {"User-Agent": "patchprism", "Accept-Encoding": "identity"}
    if known is not None:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    with _open(urllib.request.Request(url, headers=headers), part) as response:
        # A server that ignores ranges, or whose file has changed, answers 200 with the whole file.
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        start, total = _extent(response, resumed=resumed)
        if resumed and (known is None or start != have or total != known.total):
            _forget(part)
            raise _BrokenError("it resumed at another place")
        done = have if resumed else 0
        notes = _Notes(url, _validator(response), total)
        if not resumed:
            # An older partial file must not be used as the beginning of the new download.
            part.unlink(missing_ok=True)
        _notes_path(part).write_text(json.dumps([notes.url, notes.validator, notes.total]), encoding="utf-8")
        with part.open("ab") as file:
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(f"downloading {name}", done, total)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and done != total:
        raise _BrokenError(f"it broke off after {done} of {total} bytes")


def _open(request: urllib.request.Request, part: Path) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"HTTP {error.code} {error.reason}"
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(part)
            raise _BrokenError(answer) from error
        if error.code >= 500 or error.code == http.HTTPStatus.TOO_MANY_REQUESTS:
            raise _BrokenError(answer) from error
        raise WeightsError(f"{request.full_url}: the server answers {answer}") from error
    except urllib.error.URLError as error:
        raise OfflineError(str(error.reason)) from error
    except (http.client.HTTPException, OSError, ValueError) as error:
        raise OfflineError(str(error) or type(error).__name__) from error


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read(_CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _BrokenError(str(error) or type(error).__name__) from error
    return data


def _extent(response: Any, *, resumed: bool) -> tuple[int, int | None]:
    """First byte and total length that an answer announces."""
    if resumed:
        # Content-Range: bytes 100-199/200
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = span.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(total) if total.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() else None)


def _validator(response: Any) -> str:
    etag = str(response.headers.get("ETag", ""))
    # A weak tag may not be used in If-Range (RFC 9110, section 13.1.5).
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _notes_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resumable(url: str, part: Path) -> tuple[int, _Notes | None]:
    """Number of bytes already received, and the state of the download; 0 and None if there is none."""
    try:
        known = _Notes(*json.loads(_notes_path(part).read_text(encoding="utf-8")))
        have = part.stat().st_size
    except (OSError, ValueError, TypeError, RecursionError):
        return 0, None
    if known.url != url or not known.validator or known.total is None or not 0 < have < known.total:
        return 0, None
    return have, known


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes_path(part).unlink(missing_ok=True)
