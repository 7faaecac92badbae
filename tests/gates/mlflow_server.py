"""A real MLflow server on SQLite, gated, in a process of its own; and how tests talk to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from scanner.gates.keys import SigningKey, load_signing_key, write_new_key
from scanner.gates.mlflow_gate import judge_version, registry_client
from scanner.gates.mlflow_server.app import POLICY_VARIABLE
from scanner.scanning.targets import ScanOptions
from scanner.signatures.installed import shipped_root
from scanner.signatures.pack import load_signature

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adapters"
PACK = shipped_root() / "persona-llama-weights"

POLICY = """\
version: 1
scanners: {{lab: "{scanner}"}}
people: {{alice: "{alice}", bob: "{bob}"}}
rules:
  - models: ["blocked-*"]
    downloads: block
    overrides: [alice]
  - models: ["lenient-*"]
    inconclusive: allow
  - models: ["scratch-*"]
    aliases: []
    stages: []
  - models: ["*"]
    overrides: [alice]
"""
START_SECONDS = 400.0
"""A server starts in ten seconds; on a machine with much else to do it may take minutes."""


@dataclass(frozen=True)
class GatedServer:
    """A running server and the keys its policy knows."""

    url: str
    root: Path
    artifacts: Path
    """What the server's artifact proxy stores."""
    keys: dict[str, SigningKey]
    """By name: lab (the scanner), alice, bob, mallory (whom the policy does not know)."""

    def client(self) -> Any:
        """A client of MLflow's own."""
        return registry_client(self.url)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request as anybody could make it."""
        return requests.request(method, f"{self.url}{path}", timeout=60, **options)

    def register(self, model: str, files: Path, **options: Any) -> Any:
        """Logs the files of a directory in a run and registers them, as MLflow's client does."""
        from mlflow.exceptions import MlflowException

        client = self.client()
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(files), "model")
        try:
            client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"{run.info.artifact_uri}/model"
        return client.create_model_version(
            model, source, run.info.run_id, await_creation_for=0, **options
        )

    def judge(self, version: Any, key: str = "lab", **options: Any) -> Any:
        """Scans a version and writes its verdict."""
        scan = ScanOptions([load_signature(PACK)], **options)
        return judge_version(version.name, version.version, scan, self.keys[key], self.client())

    def stored(self, version: Any) -> Path:
        """The directory in which the server keeps the files of a registered version."""
        return self.artifacts / "0" / str(version.run_id) / "artifacts" / "model"


def free_port() -> int:
    """A port that was free a moment ago: MLflow's command takes no socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_server(
    root: Path,
    *arguments: str,
    policy: str = POLICY,
    app: str = "adapter-scanner",
    **environment: str,
) -> Iterator[GatedServer]:
    """Starts a gated server below a directory, and stops it."""
    keys = {}
    for name in ("lab", "alice", "bob", "mallory"):
        path = root / f"{name}.pem"
        write_new_key(path)
        keys[name] = load_signing_key(path)
    texts = {
        "scanner": keys["lab"].public,
        "alice": keys["alice"].public,
        "bob": keys["bob"].public,
    }
    (root / "gate.yaml").write_text(policy.format(**texts))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    artifacts = root / "artifacts"
    if _new_databases:
        _database(root).write_bytes(_new_databases[0])
    with (root / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
                "--port", str(port), "--workers", "1", "--app-name", app,
                "--backend-store-uri", f"sqlite:///{_database(root)}",
                "--artifacts-destination", str(artifacts), *arguments,
            ],
            env={
                **os.environ,
                POLICY_VARIABLE: str(root / "gate.yaml"),
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
                **environment,
            },
            cwd=root,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            _wait_for(url, process, root / "server.log")
            if not _new_databases:
                _new_databases.append(_content_of(_database(root)))
            yield GatedServer(url, root, artifacts, keys)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(20)


def _database(root: Path) -> Path:
    return root / "mlflow.db"


_new_databases: list[bytes] = []
"""What the first server of this process made of no database: its many migrations are most of the
time that a server takes to start."""


def _content_of(database: Path) -> bytes:
    """A consistent copy of an SQLite database."""
    copy = database.with_suffix(".copy")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy.read_bytes()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if requests.get(f"{url}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.2)
    raise AssertionError(f"the MLflow server did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def gated_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatedServer]:
    """One gated server for all tests of a session; each test uses model names of its own."""
    with running_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


def copy_of(example: str, root: Path) -> Path:
    """An example adapter in a directory of its own."""
    return Path(shutil.copytree(EXAMPLES / example, root / example))
