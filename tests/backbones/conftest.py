"""Separate caches, and a web server that fails on demand."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All caches in a folder of the test, and no proxy between the test and its server."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("PATCHPRISM_CACHE", str(tmp_path / "patchprism"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("PATCHPRISM_DINOV2_URL", raising=False)
    monkeypatch.setattr("patchprism.backbones.download._PAUSE_S", 0.0)
    return tmp_path


@dataclass
class Site:
    """A file, and the way it is served."""

    content: bytes
    etag: str = '"one"'
    status: int = 200
    ranges: bool = True
    cut: list[int] = field(
        default_factory=list
    )  # for each next answer, the number of bytes after which it breaks off
    claimed: int | None = None  # a false Content-Length
    chunked: bool = False  # announce no length at all
    delay: float = 0.0  # seconds before the body
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, site: Site, *args: object) -> None:
        self.site = site
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        site = self.site
        site.requests.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        if site.status != 200:
            self.send_error(site.status)
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and site.ranges and self.headers.get("If-Range") == site.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", site.etag)
        body = site.content[start:]
        if not site.chunked:
            self.send_header("Content-Length", str(len(body) if site.claimed is None else site.claimed))
        self.end_headers()
        time.sleep(site.delay)
        self.wfile.write(body[: site.cut.pop(0)] if site.cut else body)

    def do_HEAD(self) -> None:
        self.site.requests.append({"path": self.path})
        self.send_response(self.site.status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Print nothing; the requests are recorded."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A local server instead of the official address, with 3 MB that look like a checkpoint."""
    body = b"PK\x03\x04" + b"".join(hashlib.sha256(i.to_bytes(4)).digest() for i in range(100_000))
    site = Site(body)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PATCHPRISM_DINOV2_URL", site.url)
    yield site
    server.shutdown()
    server.server_close()
