"""Serves the page with uvicorn, at an address with a token."""

from __future__ import annotations

import secrets
import socket
from typing import TYPE_CHECKING, Any

from patchprism.errors import ExtraError, OptionError
from patchprism.explorer.guard import Guard
from patchprism.explorer.uploads import MAX_UPLOAD_BYTES
from patchprism.support.checks import short_repr

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from patchprism.explorer.work import Workshop


def check_extra() -> None:
    """Check that FastAPI and uvicorn are installed.

    Raises
    ------
    ExtraError
        If one of them is missing.
    """
    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ExtraError.of(error, "explore", "serving the explorer", "fastapi", "uvicorn") from error


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound to an address; port 0 chooses a free port.

    Raises
    ------
    OptionError
        If the address cannot be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, ValueError) as error:  # ValueError: not a valid host name
        reason = getattr(error, "strerror", None) or str(error)
        raise OptionError(
            f"cannot listen on host {short_repr(host)}, port {port}: {' '.join(reason.lower().split())}",
            option="host",
        ) from error
    return bound


def serve(
    workshop: Workshop,
    *,
    bound: socket.socket,
    host: str,
    out: str | os.PathLike[str],
    ready: Callable[[str], Any],
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Parameters
    ----------
    workshop : Workshop
        Sessions of the tabs.
    bound : socket
        From :func:`listen`.
    host : str
        The host that the user gave.
    out : path
        Folder that the page's "save" writes to.
    ready : callable
        Called with the address of the page when the server is ready.
    """
    import uvicorn

    from patchprism.explorer.app import make_app
    from patchprism.explorer.patience import ImpatientProtocol

    port = bound.getsockname()[1]
    token = secrets.token_urlsafe(18)
    guarded = Guard(
        make_app(workshop, out=out), token=token, host=host, port=port, max_upload=MAX_UPLOAD_BYTES
    )
    shown = "127.0.0.1" if host in ("0.0.0.0", "::", "localhost") else f"[{host}]" if ":" in host else host

    class Server(uvicorn.Server):
        """Uvicorn, which reports when it is ready."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                ready(f"http://{shown}:{port}/{token}/")

    config = uvicorn.Config(
        guarded,
        log_level="warning",
        access_log=False,  # it would print the token
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=2,
        timeout_keep_alive=10,
        http=ImpatientProtocol,
        ws="none",
    )
    try:
        Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        pass  # the usual way to stop the server
    finally:
        bound.close()
        workshop.close()
