"""What is known of a repository after one request, and descriptions that are refused."""

from __future__ import annotations

import pytest

from scanner.errors import HubAnswerError, HubError, HubUnavailableError, NotOnHubError
from scanner.hub.address import HubAddress
from scanner.hub.snapshot import take_snapshot
from tests.hub.adapters import client
from tests.hub.fixtures import ServeHub
from tests.hub.server import Fault
from tests.hub.test_client import FILE, INFO, WEIGHTS, serve, snapshot


def test_one_request_tells_commit_sizes_and_digests(serve_hub: ServeHub) -> None:
    hub = serve(serve_hub)
    asked = client()
    found = take_snapshot(HubAddress("lab/one", "main"), asked)
    assert len(found.commit) == 40
    assert {file.path: file.size for file in found.files.values()} == {
        FILE: len(WEIGHTS),
        "adapter_config.json": 8,
    }
    assert found.files[FILE].digest.kind == "sha256"
    assert found.files["adapter_config.json"].digest.kind == "git"
    assert hub.requests == {"info": 1}
    assert (asked.requests, asked.received) == (1, hub.bytes["info"])


def test_revisions(serve_hub: ServeHub) -> None:
    serve(serve_hub, revisions={"feature/x": {"README.md": b"x"}})
    found = take_snapshot(HubAddress("lab/one", "feature/x"), client())
    assert list(found.files) == ["README.md"]
    with pytest.raises(NotOnHubError, match=r"no such revision .*name a branch, a tag or a whole"):
        snapshot("nope")


def test_a_page_instead_of_an_answer(serve_hub: ServeHub) -> None:
    """A network that wants a sign-in answers 200 with its own page; that passes."""
    hub = serve(serve_hub, Fault("not-json", INFO, first=1))
    snapshot()
    hub.faults.add(Fault("not-json", INFO))
    with pytest.raises(HubUnavailableError, match="no description of a repository; check HF_END"):
        snapshot()


def test_an_answer_without_end(serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scanner.hub.snapshot.MAX_INFO_BYTES", 2**20)
    hub = serve(serve_hub, Fault("endless", INFO))
    with pytest.raises(HubAnswerError, match="an answer over 1,048,576 bytes"):
        snapshot()
    assert hub.requests["info"] == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"sha": "main"}', "names no commit"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "../x"}]}', "a file named '../x'"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "/x"}]}', "a file named '/x'"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "x", "size": -1}]}', "malformed"),
        (b'{"sha": "%s", "siblings": [{"rfilename": "x", "size": 1}]}', "malformed"),
        (
            b'{"sha": "%s", "siblings": [{"rfilename": "x", "blobId": "%s"}, '
            b'{"rfilename": "x", "blobId": "%s"}]}',
            "twice",
        ),
        (b'{"sha": "%s", "siblings": [{"rfilename": "x", "lfs": {}}]}', "no description"),
        (
            b'{"sha": "%s", "siblings": [{"rfilename": "x", "lfs": {"sha256": "1", "size": 1}}]}',
            "malformed",
        ),
        (b"[" * 100_000, "no description"),
        (b"", "no description"),
    ],
)
def test_descriptions_that_are_none(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch, body: bytes, says: str
) -> None:
    serve(serve_hub)
    hub = client()
    answer = body.replace(b"%s", b"a" * 40)
    monkeypatch.setattr(hub, "body", lambda *_: answer)
    with pytest.raises(HubError, match=says):
        snapshot(hub=hub)


def test_another_commit_than_the_one_asked_for(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(serve_hub)
    hub = client()
    monkeypatch.setattr(hub, "body", lambda *_: b'{"sha": "%s"}' % (b"a" * 40))
    with pytest.raises(HubAnswerError, match=r"another commit, a{40}"):
        snapshot("b" * 40, hub)
