"""Uvicorn's HTTP protocol, ending connections whose request line and headers do not come to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

HEADER_SECONDS = 10.0


class ImpatientProtocol(H11Protocol):
    """Closes a connection that has been open, or has begun a request, for ``HEADER_SECONDS`` without whole headers.

    Uvicorn waits for headers for ever; its ``timeout_keep_alive`` counts between requests only.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection was opened."""
        super().connection_made(transport)
        self._await_headers()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        super().data_received(data)
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._forget()
        super().connection_lost(exc)

    def _await_headers(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()  # a request is being answered; its body is the guard's affair
        elif self._deadline is None:
            # Further bytes do not extend it; otherwise one byte now and then would keep the connection open for ever.
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
