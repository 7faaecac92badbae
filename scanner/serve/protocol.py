"""HTTP/1.1 with a deadline: a client that sends or reads too slowly loses its connection.

uvicorn bounds how long a connection may be idle between requests, not how long a request may
take to arrive nor a response to be taken. One deadline runs here from the first moment a
request is waited for until its response is complete.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 30.0


class DeadlineProtocol(H11Protocol):
    """One connection, which is closed if a request takes too long to arrive."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the clock of the first request."""
        super().connection_made(transport)
        self._start_clock()

    def data_received(self, data: bytes) -> None:
        """Starts the clock of a further request with its first byte."""
        self._start_clock()
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Stops the clock; an idle connection has uvicorn's own limit."""
        self._stop_clock()
        super().on_response_complete()
        if not self.cycle.response_complete:  # a pipelined request has begun
            self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the clock of a connection that is gone."""
        self._stop_clock()
        super().connection_lost(exc)

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
