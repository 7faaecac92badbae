"""What the routes take and what they refuse; over real HTTP, with nothing to judge behind them."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from scanner.gates.keys import write_new_key
from scanner.signatures.pack import Signature
from tests.cli.program import PROGRAM
from tests.serve.process import (
    HUB_SECRET,
    MLFLOW_SECRET,
    Reply,
    ServeProcess,
    children_of,
    hub_event,
    mlflow_event,
    wait_for,
)

SHA = "ab" * 20
_NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Iterator[ServeProcess]:
    """A server whose registries do not answer: it can take deliveries, and judge none."""
    with running(tmp_path_factory.mktemp("serve"), pack) as found:
        yield found


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Iterator[ServeProcess]:
    """The same, which waits a second for a client (`tests.serve.impatient`)."""
    program = (sys.executable, "-m", "tests.serve.impatient")
    with running(tmp_path_factory.mktemp("impatient"), pack, program) as found:
        yield found


def running(root: Path, pack: Signature, program: Sequence[str] = PROGRAM) -> ServeProcess:
    write_new_key(root / "key.pem")
    environment: dict[str, str | None] = {
        "ADAPTER_SCANNER_SIGNING_KEY": (root / "key.pem").read_text(),
        "MLFLOW_TRACKING_URI": _NOWHERE,
        "HF_ENDPOINT": _NOWHERE,
        "HF_HOME": str(root / "hf-home"),
    }
    arguments = ("-s", pack.path, "--max-body", "20000")
    return ServeProcess(root / "state", *arguments, environment=environment, program=program)


def jobs(server: ServeProcess) -> int:
    """How many jobs there are."""
    return server.jobs("queued", "scanning", "judged", "writing", "written", "given_up")


def test_a_signed_delivery_is_queued_once(server: ServeProcess) -> None:
    before = jobs(server)
    event = mlflow_event("signed")
    first = server.deliver_mlflow(event, delivery_id="one-delivery")
    again = server.deliver_mlflow(event, delivery_id="one-delivery")
    other_id = server.deliver_mlflow(event)
    assert (first.status, again.status, other_id.status) == (202, 200, 200)
    assert jobs(server) == before + 1


def test_a_delivery_id_stands_for_one_body(server: ServeProcess) -> None:
    assert server.deliver_mlflow(mlflow_event("body-a"), delivery_id="twice").status == 202
    assert server.deliver_mlflow(mlflow_event("body-b"), delivery_id="twice").status == 409


def test_a_version_made_again_with_other_artifacts_is_another(server: ServeProcess) -> None:
    event = mlflow_event("recreated")
    assert server.deliver_mlflow(event).status == 202
    event["data"]["source"] = "models:/m-1"
    assert server.deliver_mlflow(event).status == 202


UNSIGNED: dict[str, dict[str, Any]] = {
    "another secret": {"secret": "another-secret-0123456789"},
    "an old delivery": {"timestamp": time.time() - 3600},
    "a delivery of the future": {"timestamp": time.time() + 3600},
    "no signature": {"X-MLflow-Signature": ""},
    "another version of signatures": {"X-MLflow-Signature": "v0,AAAA"},
    "a signature that is not ASCII": {"X-MLflow-Signature": "v1,\u00e9"},
    "another delivery's signature": {"X-MLflow-Delivery-Id": "another"},
    "another time's signature": {"X-MLflow-Timestamp": str(int(time.time()) - 1)},
    "no delivery id": {"X-MLflow-Delivery-Id": ""},
    "a delivery id with a dot": {"delivery_id": f"a.{int(time.time())}"},
    "a time that is no number": {"X-MLflow-Timestamp": "1e9"},
    "an endless time": {"X-MLflow-Timestamp": "9" * 5000},
}


@pytest.mark.parametrize("wrong", sorted(UNSIGNED))
def test_what_mlflow_did_not_sign_is_refused(server: ServeProcess, wrong: str) -> None:
    before = jobs(server)
    reply = server.deliver_mlflow(mlflow_event(f"unsigned {wrong}"), **UNSIGNED[wrong])
    assert reply.status == 401
    assert_one_line(reply)
    assert jobs(server) == before


@pytest.mark.parametrize("secret", [None, "", "another-secret-0123456789", HUB_SECRET + "x"])
def test_what_the_hub_did_not_send_is_refused(server: ServeProcess, secret: str | None) -> None:
    before = jobs(server)
    reply = server.deliver_hub(hub_event("lab/unsigned", SHA), secret)
    assert reply.status == 401
    assert_one_line(reply)
    assert jobs(server) == before


def assert_one_line(reply: Reply) -> None:
    """Errors are one line, without anything secret."""
    assert reply.text.endswith("\n")
    assert reply.text.count("\n") == 1
    assert "Traceback" not in reply.text
    assert MLFLOW_SECRET not in reply.text
    assert HUB_SECRET not in reply.text


BAD_BODIES = {
    "empty": b"",
    "not JSON": b"{",
    "not UTF-8": b'{"entity": "\xff"}',
    "a list": b"[]",
    "a number": b"1e999",
    "deep": b"[" * 9_000,
    "deep objects": b'{"a":' * 3_000,
    "of another type": b'{"entity": 1, "action": "created", "data": {}}',
    "without data": b'{"entity": "model_version", "action": "created"}',
    "a version of another type": b'{"entity": "model_version", "action": "created", "data": '
    b'{"name": "m", "version": 1}}',
    "a version that is no number": b'{"entity": "model_version", "action": "created", "data": '
    b'{"name": "m", "version": "../1"}}',
    "no name": b'{"entity": "model_version", "action": "created", "data": '
    b'{"name": "", "version": "1"}}',
    "a name with a line break": b'{"entity": "model_version", "action": "created", "data": '
    b'{"name": "a\\nb", "version": "1"}}',
    "a lone surrogate": b'{"entity": "model_version", "action": "created", "data": '
    b'{"name": "\\ud800", "version": "1"}}',
    "another workspace": b'{"entity": "model_version", "action": "created", "workspace": "w", '
    b'"data": {"name": "m", "version": "1"}}',
}


@pytest.mark.parametrize("wrong", sorted(BAD_BODIES))
def test_bodies_of_mlflow_that_are_not_events(server: ServeProcess, wrong: str) -> None:
    before = jobs(server)
    reply = server.deliver_mlflow(BAD_BODIES[wrong])
    assert reply.status in (400, 422)
    assert_one_line(reply)
    assert jobs(server) == before


BAD_PUSHES: dict[str, dict[str, Any]] = {
    "an older payload": {"webhook": {"id": "1", "version": 2}},
    "a short commit": {"updatedRefs": [{"ref": "refs/heads/main", "newSha": "abc"}]},
    "a commit that is a path": {
        "updatedRefs": [{"ref": "refs/heads/main", "newSha": "../../../../etc/passwd"}]
    },
    "no repository": {"repo": {"type": "model"}},
    "refs of another type": {"updatedRefs": {}},
}


@pytest.mark.parametrize("wrong", sorted(BAD_PUSHES))
def test_bodies_of_the_hub_that_are_not_pushes(server: ServeProcess, wrong: str) -> None:
    before = jobs(server)
    reply = server.deliver_hub(hub_event("lab/model", SHA, **BAD_PUSHES[wrong]))
    assert reply.status == 422
    assert_one_line(reply)
    assert jobs(server) == before


TRICKS = [
    "../../etc/passwd",
    "..",
    "a/../b",
    "/etc/passwd",
    "a/b/c",
    "a\\b",
    "a%2e%2e/b",
    "-rf",
    "~",
]


@pytest.mark.parametrize("name", TRICKS)
def test_repository_names_that_are_paths_are_refused(server: ServeProcess, name: str) -> None:
    before = jobs(server)
    assert server.deliver_hub(hub_event(name, SHA)).status == 422
    assert jobs(server) == before


@pytest.mark.parametrize(
    "name", [*TRICKS, "<script>alert(1)</script>", "$(id)", "'; DROP TABLE jobs"]
)
def test_model_names_of_mlflow_are_data(server: ServeProcess, name: str) -> None:
    before = sorted(path for path in server.state.rglob("*") if "scratch" not in path.parts)
    assert server.deliver_mlflow(mlflow_event(name)).status == 202
    after = sorted(path for path in server.state.rglob("*") if "scratch" not in path.parts)
    assert after == before
    assert "<script" not in server.get("/").text


IGNORED: dict[str, dict[str, Any]] = {
    "a comment": {"event": {"action": "create", "scope": "discussion.comment"}},
    "a discussion": {"event": {"action": "create", "scope": "discussion"}},
    "a setting": {"event": {"action": "update", "scope": "repo.config"}},
    "a removal": {"event": {"action": "delete", "scope": "repo"}},
    "a new name": {"event": {"action": "move", "scope": "repo"}},
    "a dataset": {"repo": {"type": "dataset", "name": "lab/data", "headSha": SHA}},
    "a branch that is removed": {
        "updatedRefs": [{"ref": "refs/heads/x", "oldSha": SHA, "newSha": None}]
    },
}


@pytest.mark.parametrize("event", sorted(IGNORED))
def test_events_of_the_hub_that_change_no_weights(server: ServeProcess, event: str) -> None:
    before = jobs(server)
    reply = server.deliver_hub(hub_event("lab/ignored", SHA, **IGNORED[event]))
    assert (reply.status, reply.text[:8]) == (200, "ignored:")
    assert jobs(server) == before


@pytest.mark.parametrize("entity", ["model_version_tag", "model_version_alias", "prompt"])
def test_events_of_mlflow_that_change_no_weights(server: ServeProcess, entity: str) -> None:
    before = jobs(server)
    reply = server.deliver_mlflow(mlflow_event("ignored", entity=entity))
    assert (reply.status, reply.text[:8]) == (200, "ignored:")
    assert jobs(server) == before


def test_every_ref_of_a_push_is_judged(server: ServeProcess) -> None:
    before = jobs(server)
    refs = [{"ref": f"refs/heads/{letter}", "newSha": letter * 40} for letter in "abca"]
    assert server.deliver_hub(hub_event("lab/refs", SHA, updatedRefs=refs)).status == 202
    assert jobs(server) == before + 3


def test_a_large_body_is_refused_whether_or_not_it_says_so(server: ServeProcess) -> None:
    large = mlflow_event("large", padding="x" * 30_000)
    assert server.deliver_mlflow(large).status == 413
    for secret in (HUB_SECRET, "wrong"):
        head = f"POST /webhooks/huggingface HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {secret}\r\n"
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
            client.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
            try:
                for _ in range(50):
                    client.sendall(chunk)
            except OSError:
                pass  # it had read enough
            assert client.recv(100).split(b" ")[1] == (b"413" if secret == HUB_SECRET else b"401")


@pytest.mark.slow
def test_a_body_that_does_not_come_is_refused(impatient: ServeProcess) -> None:
    head = (
        "POST /webhooks/huggingface HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
        f"X-Webhook-Secret: {HUB_SECRET}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=60) as client:
        client.sendall(head.encode() + b"{")
        assert client.recv(100).split(b" ")[1] == b"408"


def test_an_early_end_of_a_body_queues_nothing(server: ServeProcess) -> None:
    before = jobs(server)
    head = f"POST /webhooks/huggingface HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {HUB_SECRET}\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        client.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert server.get("/health").status == 200
    assert jobs(server) == before


def test_slow_clients_lose_their_connection_and_the_server_lives(impatient: ServeProcess) -> None:
    place = ("127.0.0.1", impatient.port)
    clients = [socket.create_connection(place, timeout=90) for _ in range(40)]
    for client in clients:
        client.sendall(b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\n")

    def takes_a_delivery() -> bool:
        try:
            return impatient.deliver_mlflow(mlflow_event("beside slow clients")).status < 300
        except OSError:  # this client was slow too: the machine is busy
            return False

    wait_for(takes_a_delivery, 90)
    open_clients = list(clients)

    def all_closed() -> bool:
        for client in list(open_clients):
            try:
                client.sendall(b"X: y\r\n")
            except OSError:
                open_clients.remove(client)
        time.sleep(0.5)
        return not open_clients

    wait_for(all_closed, 90)
    for client in clients:
        client.close()
    wait_for(takes_a_delivery, 90)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /webhooks/mlflow HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(server: ServeProcess, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
        try:
            client.sendall(raw)
            answer = client.recv(100)
        except ConnectionError:  # closed before everything was sent
            answer = b""
    assert answer == b"" or answer.split(b" ")[1].startswith(b"4")
    assert server.get("/health").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_but_the_webhooks_changes_anything(server: ServeProcess, method: str) -> None:
    for path in ("/", "/health", "/ready", "/metrics", "/verdicts/1", "/verdicts.css"):
        assert server.request(method, path).status == 405
    if method != "POST":
        assert server.request(method, "/webhooks/mlflow").status == 405


@pytest.mark.parametrize(
    "path",
    [
        "/verdicts/../jobs.sqlite",
        "/verdicts/..%2fjobs.sqlite",
        "/verdicts/-1",
        "/verdicts/1.json",
        "/verdicts/99999999",
        "/verdicts/" + "9" * 3000,
        "/reports/1.json",
        "/jobs.sqlite",
        "/docs",
    ],
)
def test_nothing_else_can_be_read(server: ServeProcess, path: str) -> None:
    assert server.get(path).status == 404


def test_pages_are_not_shown_under_names_of_other_sites(server: ServeProcess) -> None:
    assert server.get("/", Host="attacker.example").status == 400
    assert server.get("/metrics", Host="attacker.example:8484").status == 400
    assert server.get("/", Host="localhost:1").status == 200
    assert server.get("/health", Host="attacker.example").status == 200


def test_metrics_are_in_the_format_of_prometheus(server: ServeProcess) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    server.deliver_hub(hub_event("lab/metrics", SHA), "wrong-secret-0123456789")
    families = {f.name: f for f in text_string_to_metric_families(server.get("/metrics").text)}
    refused = {
        tuple(s.labels.values()): s.value for s in families["adapter_scanner_deliveries"].samples
    }
    assert refused["hub", "refused_401"] >= 1
    assert {s.labels["state"] for s in families["adapter_scanner_jobs"].samples} >= {"queued"}
    assert "process_resident_memory_bytes" in families


def test_it_is_ready_while_registries_do_not_answer(server: ServeProcess) -> None:
    server.deliver_hub(hub_event("lab/unreachable", SHA))
    wait_for(lambda: "waits to be scanned<br><small>" in server.get("/").text, 60)
    assert server.get("/ready").text == "ready\n"


def environments_below(pid: int) -> list[str]:
    """The environment of every process below another; those that have just ended have none."""
    found = []
    for child in children_of(pid):
        with suppress(OSError):
            found.append(Path(f"/proc/{child}/environ").read_text())
    return [text for text in found if text]


def test_workers_hold_no_key(server: ServeProcess) -> None:
    server.deliver_mlflow(mlflow_event("key"))
    texts: list[str] = []

    def seen() -> bool:
        texts.extend(environments_below(server.pid))
        return bool(texts)

    wait_for(seen, 60)
    assert not [text for text in texts if "PRIVATE KEY" in text or MLFLOW_SECRET in text]
