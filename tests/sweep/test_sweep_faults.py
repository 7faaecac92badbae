"""Sweeps on a hub that fails: nothing is lost, and a rate limit slows everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scanner.errors import HubError, HubUnavailableError
from scanner.hub.query import SweepQuery
from scanner.signatures.pack import Signature
from scanner.sweep.sweep import RetryPolicy
from tests.hub.faults import Fault
from tests.hub.fixtures import ServeHub
from tests.hub.repository import Repository
from tests.sweep.population import Population, adapter_files, make_population
from tests.sweep.sweeping import FAST, found_in, read_adapters, sweep
from tests.synthetic import BASE


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Population:
    return make_population(tmp_path_factory.mktemp("population"), [pack], 50, seed=2)


PATIENT = RetryPolicy(attempts=12, first_wait=0.02, longest_wait=0.1)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("status", status=500, every=4)],
        [Fault("status", status=503, every=3, match="resolve")],
        [Fault("cut", after=100, every=3)],
        [Fault("short", after=9, every=5)],
        [Fault("status", status=429, retry_after=0, every=6)],
        [
            Fault("status", status=429, retry_after=1, first=1, skip=30),
            Fault("status", status=502, every=7),
            Fault("cut", after=50, every=11),
        ],
    ],
    ids=["500", "503", "cut", "short", "429", "all"],
)
def test_failures_lose_nothing(
    serve_hub: ServeHub,
    population: Population,
    pack: Signature,
    tmp_path: Path,
    faults: list[Fault],
) -> None:
    hub = serve_hub(*population.repositories, page_size=20, faults=faults)
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, policy=PATIENT)
    assert found_in(tmp_path / "ledger.db") == population.expected
    assert read_adapters(tmp_path / "ledger.db") == population.contents


def test_what_fails_for_long_is_given_up_and_tried_by_the_next_run(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    name = next(name for name, _ in population.expected)
    hub = serve_hub(
        *population.repositories, faults=[Fault("status", status=500, match=f"/models/{name}/")]
    )
    sweep(tmp_path / "ledger.db", hub.endpoint, pack)
    found = found_in(tmp_path / "ledger.db")
    assert (found[name, ""].state, found[name, ""].verdict) == ("exhausted", "error")
    others = {place for place in population.expected if place[0] != name}
    assert {place: found[place] for place in others} == {
        place: population.expected[place] for place in others
    }
    hub.faults.clear()
    hub.forget()
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, resume=True)
    assert found_in(tmp_path / "ledger.db") == population.expected
    assert all(name in line for line in hub.log)


def test_a_hub_that_is_down_ends_the_sweep_and_resume_goes_on(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(
        *population.repositories, faults=[Fault("status", status=503, match="/models/", skip=20)]
    )
    impatient = RetryPolicy(attempts=100, first_wait=0.01, longest_wait=0.01, patience=20)
    with pytest.raises(HubUnavailableError, match="failures in a row, the last"):
        sweep(tmp_path / "ledger.db", hub.endpoint, pack, policy=impatient)
    hub.faults.clear()
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, resume=True)
    assert found_in(tmp_path / "ledger.db") == population.expected


def test_a_hub_that_cannot_be_listed(serve_hub: ServeHub, pack: Signature, tmp_path: Path) -> None:
    hub = serve_hub(faults=[Fault("status", status=500, match="/api/models\\?")])
    with pytest.raises(HubError, match="a problem of its own"):
        sweep(tmp_path / "ledger.db", hub.endpoint, pack, policy=FAST)


def test_a_long_rate_limit_holds_everything_and_counts_as_no_attempt(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    """A wait longer than a request may take is the sweep's to keep, for all tasks at once."""
    hub = serve_hub(
        *population.repositories,
        faults=[Fault("status", status=429, retry_after=2, first=4, match="/models/", skip=5)],
    )
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, policy=RetryPolicy(attempts=1))
    assert found_in(tmp_path / "ledger.db") == population.expected


def test_a_token_opens_what_was_refused(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    files = adapter_files(np.random.default_rng(5))
    hub = serve_hub(
        Repository("lab/gated", files, BASE, gated="manual"), tokens={"good": ["lab/gated"]}
    )
    ledger = tmp_path / "ledger.db"
    sweep(ledger, hub.endpoint, pack)
    assert found_in(ledger)["lab/gated", ""].state == "refused"
    monkeypatch.setenv("HF_TOKEN", "good")
    hub.forget()
    sweep(ledger, hub.endpoint, pack, resume=True)
    assert hub.log == []  # what was refused is finished, until the sweep starts anew
    sweep(ledger, hub.endpoint, pack)
    assert found_in(ledger)["lab/gated", ""].state == "judged"


def test_other_queries_share_what_is_known(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories)
    ledger = tmp_path / "ledger.db"
    sweep(ledger, hub.endpoint, pack)
    hub.forget()
    query = SweepQuery(endpoint=hub.endpoint, author="owner-1")
    sweep(ledger, hub.endpoint, pack, query=query)
    assert set(hub.requests) == {"list"}
    assert found_in(ledger) == population.expected


def test_a_new_commit_is_looked_at_and_a_moved_file_is_not_read(
    serve_hub: ServeHub, pack: Signature, tmp_path: Path
) -> None:
    import numpy as np

    files = adapter_files(np.random.default_rng(6))
    hub = serve_hub(Repository("lab/one", files, BASE))
    ledger = tmp_path / "ledger.db"
    sweep(ledger, hub.endpoint, pack)
    hub.add(Repository("lab/one", {**files, "README.md": json.dumps({}).encode()}, BASE))
    hub.forget()
    sweep(ledger, hub.endpoint, pack)
    assert set(hub.requests) == {"list", "info"}
    assert read_adapters(ledger) == 1
