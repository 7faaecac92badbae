"""The pass that the request at hand shows, under ASGI and under WSGI."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from scanner.gates.mlflow_pass import HEADER

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_presented: ContextVar[str | None] = ContextVar("presented_pass", default=None)


def presented_pass() -> str | None:
    """The request's pass, unverified; None if it shows none."""
    import flask

    if flask.has_request_context():
        return flask.request.headers.get(HEADER)
    return _presented.get()


class PassMiddleware:
    """Keeps the pass of a request at hand for endpoints that are not Flask's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, with its pass kept while it is served."""
        shown = None
        if scope["type"] == "http":
            wanted = HEADER.lower().encode()
            values = [value for name, value in scope["headers"] if name.lower() == wanted]
            shown = values[0].decode("latin-1") if values else None
        _presented.set(shown)
        await self._app(scope, receive, send)
