"""`adapter-scanner serve` as users run it: a process of its own, spoken to over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from scanner.serve.verification import mlflow_signature
from tests.cli.program import PROGRAM, ROOT

MLFLOW_SECRET = "a-secret-of-mlflow-0123456789"
HUB_SECRET = "a-secret-of-the-hub-0123456789"
_LISTENING = re.compile(r"listening on http://([^:]+):(\d+)")
_START_SECONDS = 240.0


class Reply:
    """One answer."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.text = response.read().decode("utf-8", "replace")

    def __repr__(self) -> str:
        return f"{self.status} {self.text!r}"


class ServeProcess:
    """A running server.

    Args:
        state: Its state directory.
        arguments: More arguments.
        environment: More variables, over a clean set; None removes one.
        program: The command's beginning.
    """

    def __init__(
        self,
        state: Path,
        *arguments: str | Path,
        environment: Mapping[str, str | None] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        self.state = state
        self._program = program
        self._arguments = [str(argument) for argument in arguments]
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ADAPTER_SCANNER_MLFLOW_WEBHOOK_SECRET": MLFLOW_SECRET,
            "ADAPTER_SCANNER_HUB_WEBHOOK_SECRET": HUB_SECRET,
            **(environment or {}),
        }
        self._environment = {name: text for name, text in variables.items() if text is not None}
        self.lines: list[str] = []
        """What it has said on standard error."""
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.port = 0

    def start(self, port: int = 0) -> ServeProcess:
        """Starts it and waits until it listens."""
        self.lines = []
        self._process = subprocess.Popen(
            [
                *self._program,
                "serve",
                "--port",
                str(port),
                "--state",
                str(self.state),
                *self._arguments,
            ],
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for(lambda: self._port() or self._process_ended(), _START_SECONDS)
        assert self._port(), self.lines
        self.port = self._port()
        wait_for(lambda: self.get("/health").status == 200, _START_SECONDS)
        return self

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))

    def _port(self) -> int:
        found = [match for line in self.lines if (match := _LISTENING.search(line))]
        return int(found[0][2]) if found else 0

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def pid(self) -> int:
        """Of the server itself."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: int) -> None:
        """Sends a signal to the server."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self, number: int) -> int:
        """Sends a signal to the server and waits for its end; returns its status."""
        assert self._process is not None
        self._process.send_signal(number)
        status = self._process.wait(60)
        if self._reader is not None:
            self._reader.join(10)
        return status

    def __enter__(self) -> ServeProcess:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Sends one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers or {}))
            return Reply(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """GET."""
        return self.request("GET", path, None, headers)

    def deliver_mlflow(
        self,
        event: Any,
        *,
        secret: str = MLFLOW_SECRET,
        delivery_id: str | None = None,
        timestamp: float | None = None,
        **headers: str,
    ) -> Reply:
        """Delivers an event as MLflow does; bytes are delivered as they are."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        delivery_id = delivery_id or str(uuid.uuid4())
        stamp = str(int(time.time() if timestamp is None else timestamp))
        sent = {
            "Content-Type": "application/json",
            "X-MLflow-Delivery-Id": delivery_id,
            "X-MLflow-Timestamp": stamp,
            "X-MLflow-Signature": mlflow_signature(secret, delivery_id, stamp, body),
            **headers,
        }
        return self.request("POST", "/webhooks/mlflow", body, sent)

    def deliver_hub(self, event: Any, secret: str | None = HUB_SECRET) -> Reply:
        """Delivers an event as the hub does; bytes are delivered as they are."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers = {"Content-Type": "application/json"}
        if secret is not None:
            headers["X-Webhook-Secret"] = secret
        return self.request("POST", "/webhooks/huggingface", body, headers)

    def metric(self, line_start: str) -> float:
        """The value of the metric whose line starts so; 0 if there is none."""
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(line_start):
                return float(line.rpartition(" ")[2])
        return 0.0

    def jobs(self, *states: str) -> int:
        """How many jobs are in some states, all at one moment."""
        lines = [f'adapter_scanner_jobs{{state="{state}"}} ' for state in states]
        return int(
            sum(
                float(line.rpartition(" ")[2])
                for line in self.get("/metrics").text.splitlines()
                if line.startswith(tuple(lines))
            )
        )

    def wait_until_idle(self, seconds: float = 240.0) -> None:
        """Waits until nothing is left to scan or to write back."""
        wait_for(lambda: self.jobs("queued", "scanning", "judged", "writing") == 0, seconds)


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Waits for something to become true; fails after so long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except OSError:  # not listening yet
            pass
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds:g} s")


def mlflow_event(name: str, version: str = "1", **fields: Any) -> dict[str, Any]:
    """What MLflow sends when a model version is created."""
    data: dict[str, Any] = {"name": name, "version": version, "source": "models:/m-0"}
    return {
        "entity": "model_version",
        "action": "created",
        "timestamp": "2026-01-01T00:00:00+00:00",
        "data": {**data, "run_id": None, "tags": {}, "description": None},
        **fields,
    }


def hub_event(repository: str, sha: str, **fields: Any) -> dict[str, Any]:
    """What the hub sends when a commit is pushed."""
    return {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": repository,
            "id": "6" * 24,
            "private": False,
            "url": {"web": f"https://hub.invalid/{repository}", "api": ""},
            "owner": {"id": "5" * 24},
            "headSha": sha,
            "tags": [],
        },
        "webhook": {"id": "4" * 24, "version": 3},
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "0" * 40, "newSha": sha}],
        **fields,
    }


def children_of(pid: int) -> list[int]:
    """Every process below another."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == pid:
                found += [int(entry.name), *children_of(int(entry.name))]
    return found
