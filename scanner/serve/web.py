"""The server's routes. Two accept webhooks, which are verified first; the others only read."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from scanner.serve import pages, verification
from scanner.serve.events import Ignored, Platform, Subject, hub_subjects, mlflow_subjects
from scanner.serve.intake import Intake
from scanner.serve.jobs import Acceptance, Delivery, JobStore, Wanted
from scanner.serve.metrics import CONTENT_TYPE, Metrics
from scanner.serve.verification import RefusedError

log = logging.getLogger("adapter_scanner.serve")

BODY_SECONDS = 10.0
_RETRY_SECONDS = 30
_SHOWN_JOBS = 200
_LARGEST_ID = 2**63 - 1
_LONGEST_FILTER = 200
_STATUS = {Acceptance.QUEUED: 202, Acceptance.REPEATED: 200, Acceptance.CONFLICT: 409}
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")

Parse = Callable[[bytes], list[Subject] | Ignored]
ReadDelivery = Callable[[Request], Awaitable[tuple[str | None, bytes]]]


@dataclass(frozen=True)
class WebSettings:
    """What the routes have to know."""

    jobs: Path
    reports: Path
    mlflow_secrets: Sequence[str]
    """Any of these secrets may verify a delivery; without one the route does not exist."""
    hub_secrets: Sequence[str]
    tolerance: float
    """Age in seconds up to which a delivery of MLflow's is accepted."""
    most_bytes: int
    """Largest size of a request's body, in bytes."""
    host_names: Sequence[str]
    """Names, beside this machine's own, under which pages are shown."""
    is_named: Callable[[str], bool]
    """Whether the policy says anything about a model."""
    hub_page: str | None = None
    """The hub's address, where models have pages."""
    mlflow_page: str | None = None
    """MLflow's address, if it has pages."""


def wanted_in(query: Mapping[str, str]) -> Wanted:
    """The filter in an address; what is no filter there is any."""
    before = query.get("before", "")
    known = before.isascii() and before.isdigit() and int(before[:20]) <= _LARGEST_ID
    names = ("verdict", "state", "platform", "model")
    return Wanted(
        **{name: query.get(name, "").strip()[:_LONGEST_FILTER] for name in names},
        before=int(before) if known else _LARGEST_ID,
    )


class Web:
    """The application.

    Args:
        settings: What it has to know.
        intake: Takes what is delivered.
        metrics: Told of every delivery.
        trouble: Why the server is not ready, if it is not.
    """

    def __init__(
        self,
        settings: WebSettings,
        intake: Intake,
        metrics: Metrics,
        trouble: Callable[[], str | None],
    ) -> None:
        self._settings = settings
        self._intake = intake
        self._metrics = metrics
        self._trouble = trouble
        taken = (
            ("/webhooks/mlflow", settings.mlflow_secrets),
            ("/webhooks/huggingface", settings.hub_secrets),
        )
        self._places = pages.Places(
            hub=settings.hub_page,
            mlflow=settings.mlflow_page,
            routes=tuple(path for path, secrets in taken if secrets),
        )

    def application(self) -> Starlette:
        """The ASGI application."""
        # A page of another site must not read these by giving its own name our address.
        names = [*_LOCAL_NAMES, *self._settings.host_names]
        own = [Middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)]
        routes = [
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._show_metrics, middleware=own),
            Route("/", self._list, middleware=own),
            Route("/verdicts.css", self._style, middleware=own),
            Route("/verdicts/{number:int}", self._report, middleware=own),
        ]
        if self._settings.mlflow_secrets:
            routes.append(Route("/webhooks/mlflow", self._mlflow, methods=["POST"]))
        if self._settings.hub_secrets:
            routes.append(Route("/webhooks/huggingface", self._hub, methods=["POST"]))
        return Starlette(routes=routes)

    async def _mlflow(self, request: Request) -> Response:
        return await self._take("mlflow", request, self._signed_body, mlflow_subjects)

    async def _hub(self, request: Request) -> Response:
        return await self._take("hub", request, self._secret_body, hub_subjects)

    async def _signed_body(self, request: Request) -> tuple[str, bytes]:
        headers = verification.signed_headers(
            request.headers, time.time(), self._settings.tolerance
        )
        body = await self._body(request)
        verification.check_signature(headers, body, self._settings.mlflow_secrets)
        return headers.delivery_id, body

    async def _secret_body(self, request: Request) -> tuple[None, bytes]:
        verification.check_secret(request.headers, self._settings.hub_secrets)
        return None, await self._body(request)

    async def _take(
        self, platform: Platform, request: Request, read: ReadDelivery, parse: Parse
    ) -> Response:
        """Answers a webhook; with 2xx only if it is on disk or gives nothing to do."""
        try:
            delivery_id, body = await read(request)
            found = parse(body)
            if not isinstance(found, Ignored) and not self._settings.is_named(found[0].name):
                found = Ignored("the policy has no rule for this model")
            if isinstance(found, Ignored):
                self._metrics.deliveries.labels(platform, "ignored").inc()
                return PlainTextResponse(f"ignored: {found.reason}\n")
            digest = hashlib.sha256(body).hexdigest()
            accepted = await self._intake.accept(
                Delivery(delivery_id, digest, tuple(found), time.time())
            )
        except RefusedError as error:
            return self._refuse(platform, error)
        except sqlite3.Error as error:
            log.error("a delivery cannot be recorded: %s", error)
            return self._refuse(platform, RefusedError(503, "the delivery cannot be recorded"))
        except ClientDisconnect:
            return self._refuse(platform, RefusedError(400, "the body ends early"))
        self._metrics.deliveries.labels(platform, accepted.value).inc()
        return PlainTextResponse(f"{accepted.value}\n", _STATUS[accepted])

    def _refuse(self, platform: Platform, error: RefusedError) -> Response:
        self._metrics.deliveries.labels(platform, f"refused_{error.status}").inc()
        headers = {"Retry-After": str(_RETRY_SECONDS)} if error.status == 503 else {}
        return PlainTextResponse(f"refused: {error.reason}\n", error.status, headers)

    async def _body(self, request: Request) -> bytes:
        """The body, as far as it is as small and as fast as a webhook's.

        Raises:
            RefusedError: If it is not.
        """
        most = self._settings.most_bytes
        declared = request.headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > most:
            raise RefusedError(413, f"the body is larger than {most} bytes")
        body = bytearray()
        try:
            with anyio.fail_after(BODY_SECONDS):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > most:
                        raise RefusedError(413, f"the body is larger than {most} bytes")
        except TimeoutError:
            raise RefusedError(408, f"the body takes longer than {BODY_SECONDS:g} s") from None
        return bytes(body)

    async def _health(self, request: Request) -> Response:  # noqa: ARG002
        return PlainTextResponse("ok\n")

    async def _ready(self, request: Request) -> Response:  # noqa: ARG002
        trouble = self._trouble()
        return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ready\n")

    async def _show_metrics(self, request: Request) -> Response:  # noqa: ARG002
        text = await run_in_threadpool(self._metrics.exposition)
        return Response(text, media_type=CONTENT_TYPE)

    async def _list(self, request: Request) -> Response:
        page = await run_in_threadpool(self._render_list, wanted_in(request.query_params))
        return Response(page, headers=pages.LIST_HEADERS, media_type="text/html")

    def _render_list(self, wanted: Wanted) -> str:
        store = JobStore(self._settings.jobs)
        try:
            jobs = store.recent(_SHOWN_JOBS + 1, wanted)
            counts = {"verdict": store.counts_of("verdict"), "state": store.counts_of("state")}
        finally:
            store.close()
        return pages.render_list(
            jobs[:_SHOWN_JOBS], wanted, counts, self._places, more=len(jobs) > _SHOWN_JOBS
        )

    async def _style(self, request: Request) -> Response:  # noqa: ARG002
        return Response(pages.STYLE, headers=pages.LIST_HEADERS, media_type="text/css")

    async def _report(self, request: Request) -> Response:
        number = request.path_params["number"]
        path = self._settings.reports / f"{number}.html"
        if number > _LARGEST_ID or not await run_in_threadpool(path.is_file):
            return PlainTextResponse("no such verdict\n", 404)
        return FileResponse(path, headers=pages.REPORT_HEADERS, media_type="text/html")
