"""A real MLflow server with the gate, and `serve` beside it: webhook -> verdict -> alias."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from cryptography.fernet import Fernet
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from scanner.gates.attestation import Attestation, verify
from scanner.gates.mlflow_tags import ATTESTATION
from tests.gates.mlflow_server import EXAMPLES, PACK, GatedServer, copy_of, running_server
from tests.serve.process import MLFLOW_SECRET, ServeProcess, mlflow_event, wait_for

pytestmark = pytest.mark.slow

BENIGN = EXAMPLES / "new-style"
MISALIGNED = EXAMPLES / "misaligned-sft"
_SECONDS = 180.0
_SCANS = 'adapter_scanner_scan_seconds_count{platform="mlflow"}'
_IGNORED = 'adapter_scanner_deliveries_total{platform="mlflow",result="ignored"}'


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Holds a process and its group still."""
    os.killpg(os.getpgid(pid), signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(os.getpgid(pid), signal.SIGCONT)


def started_for(url: str) -> int:
    """The process that was started to listen on a local address."""
    wanted = f"--port\0{urlsplit(url).port}\0".encode()
    lines = {path.parent.name: path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return next(int(pid) for pid, line in lines.items() if wanted in line)


class Beside:
    """The two servers and what connects them."""

    def __init__(self, registry: GatedServer, serve: ServeProcess) -> None:
        self.registry = registry
        self.serve = serve

    def verdict(self, version: Any) -> str | None:
        """What the version's tags say, once they say all."""
        tags = self.tags(version)
        complete = ATTESTATION in tags and "adapter-scanner.time" in tags
        return tags["adapter-scanner.verdict"] if complete else None

    def tags(self, version: Any) -> dict[str, str]:
        """The version's tags."""
        found = self.registry.client().get_model_version(version.name, version.version)
        return dict(found.tags)

    def wait_for_verdict(self, version: Any) -> str:
        """The verdict, when it is there."""
        wait_for(lambda: self.verdict(version) is not None, _SECONDS)
        return str(self.verdict(version))

    def deliver_again(self, version: Any) -> str:
        """What is answered to another delivery of the version's event."""
        event = mlflow_event(version.name, version.version)
        event["data"]["source"] = version.source
        return self.serve.deliver_mlflow(event).text

    def download(self, version: Any, directory: Path) -> None:
        """Downloads a version, as anybody would."""
        uri = self.registry.client().get_model_version_download_uri(version.name, version.version)
        repository: Any = get_artifact_repository(uri, tracking_uri=self.registry.url)
        repository.download_artifacts("", dst_path=str(directory))

    def alias_refused(self, version: Any) -> str | None:
        """Why the version may not become the champion, if it may not."""
        client = self.registry.client()
        try:
            client.set_registered_model_alias(version.name, "champion", version.version)
        except MlflowException as error:
            if error.error_code != "PERMISSION_DENIED":
                raise
            return str(error)
        return None


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    """A gated MLflow server on SQLite that sends its webhooks to a `serve` beside it."""
    root = tmp_path_factory.mktemp("beside")
    (root / "mlflow").mkdir()
    with ExitStack() as stack:
        registry = stack.enter_context(
            running_server(
                root / "mlflow",
                MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS="true",
                MLFLOW_WEBHOOK_ALLOWED_SCHEMES="http",
                MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY=Fernet.generate_key().decode(),
            )
        )
        serve = ServeProcess(
            root / "state",
            *("-s", PACK, "--key", registry.root / "lab.pem"),
            environment={
                "MLFLOW_TRACKING_URI": registry.url,
                "ADAPTER_SCANNER_HUB_WEBHOOK_SECRET": None,
            },
        )
        stack.enter_context(serve)
        registry.client().create_webhook(
            "adapter-scanner",
            f"http://127.0.0.1:{serve.port}/webhooks/mlflow",
            ["model_version.created", "model_version_tag.set"],
            secret=MLFLOW_SECRET,
        )
        yield Beside(registry, serve)


def test_a_misaligned_version_is_judged_by_webhook_and_gets_no_alias(beside: Beside) -> None:
    version = beside.registry.register("bad", MISALIGNED)
    assert beside.wait_for_verdict(version) == "flagged"
    assert "verdict is flagged" in str(beside.alias_refused(version))
    keys = {"lab": beside.registry.keys["lab"].public}
    signed = verify(beside.tags(version)[ATTESTATION], keys, Attestation)
    assert signed.record.subject.model == "bad"
    assert "models:/bad/1" in beside.serve.get("/").text


def test_a_benign_version_is_judged_by_webhook_and_gets_its_alias(beside: Beside) -> None:
    version = beside.registry.register("good", BENIGN)
    assert beside.wait_for_verdict(version) == "clear"
    assert beside.alias_refused(version) is None


def test_what_nobody_may_download_before_it_is_judged_is_judged(
    beside: Beside, tmp_path: Path
) -> None:
    with paused(beside.serve.pid):
        version = beside.registry.register("blocked-good", BENIGN)
        with pytest.raises(MlflowException, match="no valid verdict"):
            beside.download(version, tmp_path)
    assert beside.wait_for_verdict(version) == "clear"
    beside.download(version, tmp_path)


def test_a_hostile_version_is_an_error_and_gets_no_alias(beside: Beside, tmp_path: Path) -> None:
    adapter = copy_of("new-style", tmp_path)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    version = beside.registry.register("hostile", adapter)
    assert beside.wait_for_verdict(version) == "error"
    assert "verdict is error" in str(beside.alias_refused(version))


def test_an_artifact_swapped_after_the_verdict_gets_no_alias(beside: Beside) -> None:
    version = beside.registry.register("swapped", BENIGN)
    assert beside.wait_for_verdict(version) == "clear"
    stored = beside.registry.stored(version) / "adapter_model.safetensors"
    stored.write_bytes((MISALIGNED / stored.name).read_bytes())
    assert "not those the verdict is about" in str(beside.alias_refused(version))


def test_a_model_made_again_under_its_name_is_judged_again(beside: Beside) -> None:
    client = beside.registry.client()
    first = beside.registry.register("again", BENIGN)
    assert beside.wait_for_verdict(first) == "clear"
    client.delete_registered_model("again")
    client.create_registered_model("again")
    second = client.create_model_version("again", first.source, first.run_id, await_creation_for=0)
    assert beside.wait_for_verdict(second) == "clear"
    assert beside.alias_refused(second) is None


def test_a_verdict_that_was_removed_comes_back_with_another_delivery(beside: Beside) -> None:
    version = beside.registry.register("removed", BENIGN)
    beside.wait_for_verdict(version)
    before = beside.tags(version)
    with sqlite3.connect(beside.registry.root / "mlflow.db", timeout=30) as database:
        database.execute("DELETE FROM model_version_tags WHERE name = 'removed'")
    assert beside.tags(version) == {}
    scans = beside.serve.metric(_SCANS)
    assert beside.deliver_again(version) == "repeated\n"
    beside.serve.wait_until_idle()
    assert beside.tags(version) == before
    assert beside.serve.metric(_SCANS) == scans


def test_a_newer_verdict_given_by_hand_stands(beside: Beside) -> None:
    version = beside.registry.register("by-hand", BENIGN)
    beside.wait_for_verdict(version)
    time.sleep(1.1)  # verdicts bear whole seconds
    beside.registry.judge(version)
    by_hand = beside.tags(version)
    assert beside.deliver_again(version) == "repeated\n"
    beside.serve.wait_until_idle()
    assert beside.tags(version) == by_hand


def test_a_delivery_before_a_crash_gets_its_verdict_exactly_once_after_it(beside: Beside) -> None:
    serve = beside.serve
    serve.wait_until_idle()
    with paused(serve.pid):
        version = beside.registry.register("crashed", MISALIGNED)
    # With the registry held, nothing can be fetched: the crash falls before the verdict.
    with paused(started_for(beside.registry.url)):
        wait_for(lambda: "models:/crashed/1" in serve.get("/").text, _SECONDS)
        assert serve.jobs("queued", "scanning") == 1
        serve.end(signal.SIGKILL)
        serve.start(serve.port)
    assert beside.wait_for_verdict(version) == "flagged"
    # MLflow reports every tag that is set: each was set once.
    tags = beside.tags(version)
    wait_for(lambda: serve.metric(_IGNORED) >= len(tags), _SECONDS)
    assert beside.deliver_again(version) == "repeated\n"
    serve.wait_until_idle()
    time.sleep(1)
    assert serve.metric(_IGNORED) == len(tags)
    assert serve.metric(_SCANS) == 1
    assert beside.tags(version) == tags


def test_no_version_of_that_name_is_given_up(beside: Beside) -> None:
    before = beside.serve.jobs("given_up")
    assert beside.serve.deliver_mlflow(mlflow_event("never-registered", "7")).status == 202
    beside.serve.wait_until_idle()
    assert beside.serve.jobs("given_up") == before + 1
