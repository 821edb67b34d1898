"""Checks before the server: who may send requests, and how large they may be."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_JSON_BYTES = 64 << 10
MAX_AT_ONCE = 48
# Of these, at most this many requests with large bodies, which are kept in memory, so that others can still be
# served.
MAX_UPLOADS = 16
# A body may pause for this many seconds. After that time, it must have this many bytes per second on average.
BODY_PAUSE = 10.0
LEAST_RATE = 16 << 10
# Headers that these checks depend on may occur at most once.
_ONCE = (b"host", b"origin", b"sec-fetch-site", b"content-length", b"x-photo-name")

HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}


class TooLargeError(Exception):
    """A request has more bytes than are allowed."""


class TooSlowError(Exception):
    """The bytes of a request arrive too slowly, or not at all."""


class Guard:
    """Accepts requests of the page itself, with the right address and token, and of a limited size.

    The token is the first part of the path, so another page in the browser cannot guess an address that works. The
    Host header is checked, so a foreign name whose DNS entry points here is refused (DNS rebinding). The Origin
    header is checked, so a foreign page that knows the token is refused, too.

    Parameters
    ----------
    app : ASGI application
        Gets paths without the token.
    token : str
        First part of the path of every request.
    host : str
        The address that the server listens on.
    port : int
    max_upload : int
        Maximum bytes of the body of a request with a photo, a head or marks. Other bodies may have 64 kB.
    """

    def __init__(self, app: App, *, token: str, host: str, port: int, max_upload: int) -> None:
        self.app, self.token, self.host, self.port, self.max_upload = app, token, host, port, max_upload
        self.busy = self.uploading = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        refused = self._refusal(scope)
        if refused:
            await _answer(send, *refused)
            return
        upload = _is_upload(scope)
        if self.busy >= MAX_AT_ONCE or (upload and self.uploading >= MAX_UPLOADS):
            await _answer(send, 503, "too many requests at once; try again", {"retry-after": "1"})
            return
        self.busy += 1
        self.uploading += upload
        try:
            await self._pass_on(scope, receive, send)
        finally:
            self.busy -= 1
            self.uploading -= upload

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        names = [key.lower() for key, _ in scope["headers"]]
        if any(names.count(name) > 1 for name in _ONCE):
            return 400, "a header appears twice"
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        if not self.host_allowed(headers.get("host", "")):
            return 421, "wrong Host header: use the address that patchprism explore printed"
        first = scope["path"].split("/")[1] if scope["path"].startswith("/") else ""
        if not secrets.compare_digest(first.encode("utf-8", "replace"), self.token.encode()):
            return 404, "no such page: use the address that patchprism explore printed"
        origin = headers.get("origin")
        if origin is not None and not (
            origin.startswith("http://") and self.host_allowed(origin.removeprefix("http://"))
        ):
            return 403, "this request came from another page"
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return 403, "this request came from another page"
        length = headers.get("content-length", "0")
        limit = self._limit(scope)
        size = _whole(length)
        if size is None or size > limit:
            return 413, f"the request is larger than {limit / 1e6:.3g} MB"
        return None

    def host_allowed(self, name: str) -> bool:
        """Whether a Host header names this server."""
        bare, colon, port = name.rpartition(":")
        if not colon or len(port) > 5 or _whole(port) != self.port:
            # Browsers leave out the default port of the protocol.
            if self.port != 80 or name.endswith(f":{port}"):
                return False
            bare = name
        bare = bare.lower()
        if bare in ("127.0.0.1", "localhost", "[::1]", self.host.lower()):
            return True
        if self.host in ("0.0.0.0", "::"):
            # If the server listens on all addresses, any address is allowed, but no name, because DNS could redirect
            # it.
            try:
                ipaddress.ip_address(bare.strip("[]"))
            except ValueError:
                return False
            return True
        return False

    def _limit(self, scope: Scope) -> int:
        return self.max_upload if _is_upload(scope) else MAX_JSON_BYTES

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        limit, seen, started = self._limit(scope), 0, False
        over: tuple[int, str] | None = None
        whole = False
        clock = asyncio.get_running_loop().time
        began = clock()

        async def counted() -> MutableMapping[str, Any]:
            nonlocal seen, over, whole
            if whole:  # the next message says that the client has disconnected, which may take any time
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), BODY_PAUSE)
            except TimeoutError:
                over = 408, "the request was not completed in time; try again"
                raise TooSlowError from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > limit:
                over = 413, f"the request is larger than {limit / 1e6:.3g} MB"
                raise TooLargeError
            if not whole and seen < (clock() - began - BODY_PAUSE) * LEAST_RATE:
                over = 408, "the request arrived too slowly; try again"
                raise TooSlowError
            return message

        async def headed(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if over and not started:
                return  # the response of the application is replaced below
            if message["type"] == "http.response.start":
                started = True
                own = {key.lower() for key, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        path = scope["path"][len(self.token) + 1 :] or "/"
        inner = {**scope, "path": path, "raw_path": path.encode("utf-8", "surrogateescape")}
        with contextlib.suppress(TooLargeError, TooSlowError):
            await self.app(inner, counted, headed)
        if over and not started:
            await _answer(send, *over)


def _is_upload(scope: Scope) -> bool:
    return bool(scope["method"] == "POST" and scope["path"].endswith(("/photos", "/head", "/head/apply")))


def _whole(digits: str) -> int | None:
    """A whole number in a header; None for anything else.

    ``int()`` accepts digits of other scripts, and raises an exception above 4,300 digits.
    """
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) <= 18 else None


async def _answer(send: Send, status: int, text: str, more: dict[str, str] | None = None) -> None:
    # The connection is closed, because the rest of the request is not read.
    headers = {**HEADERS, "content-type": "application/json", "connection": "close", **(more or {})}
    body = json.dumps({"error": text}).encode()
    headers["content-length"] = str(len(body))
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
