"""One file over HTTP: with progress, resumed after a break, checked, and renamed only when it is whole."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchprism.backbones.checkpoint import file_kind
from patchprism.errors import WeightsError

if TYPE_CHECKING:
    from typing import Any

# progress(message, bytes done, bytes in all or None)
Progress = Callable[[str, int, int | None], None]

_CHUNK = 1 << 20
_TIMEOUT_S = 30.0
_ATTEMPTS = 4
_PAUSE_S = 0.5  # before the second attempt; doubled before each further one


class Offline(Exception):
    """The server cannot be reached, or broke off again and again."""


@dataclass
class _Partial:
    """What is known of a download that is not whole yet, kept beside it."""

    url: str
    validator: str  # ETag or Last-Modified: the server then says whether the file is still the same one
    total: int | None


def fetch(
    url: str, path: Path, *, on_complete: Callable[[Path], None], progress: Progress | None = None
) -> None:
    """Download a file of weights to ``path``; two processes that want the same file do not disturb each other.

    Parameters
    ----------
    url : str
        ``http://`` or ``https://``.
    path : Path
        Appears only when the file is whole.
    on_complete : callable
        Called with the complete partial file, before it is renamed.
    progress : callable, optional
        ``progress(message, done_bytes, total_bytes or None)``.

    Raises
    ------
    Offline
        If the server cannot be reached, or breaks off in every attempt; what came is kept, and resumed later.
    WeightsError
        If the server refuses, what it sends is not weights, or the disk cannot take it.
    """
    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".lock")):
            if path.is_file():  # another process was faster
                return
            part = path.with_name(path.name + ".part")
            for attempt in range(_ATTEMPTS):
                if attempt:
                    time.sleep(_PAUSE_S * 2 ** (attempt - 1))
                try:
                    _attempt(url, part, path.name, progress)
                    break
                except Offline:
                    if attempt + 1 == _ATTEMPTS:
                        raise
            try:
                file_kind(part)
            except WeightsError as error:
                _forget(part)
                raise WeightsError(f"{url}: {str(error).removeprefix(f'{part}: ')}") from error
            on_complete(part)
            os.replace(part, path)
            _notes(part).unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror or error})") from error


def _attempt(url: str, part: Path, name: str, progress: Progress | None) -> None:
    """Bring the partial file to its full length, or raise."""
    have, known = _resumable(url, part)
    headers = {"User-Agent": "patchprism", "Accept-Encoding": "identity"}
    if have and known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known.validator}
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
            start, total = _extent(response, resumed=resumed)
            if resumed and (known is None or start != have or total != known.total):
                _forget(part)  # not what was asked for: the next attempt starts anew
                raise Offline("the server resumed at another place")
            validator = _validator(response)
            _notes(part).write_text(json.dumps([url, validator, total]), encoding="utf-8")
            done = have if resumed else 0
            with part.open("ab" if resumed else "wb") as file:
                while chunk := _read(response):
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(f"downloading {name}", done, total)
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            _forget(part)
            raise Offline("the partial file did not fit") from error
        if error.code >= 500:
            raise Offline(f"HTTP {error.code} {error.reason}") from error
        raise WeightsError(f"{url}: the server answers HTTP {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise Offline(str(error.reason)) from error
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise Offline(str(error) or type(error).__name__) from error
    if total is not None and done > total:
        _forget(part)
        raise WeightsError(f"{url}: {done} bytes came where {total} were announced")
    if total is not None and done < total:
        raise Offline(f"broke off after {done} of {total} bytes")


def _read(response: Any) -> bytes:
    try:
        data: bytes = response.read(_CHUNK)
    except http.client.IncompleteRead as error:
        return error.partial  # the length is compared by the caller
    return data


def _extent(response: Any, *, resumed: bool) -> tuple[int, int | None]:
    """First byte and total length that an answer announces."""
    if resumed:
        # Content-Range: bytes 100-199/200
        spans, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = spans.partition("-")[0]
        return (int(first) if first.isdigit() else -1), (int(total) if total.isdigit() else None)
    length = response.headers.get("Content-Length", "")
    return 0, (int(length) if length.isdigit() else None)


def _validator(response: Any) -> str:
    etag = str(response.headers.get("ETag", ""))
    # A weak tag may not be used in If-Range (RFC 9110, 13.1.5).
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _resumable(url: str, part: Path) -> tuple[int, _Partial | None]:
    """Bytes that are here already and what they are of; 0 where they cannot be continued."""
    try:
        known = _Partial(*json.loads(_notes(part).read_text(encoding="utf-8")))
        have = part.stat().st_size
    except (OSError, ValueError, TypeError):
        return 0, None
    if known.url != url or not known.validator or known.total is None or have >= known.total:
        return 0, None
    return have, known


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _notes(part).unlink(missing_ok=True)
