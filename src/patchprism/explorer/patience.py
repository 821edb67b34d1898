"""Uvicorn's HTTP protocol with a time limit for the request line and the headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

HEADER_SECONDS = 10.0


class ImpatientProtocol(H11Protocol):
    """Closes a connection if the headers of a request are not complete after ``HEADER_SECONDS``.

    Uvicorn itself waits without limit; its ``timeout_keep_alive`` concerns only the time between requests.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection was opened."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Bytes were received."""
        super().data_received(data)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection was closed."""
        self._forget()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()  # the headers are complete; the guard limits the time for the body
        elif self._deadline is None:
            # Further bytes do not extend the deadline, so a slow trickle cannot keep the connection open.
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._give_up)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and not self.transport.is_closing():
            self.transport.close()
