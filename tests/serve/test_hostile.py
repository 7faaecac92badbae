"""Hostile adapters end in a verdict that lets nothing pass, and the server lives."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.build import ATTACKS, build, payload_mark
from tests.hub.faults import Fault
from tests.hub.server import Repository
from tests.serve.conftest import StartServer
from tests.serve.discussions import DiscussionHub
from tests.serve.process import hub_event
from tests.serve.test_hub import pushed
from tests.synthetic import module_paths, random_factors, write_adapter

_CORPUS_SECONDS = 1500.0
_MOST_BYTES = 200_000_000
"""Of one repository: the hub of the tests holds its files in memory, holes and all. What is
larger than the server fetches has a test of its own below."""


def can_be_pushed(adapter: Path) -> bool:
    """Whether a directory holds plain files alone, as a repository does, and not too many bytes."""
    entries = list(adapter.rglob("*"))
    plain = [path.is_dir() or path.is_file() for path in entries if not path.is_symlink()]
    if not len(plain) == len(entries) > 0 or not all(plain):
        return False
    return sum(path.stat().st_size for path in entries) < _MOST_BYTES


def results_of(state: Path, job: int) -> list[dict[str, Any]]:
    """What is kept of a job's verdict."""
    judged = json.loads((state / "reports" / f"{job}.json").read_text())
    results: list[dict[str, Any]] = judged["report"]["results"]
    return results


def error_of(state: Path, job: int = 1) -> str:
    """Why a job ended in an error."""
    (result,) = results_of(state, job)
    assert result["verdict"] == "error"
    return str(result["reasons"])


def one_of_each_kind(names: Iterable[str]) -> list[str]:
    """The first attack of those whose names begin with one word: `gguf_`, `pickle_`, `link_`.

    tests/attacks scans every single one; here it is the server that has to live through them.
    """
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.split("_", 1)[0], name)
    return list(first.values())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_corpus_of_attacks(
    hub: DiscussionHub, start_server: StartServer, benign: Path, tmp_path: Path
) -> None:
    adapters = {name: build(tmp_path / "attacks", name) for name in one_of_each_kind(ATTACKS)}
    adapters = {name: path for name, path in adapters.items() if can_be_pushed(path)}
    assert len(adapters) > 60
    server = start_server("--workers", "2")
    numbered = dict(enumerate(adapters, 1))
    for number, name in numbered.items():
        sha = pushed(hub, f"attacks/n{number}", adapters[name])
        assert server.deliver_hub(hub_event(f"attacks/n{number}", sha)).status == 202, name
    server.wait_until_idle(_CORPUS_SECONDS)
    for number, name in numbered.items():
        verdicts = {result["verdict"] for result in results_of(server.state, number)}
        assert verdicts & {"error", "inconclusive"}, name
        assert "flagged" not in verdicts, name
        assert len(hub.api.comments(f"attacks/n{number}")) == 2, name
        assert not payload_mark(adapters[name]).exists(), name
    assert server.jobs("written") == len(adapters)
    page = server.get("/").text
    assert "<script" not in page
    sha = pushed(hub, "lab/good", benign)
    server.deliver_hub(hub_event("lab/good", sha))
    server.wait_until_idle()
    assert "1 clear" in hub.api.comments("lab/good")[1]
    assert list((server.state / "scratch").iterdir()) == []


def test_a_scan_that_takes_too_long_is_an_error(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/slow", benign)
    server = start_server("--scan-timeout", "0.0001")
    server.deliver_hub(hub_event("lab/slow", sha))
    server.wait_until_idle()
    assert "takes longer than 0.0001 s" in error_of(server.state)
    assert "takes longer than 0.0001 s" in hub.api.comments("lab/slow")[1]
    judged = json.loads((server.state / "reports" / "1.json").read_text())
    assert judged["attestation"]["verdict"] == "error"
    assert len(judged["attestation"]["subject"]["artifact_sha256"]) == 64


def test_a_scan_that_takes_too_much_memory_is_an_error(
    hub: DiscussionHub, start_server: StartServer, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    factors = random_factors(generator)
    # 160 MB of address space to map, in a file of zeros that costs nothing to hold.
    rows = 10_000_000
    factors[module_paths()[0]] = (np.zeros((rows, 2), np.float32), np.zeros((2, rows), np.float32))
    sha = pushed(hub, "lab/large", write_adapter(tmp_path / "large", factors))
    server = start_server("--memory", "100")
    server.deliver_hub(hub_event("lab/large", sha))
    server.wait_until_idle()
    assert "memory" in error_of(server.state)
    assert server.get("/ready").status == 200


def test_what_is_larger_than_allowed_is_not_fetched(
    hub: DiscussionHub, start_server: StartServer
) -> None:
    repository = Repository("lab/large", {"adapter_model.safetensors": bytes(2_000_000)})
    hub.add(repository)
    server = start_server("--max-download", "1")
    server.deliver_hub(hub_event("lab/large", repository.head))
    server.wait_until_idle()
    assert "more than the 1000000" in error_of(server.state)
    assert hub.requests["storage"] == 0


def test_a_hub_that_lies_about_sizes_cannot_fill_the_disk(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/endless", benign)
    hub.faults.add(Fault("endless", match="/lfs/"))
    server = start_server("--max-download", "1", "--retry-for", "0")
    server.deliver_hub(hub_event("lab/endless", sha))
    server.wait_until_idle()
    assert error_of(server.state)
    assert list((server.state / "scratch").iterdir()) == []


def test_a_download_that_does_not_end_is_tried_again_and_then_an_error(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    sha = pushed(hub, "lab/slow", benign)
    hub.faults.add(Fault("slow", match="/revision/", seconds=120))
    server = start_server("--fetch-timeout", "0.5", "--retry-for", "0")
    server.deliver_hub(hub_event("lab/slow", sha))
    server.wait_until_idle()
    assert "not fetched within 0.5 s" in error_of(server.state)


def test_names_from_a_repository_stay_text(
    hub: DiscussionHub, start_server: StartServer, benign: Path
) -> None:
    files = {path.name: path.read_bytes() for path in benign.iterdir()}
    folder = '<img src=x onerror="alert(1)">&@everyone'
    repository = Repository("lab/markup", {f"{folder}/{name}": c for name, c in files.items()})
    hub.add(repository)
    server = start_server()
    server.deliver_hub(hub_event("lab/markup", repository.head))
    server.wait_until_idle()
    for text in (server.get("/").text, server.get("/verdicts/1").text):
        assert "<img" not in text
    comment = hub.api.comments("lab/markup")[1]
    assert "<img" not in comment
    assert "@everyone" not in comment
