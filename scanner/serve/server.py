"""The whole server: one process that answers, its threads, and its workers."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import FrameType

import uvicorn

from scanner.errors import UsageError
from scanner.serve.intake import Intake
from scanner.serve.jobs import JobStore, State
from scanner.serve.judging import Judging
from scanner.serve.metrics import Metrics
from scanner.serve.protocol import DeadlineProtocol
from scanner.serve.settings import ServeSettings
from scanner.serve.supervisor import Supervisor
from scanner.serve.web import Web, WebSettings
from scanner.serve.writers import Writers

log = logging.getLogger("adapter_scanner.serve")

_HUB = "https://huggingface.co"
_MOST_CONNECTIONS = 512
_LARGEST_HEAD = 16_384
_IDLE_SECONDS = 10
_DRAIN_SECONDS = 15
_DAY = 86_400.0
_TIDY_SECONDS = 3_600.0


def _web_page(address: str) -> str | None:
    """An address that a browser can open; None for a database's or a folder's."""
    return address.rstrip("/") if address.startswith(("https://", "http://")) else None


def serve(settings: ServeSettings, writers: Writers) -> None:
    """Serves until it is told to stop by SIGTERM or SIGINT.

    Raises:
        UsageError: If it cannot start.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    os.umask(0o077)
    with _own_directory(settings.state):
        server = _Server(settings, writers)
        with _listening(settings.host, settings.port) as listener:
            server.run(listener)


class _HttpServer(uvicorn.Server):
    """uvicorn, which would end by the signal that stopped it even if all went well."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Begins to stop the server when a signal asks for it."""
        self.should_exit = True


class _Server:
    """What runs between start and stop."""

    def __init__(self, settings: ServeSettings, writers: Writers) -> None:
        self._settings = settings
        self._jobs = settings.state / "jobs.sqlite"
        self._reports = settings.state / "reports"
        self._open()
        self._metrics = Metrics(self._counts)
        supervisor = Supervisor(
            scratch=settings.state / "scratch",
            reports=self._reports,
            signatures=settings.signatures,
            alpha_of=settings.alpha_of,
            base_model=settings.base_model,
            limits=settings.limits,
            platforms=settings.platforms,
            permit=writers.permit,
        )
        self._judging = Judging(
            path=self._jobs,
            reports=self._reports,
            supervisor=supervisor,
            writers=writers,
            metrics=self._metrics,
            platforms=settings.platforms,
            workers=settings.workers,
            patience=settings.patience,
        )
        self._intake = Intake(self._jobs, settings.longest_queue, self._judging.wake)
        self._stopping = threading.Event()

    def _open(self) -> None:
        """Makes the jobs' file, or takes up what it holds.

        Raises:
            UsageError: If it cannot be used.
        """
        try:
            store = JobStore(self._jobs)
            store.prepare(self._jobs)
            if interrupted := store.recover():
                log.warning("%d interrupted scans are taken up again", interrupted)
            store.close()
        except sqlite3.DatabaseError as error:
            raise UsageError(
                f"cannot be used: {error}", where=str(self._jobs), todo="name another --state"
            ) from None

    def run(self, listener: socket.socket) -> None:
        """Answers on a socket until stopped."""
        web = Web(
            WebSettings(
                jobs=self._jobs,
                reports=self._reports,
                mlflow_secrets=self._settings.mlflow_secrets,
                hub_secrets=self._settings.hub_secrets,
                tolerance=self._settings.tolerance,
                most_bytes=self._settings.most_body_bytes,
                host_names=self._settings.host_names,
                is_named=lambda model: self._settings.policy.rule_for(model) is not None,
                hub_page=_web_page(os.environ.get("HF_ENDPOINT") or _HUB),
                mlflow_page=_web_page(os.environ.get("MLFLOW_TRACKING_URI", "")),
            ),
            self._intake,
            self._metrics,
            self._trouble,
        )
        application = web.application()
        application.router.lifespan_context = lambda _: self._lifespan()
        _HttpServer(
            uvicorn.Config(
                application,
                http=DeadlineProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS,
                timeout_keep_alive=_IDLE_SECONDS,
                timeout_graceful_shutdown=_DRAIN_SECONDS,
                h11_max_incomplete_event_size=_LARGEST_HEAD,
            )
        ).run(sockets=[listener])

    @contextlib.asynccontextmanager
    async def _lifespan(self) -> AsyncIterator[None]:
        """Threads run from before the first request until after the last."""
        self._intake.start()
        self._judging.start()
        tidying = threading.Thread(target=self._tidy, name="tidy", daemon=True)
        tidying.start()
        yield
        self._stopping.set()
        self._intake.stop()
        self._judging.stop()
        tidying.join()

    def _counts(self) -> Mapping[State, int]:
        store = JobStore(self._jobs)
        try:
            return store.counts()
        finally:
            store.close()

    def _trouble(self) -> str | None:
        """Why the server is not ready; None if it is."""
        if self._stopping.is_set():
            return "stopping"
        if not self._judging.alive or not self._intake.alive:
            return "a thread has ended"
        return self._judging.trouble

    def _tidy(self) -> None:
        """Once an hour, removes what is older than has to be kept."""
        store = JobStore(self._jobs)
        while True:
            now = time.time()
            # Ids older than the window are refused by their timestamp.
            deliveries = now - max(2 * self._settings.tolerance, _DAY)
            try:
                for number in store.forget(deliveries, now - self._settings.keep_seconds):
                    for suffix in (".json", ".html"):
                        (self._reports / f"{number}{suffix}").unlink(missing_ok=True)
            except (sqlite3.OperationalError, OSError) as error:
                log.warning("old verdicts cannot be removed: %s", error)
            if self._stopping.wait(_TIDY_SECONDS):
                break
        store.close()


@contextlib.contextmanager
def _own_directory(state: Path) -> Iterator[None]:
    """The state directory, for one server alone.

    Raises:
        UsageError: If it cannot be made, or another server uses it.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}", where=str(state)
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise UsageError(
            "another server uses this state", where=str(state), todo="name another --state"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; says where on standard error.

    Raises:
        UsageError: If the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen: {error.strerror or error}", where=f"{host} port {port}"
        ) from None
    with listener:
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on http://%s:%d", shown, listener.getsockname()[1])
        yield listener
