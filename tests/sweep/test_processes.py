"""A sweep whose work is shared by processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from scanner.errors import options_by_flag
from scanner.hub.client import HubClient
from scanner.signatures.pack import Signature
from scanner.sweep.engines import local
from scanner.sweep.engines.local import LocalEngine
from scanner.sweep.records import Outcome, Task
from scanner.sweep.work import Worker
from scanner.system.processor import cores
from tests.hub.fixtures import ServeHub
from tests.sweep.population import ALPHA, Population, make_population
from tests.sweep.sweeping import FAST_REQUESTS, content_of, found_in, sweep
from tests.synthetic import synthetic_pack


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Population:
    return make_population(tmp_path_factory.mktemp("population"), [pack], 150)


class _Watched(LocalEngine):
    """Waits for its other processes to begin, remembers them, and loses some if told to."""

    children: frozenset[int] = frozenset()
    to_kill = 0
    idle = False
    """Whether one is lost only when there is nothing left to do."""

    def submit(self, task: Task) -> None:
        super().submit(task)
        if self._helpers and not self.children:
            self._await_another()

    def outcomes(self, timeout: float) -> list[Outcome]:
        if self.to_kill and self.children:
            self.to_kill -= 1
            deadline = time.monotonic() + 120
            while self.idle and not self._tasks.empty() and time.monotonic() < deadline:
                time.sleep(0.01)
            (child,) = multiprocessing.active_children()
            assert child.pid
            os.kill(child.pid, signal.SIGKILL)
            self._await_another()
        return super().outcomes(timeout)

    def _await_another(self) -> None:
        """Until there is a process that was not there before, and it works or has ended.

        Meanwhile nothing is submitted: a process is replaced though there is nothing to do.
        """
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            pids = {item.pid for item in multiprocessing.active_children() if item.pid}
            self.children |= pids
            if any(item.is_ready for item in self._processes if item.pid in pids - self._before):
                break
            if not any(helper.is_alive() for helper in self._helpers):
                break
            time.sleep(0.01)
        else:
            pytest.fail("no other process began within two minutes")
        self._before = self.children

    _before: frozenset[int] = frozenset()


def _engine(endpoint: str, pack: Signature) -> _Watched:
    worker = Worker(HubClient(endpoint, FAST_REQUESTS), [pack], ALPHA)
    return _Watched(worker, 4, processes=2)


def test_processes_reach_the_same_verdicts_and_none_is_left(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories, page_size=50)
    with options_by_flag():  # as reasons say them that the command line writes down
        sweep(tmp_path / "one.db", hub.endpoint, pack)
        engine = _engine(hub.endpoint, pack)
        sweep(tmp_path / "two.db", hub.endpoint, pack, engine=engine)
    assert len(engine.children) == 1
    assert not multiprocessing.active_children()
    assert found_in(tmp_path / "two.db") == population.expected
    rows = content_of(tmp_path / "one.db")
    assert any("--base-model" in str(row) for row in rows), "no reason here says an option"
    assert content_of(tmp_path / "two.db") == rows


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
@pytest.mark.parametrize("idle", [False, True])
def test_a_process_that_is_killed_loses_nothing_and_is_replaced(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path, idle: bool
) -> None:
    hub = serve_hub(*population.repositories, page_size=50)
    engine = _engine(hub.endpoint, pack)
    engine.to_kill, engine.idle = 1, idle
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, engine=engine)
    assert engine.to_kill == 0
    assert len(engine.children) == 2
    assert found_in(tmp_path / "ledger.db") == population.expected


def test_where_no_process_begins_this_one_does_all_the_work(
    serve_hub: ServeHub,
    population: Population,
    pack: Signature,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As where a pack is exchanged while a sweep, which has it open, goes on."""
    hub = serve_hub(*population.repositories, page_size=50)
    mine = synthetic_pack(tmp_path / "pack")
    assert mine.digest == pack.digest, "the population was made for the same pack"
    (tmp_path / "pack" / "signature.yaml").write_text("exchanged: true\n")
    engine = _engine(hub.endpoint, mine)
    sweep(tmp_path / "ledger.db", hub.endpoint, mine, engine=engine)
    assert len(engine.children) == 1
    assert found_in(tmp_path / "ledger.db") == population.expected
    assert capfd.readouterr().err == ""


def test_little_work_starts_no_process(
    serve_hub: ServeHub, population: Population, pack: Signature, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories[:2])
    engine = _engine(hub.endpoint, pack)
    sweep(tmp_path / "ledger.db", hub.endpoint, pack, engine=engine)
    assert not engine.children


def test_threads_are_shared_out_among_the_cores(
    pack: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(HubClient("http://127.0.0.1:9"), [pack], ALPHA)
    assert cores() >= 1
    for many, jobs, shares in (
        (2, 16, [8, 8]),
        (64, 16, [4, 4, 4, 4]),
        (3, 16, [6, 5, 5]),
        (8, 7, [7]),
        (1, 16, [16]),
        (8, 1, [1]),
    ):
        monkeypatch.setattr(local, "cores", lambda many=many: many)
        engine = LocalEngine(worker, jobs)
        engine.close()
        assert engine.shares == shares
