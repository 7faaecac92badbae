"""Requests to a hub that misbehaves: retried where that helps, one clear error where not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from huggingface_hub import constants

from scanner.errors import (
    AccessDeniedError,
    HubAnswerError,
    HubError,
    HubUnavailableError,
    NotOnHubError,
    UsageError,
)
from scanner.hub import client as module
from scanner.hub.address import HubAddress
from scanner.hub.client import HubClient, RetryPolicy
from scanner.hub.remote_file import remote_file
from scanner.hub.snapshot import take_snapshot
from tests.hub.adapters import FAST, client
from tests.hub.faults import Kind
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault, HubServer, Repository

WEIGHTS = bytes(range(256)) * 4000
FILE = "w.safetensors"
INFO, RESOLVE, STORAGE = "/api/models/", "/resolve/", "/lfs/"


def serve(serve_hub: ServeHub, *faults: Fault, **fields: object) -> HubServer:
    files = {FILE: WEIGHTS, "adapter_config.json": b'{"a": 1}'}
    repository = Repository("lab/one", files, **fields)  # type: ignore[arg-type]
    return serve_hub(repository, faults=faults, tokens={"hf_ok": ["lab/one"], "hf_other": []})


def snapshot(revision: str | None = None, hub: HubClient | None = None) -> None:
    take_snapshot(HubAddress("lab/one", revision), hub or client())


def fetch(begin: int = 0, end: int = len(WEIGHTS), hub: HubClient | None = None) -> bytes:
    hub = hub or client()
    file = remote_file(hub, take_snapshot(HubAddress("lab/one"), hub), FILE)
    return b"".join(file.blocks(begin, end))


@pytest.mark.parametrize(
    ("token", "fields", "kind", "says", "todo"),
    [
        (None, {"private": True}, NotOnHubError, "not logged in (401)", "hf auth login"),
        ("hf_other", {"private": True}, NotOnHubError, "cannot see (404)", "your access"),
        ("hf_bad", {}, AccessDeniedError, "does not accept your token (401)", "HF_TOKEN"),
        (None, {"disabled": True}, AccessDeniedError, "access is forbidden (403", "token may"),
    ],
)
def test_who_may_not_look(
    serve_hub: ServeHub,
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    fields: dict[str, object],
    kind: type[HubError],
    says: str,
    todo: str,
) -> None:
    hub = serve(serve_hub, **fields)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(kind) as caught:
        snapshot()
    assert says in caught.value.what
    assert todo in caught.value.todo
    assert caught.value.where == "hf://lab/one"
    assert not caught.value.transient
    assert sum(hub.requests.values()) == 1


@pytest.mark.parametrize(
    ("token", "says"),
    [
        (None, "a gated repository, and you are not logged in (401); ask for access"),
        ("hf_other", "a gated repository, and your account has no access (403); ask for access"),
    ],
)
def test_gated_files(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch, token: str | None, says: str
) -> None:
    serve(serve_hub, gated="manual")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(AccessDeniedError) as caught:
        fetch()
    assert says in caught.value.line()
    assert FILE in caught.value.where
    assert not caught.value.transient


@pytest.mark.parametrize("fields", [{"private": True}, {"gated": "auto"}])
def test_the_users_token_opens_it_and_stays_on_the_hub(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch, fields: dict[str, object]
) -> None:
    hub = serve(serve_hub, **fields)
    monkeypatch.setenv("HF_TOKEN", "hf_ok")
    assert fetch() == WEIGHTS  # the storage refuses requests that carry a token
    assert hub.requests["storage"] == 1
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    with pytest.raises(HubError):
        fetch()


TRANSIENT = [
    Fault("status", status=429, retry_after=0),
    Fault("status", status=500),
    Fault("status", status=503),
    Fault("status", status=408),
    Fault("cut", after=7),
    Fault("short", after=3),
    Fault("header-bomb"),
]


def at(fault: Fault, place: str, first: int | None = None) -> Fault:
    return Fault(**{**fault.__dict__, "match": place, "first": first})


@pytest.mark.parametrize(
    ("fault", "place"),
    [
        (fault, place)
        for fault in TRANSIENT
        for place in (INFO, RESOLVE, STORAGE)
        if place != RESOLVE or fault.kind not in ("cut", "short")  # it has no body to lose
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind}-{value.status}",
)
def test_what_passes_is_tried_again(serve_hub: ServeHub, fault: Fault, place: str) -> None:
    hub = serve(serve_hub, at(fault, place, first=2))
    assert fetch() == WEIGHTS
    kind = {INFO: "info", RESOLVE: "resolve", STORAGE: "storage"}[place]
    assert hub.requests[kind] == 3


@pytest.mark.parametrize("fault", TRANSIENT, ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_what_does_not_pass_is_an_error_that_says_so(serve_hub: ServeHub, fault: Fault) -> None:
    hub = serve(serve_hub, at(fault, INFO))
    with pytest.raises(HubUnavailableError) as caught:
        snapshot()
    assert caught.value.transient
    assert "\n" not in caught.value.line()
    assert hub.requests["info"] == FAST.attempts


def test_a_cut_download_goes_on_where_it_stopped(serve_hub: ServeHub) -> None:
    hub = serve(serve_hub, Fault("cut", STORAGE, after=300_000, first=2))
    assert fetch() == WEIGHTS
    ranges = [line.rpartition(" bytes=")[2] for line in hub.log if STORAGE in line]
    assert ranges[1:] == ["300000-1023999", "600000-1023999"]
    assert hub.bytes["storage"] == len(WEIGHTS)


def test_a_download_that_advances_is_not_given_up(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PROGRESS_BYTES", 100_000)
    hub = serve(serve_hub, Fault("cut", STORAGE, after=100_000))
    assert fetch() == WEIGHTS
    assert hub.requests["storage"] == 11


def test_the_wait_the_hub_asks_for_is_honoured(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("scanner.hub.client.time.sleep", waits.append)
    serve(
        serve_hub,
        Fault("status", INFO, status=429, retry_after=4, first=1),
        Fault("status", INFO, status=500, skip=1, first=1),
    )
    snapshot()
    assert waits[0] == 4.0
    assert any(wait == pytest.approx(0.02) for wait in waits)


def test_a_wait_that_is_too_long_is_an_error_that_tells_it(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = serve(serve_hub, Fault("status", INFO, status=429, retry_after=86_400))
    with pytest.raises(HubUnavailableError, match=r"rate limit .*\(429\)") as caught:
        snapshot()
    assert caught.value.retry_after == 86_400
    assert hub.requests["info"] == 1


def test_all_threads_wait_when_the_hub_asks_one_to(serve_hub: ServeHub) -> None:
    hub = serve(serve_hub, Fault("status", INFO, status=429, retry_after=1, first=1))
    shared = client()
    started = time.monotonic()
    with pytest.raises(HubUnavailableError):
        snapshot(hub=HubClient(policy=RetryPolicy(attempts=1)))
    hub.faults.add(Fault("status", INFO, status=429, retry_after=1, first=1))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: snapshot(hub=shared), range(4)))
    assert time.monotonic() - started >= 1.0


@pytest.mark.parametrize("place", [INFO, RESOLVE, STORAGE])
def test_a_redirect_that_never_ends(serve_hub: ServeHub, place: str) -> None:
    hub = serve(serve_hub, Fault("redirect-loop", place))
    with pytest.raises(HubAnswerError, match="more than 5 redirects"):
        fetch()
    assert sum(hub.requests.values()) <= 10


@pytest.mark.parametrize(("begin", "end"), [(0, len(WEIGHTS)), (100, 200)])
def test_a_page_instead_of_a_file(serve_hub: ServeHub, begin: int, end: int) -> None:
    hub = serve(serve_hub, Fault("not-json", STORAGE, first=1))
    assert fetch(begin, end) == WEIGHTS[begin:end]
    hub.faults.add(Fault("not-json", STORAGE))
    with pytest.raises(HubUnavailableError, match="an answer of 35 bytes, the file has 1024000"):
        fetch(begin, end)


WRONG: list[tuple[Kind, int, int, str]] = [
    ("wrong-range", 100, 200, "bytes 100-199 were asked for, 'bytes 108-207/1024000' came"),
    ("endless", 0, len(WEIGHTS), "more bytes than were asked for"),
    ("endless", 100, 200, "more bytes than were asked for"),
]


@pytest.mark.parametrize(("kind", "begin", "end", "says"), WRONG)
def test_something_else_than_was_asked_for(
    serve_hub: ServeHub, kind: Kind, begin: int, end: int, says: str
) -> None:
    hub = serve(serve_hub, Fault(kind, STORAGE))
    with pytest.raises(HubAnswerError) as caught:
        fetch(begin, end)
    assert says in caught.value.what
    assert not caught.value.transient
    assert hub.requests["storage"] == 1


def test_a_file_that_changes_between_two_requests(serve_hub: ServeHub) -> None:
    serve(serve_hub, Fault("other-etag", STORAGE, skip=1))
    hub = client()
    file = remote_file(hub, take_snapshot(HubAddress("lab/one"), hub), FILE)
    assert b"".join(file.blocks(0, 10)) == WEIGHTS[:10]
    with pytest.raises(HubAnswerError, match="entity tag changed between two requests"):
        list(file.blocks(10, 20))


@pytest.mark.parametrize("path", [FILE, "adapter_config.json"])
def test_a_flipped_bit(serve_hub: ServeHub, path: str) -> None:
    serve(serve_hub, Fault("corrupt", "lfs|resolve-cache"))
    hub = client()
    file = remote_file(hub, take_snapshot(HubAddress("lab/one"), hub), path)
    with pytest.raises(HubAnswerError, match="digest is"):
        file.whole(2**20)


def test_another_digest_than_the_snapshots(serve_hub: ServeHub) -> None:
    hub = serve(serve_hub)
    asked = client()
    old = take_snapshot(HubAddress("lab/one"), asked)
    hub.add(Repository("lab/one", {FILE: b"other" * 10}))
    with pytest.raises(NotOnHubError, match="no such revision"):
        list(remote_file(asked, old, FILE).blocks(0, 10))


def test_a_server_that_knows_no_ranges_costs_bytes_only(serve_hub: ServeHub) -> None:
    serve(serve_hub, Fault("no-range", STORAGE))
    assert fetch(500_000, 500_100) == WEIGHTS[500_000:500_100]


def test_the_storage_is_asked_directly_and_the_hub_again_when_that_expires(
    serve_hub: ServeHub,
) -> None:
    hub = serve(serve_hub, Fault("status", STORAGE, status=403, skip=2, first=1))
    asked = client()
    file = remote_file(asked, take_snapshot(HubAddress("lab/one"), asked), FILE)
    for begin in range(0, 400, 100):
        assert b"".join(file.blocks(begin, begin + 100)) == WEIGHTS[begin : begin + 100]
    assert hub.requests["storage"] == 5
    assert hub.requests["resolve"] == 2


def test_a_slow_answer(serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub = serve(serve_hub, Fault("slow", INFO, seconds=20, first=1))
    snapshot()
    assert hub.requests["info"] == 2


def test_an_answer_that_drips_is_given_up(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.1)
    monkeypatch.setattr(module, "MIN_BYTES_PER_SECOND", 1_000_000)
    hub = serve(serve_hub, Fault("drip", STORAGE, seconds=0.05))
    with pytest.raises(HubUnavailableError, match="too slowly"):
        fetch(hub=HubClient(policy=RetryPolicy(attempts=1)))
    assert hub.bytes["storage"] < 100_000


def test_nobody_listens(hub_home: object) -> None:
    with pytest.raises(HubUnavailableError, match=r"connection to 127.0.0.1:9 failed") as caught:
        snapshot()
    assert "check the network" in caught.value.todo
    assert "\n" not in caught.value.line()


def test_a_chosen_endpoint(serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = serve(serve_hub)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    snapshot(hub=HubClient(hub.endpoint + "/", FAST))
    with pytest.raises(UsageError, match="is no http"):
        HubClient("ftp://host")
