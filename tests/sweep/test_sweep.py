"""Sweeps over a mixed population on the test hub, with the real client."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scanner.signatures.pack import Signature
from scanner.sweep.engines.ray import RayEngine
from scanner.sweep.records import Outcome
from tests.hub.fixtures import ServeHub
from tests.sweep.population import ALPHA, Population, make_population
from tests.sweep.sweeping import content_of, found_in, read_adapters, sweep


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Population:
    return make_population(tmp_path_factory.mktemp("population"), [pack], 120)


def test_every_verdict_is_right_and_nothing_is_read_twice(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories, page_size=25)
    sweep(tmp_path / "ledger.db", hub.endpoint, pack)
    assert found_in(tmp_path / "ledger.db") == population.expected
    assert read_adapters(tmp_path / "ledger.db") == population.contents


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_loses_nothing(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories, page_size=25)
    sweep(tmp_path / "local.db", hub.endpoint, pack)
    engine = _DeadlyRay([pack], ALPHA, endpoint=hub.endpoint, jobs=4, cpus=2)
    sweep(tmp_path / "ray.db", hub.endpoint, pack, engine=engine)
    assert engine.killed
    assert content_of(tmp_path / "ray.db") == content_of(tmp_path / "local.db")


class _DeadlyRay(RayEngine):
    """A cluster that loses a worker in the middle of the work."""

    killed = False
    _taken = 0

    def outcomes(self, timeout: float) -> list[Outcome]:
        found = super().outcomes(timeout)
        self._taken += len(found)
        if self._taken >= 60 and not self.killed:
            self.killed = True
            os.kill(self._ray.get(self.workers[0].process.remote()), signal.SIGKILL)
        return found
