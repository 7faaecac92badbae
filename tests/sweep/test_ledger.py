"""The ledger by itself: what is written together, what goes on where, and what follows what."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from scanner.errors import UsageError
from scanner.hub.query import ListedRepository, SweepQuery
from scanner.hub.snapshot import HubFile
from scanner.results import ScanResult, Verdict
from scanner.sweep.compact import compact
from scanner.sweep.ledger import Ledger
from scanner.sweep.ledger_rows import LedgerRows
from scanner.sweep.records import FoundAdapter, Judge, Judgement, LookUp, target_of

QUERY = SweepQuery(endpoint="http://hub", base_models=["lab/base"])
OTHER_QUERY = SweepQuery(endpoint="http://hub", author="lab")
PACKS = "a" * 64
FILES = [HubFile("adapter_model.safetensors", 1000, "e" * 64, "f" * 40)]


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def opened(path: Path, *, query: SweepQuery = QUERY, packs: str = PACKS, **options: bool) -> Ledger:
    ledger = Ledger(path)
    ledger.begin(query, packs, [], None, resume=options.get("resume", True))
    return ledger


def repositories(*names: str) -> list[ListedRepository]:
    return [ListedRepository(name=f"lab/{name}", revision=f"sha-{name}") for name in names]


def list_repositories(ledger: Ledger, *names: str) -> None:
    with ledger.batch():
        ledger.add_page(repositories(*names), None, finished=True)


def look_up(ledger: Ledger, *contents: str) -> None:
    """Every waiting repository holds one adapter; the contents come in the listing's order."""
    for task, content in zip(ledger.waiting().lookups(99, set()), contents, strict=True):
        with ledger.batch():
            ledger.looked_up(task.key, [FoundAdapter(subfolder="", content=content, files=FILES)])


def judgement(task: Judge, verdict: Verdict = Verdict.CLEAR, dose: float = 0.1) -> Judgement:
    target = target_of(task.repository, task.revision, task.subfolder)
    result = ScanResult(target=target, verdict=verdict, reasons=[f"{target}: as it is"])
    return Judgement(
        key=task.key,
        verdict=verdict,
        base_model="lab/base",
        score=0.5,
        dose=dose,
        cosine=0.2,
        p_value=0.25,
        reason=result.reasons[0],
        result=compact(result),
    )


def rows(path: Path, columns: str = "repository, state, verdict") -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        return connection.execute(
            f"SELECT {columns} FROM adapter ORDER BY repository, subfolder"
        ).fetchall()


def test_what_was_listed_is_looked_up_and_judged_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "one", "two")
        assert [task.repository for task in ledger.waiting().lookups(9, set())] == [
            "lab/one",
            "lab/two",
        ]
        look_up(ledger, "x", "y")
        first, second = ledger.waiting().judgements(9, set())
        assert ledger.waiting().judgements(9, {first.key}) == [second]
        with ledger.batch():
            ledger.judged(judgement(first))
    with opened(path) as ledger:
        assert ledger.waiting().lookups(9, set()) == []
        assert [task.repository for task in ledger.waiting().judgements(9, set())] == ["lab/two"]


def add_page_and_fail(ledger: Ledger) -> None:
    with ledger.batch():
        ledger.add_page(repositories("one"), "page 2", finished=False)
        _ = 1 / 0


def test_a_page_and_the_cursor_behind_it_are_written_together(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as ledger:
        with pytest.raises(ZeroDivisionError):
            add_page_and_fail(ledger)
        assert ledger.waiting().count() == 0
        with ledger.batch():
            ledger.add_page(repositories("one"), "page 2", finished=False)
    with Ledger(tmp_path / "ledger.db") as ledger:
        checkpoint = ledger.begin(QUERY, PACKS, [], None, resume=True)
        assert (checkpoint.cursor, checkpoint.listed, checkpoint.finished) == ("page 2", 1, False)
        checkpoint = ledger.begin(QUERY, PACKS, [], None, resume=False)
        assert (checkpoint.cursor, checkpoint.listed, checkpoint.finished) == (None, 0, False)


def test_the_same_content_is_judged_once_and_each_row_names_itself(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "one", "two")
        look_up(ledger, "same", "same")
        (task,) = ledger.waiting().judgements(9, set())
        with ledger.batch():
            ledger.judged(judgement(task, Verdict.FLAGGED))
        list_repositories(ledger, "three")
        look_up(ledger, "same")  # known by now: no work at all
        assert ledger.waiting().count() == 0
    with LedgerRows(path) as found_rows:
        named = {
            item.repository: (item.copied, item.result.target) for item in found_rows.adapters()
        }
    found = [(*row, *named[str(row[0])]) for row in rows(path, "repository, verdict, dose, reason")]
    assert found == [
        (f"lab/{name}", "flagged", 0.1, f"{target}: as it is", copied, target)
        for name, copied in (("one", False), ("three", True), ("two", True))
        for target in [f"hf://lab/{name}@sha-{name}"]
    ]


def test_other_packs_judge_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    for packs in ("a" * 64, "b" * 64):
        with opened(path, packs=packs) as ledger:
            list_repositories(ledger, "one")
            look_up(ledger, "x")
            (task,) = ledger.waiting().judgements(9, set())
            with ledger.batch():
                ledger.judged(judgement(task))
    assert len(rows(path)) == 2


@pytest.mark.parametrize("for_good", [True, False])
def test_when_the_first_of_its_content_is_given_up_the_next_is_read(
    tmp_path: Path, for_good: bool
) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "one", "two", "three")
        look_up(ledger, "same", "same", "same")
        (task,) = ledger.waiting().judgements(9, set())
        with ledger.batch():
            ledger.give_up(task, "gone", for_good=for_good)
        (successor,) = ledger.waiting().judgements(9, set())
        assert successor.repository == "lab/two"
        assert rows(path)[0][1:] == ("refused" if for_good else "exhausted", "error")
        with ledger.batch():
            ledger.judged(judgement(successor))
    assert [row[1:] for row in rows(path)] == [("judged", "clear")] * 3


def test_a_refusal_stands_until_the_sweep_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "gated")
        (task,) = ledger.waiting().lookups(9, set())
        with ledger.batch():
            ledger.give_up(task, "gated: ask its owner", for_good=True)
    assert rows(path, "state, verdict, reason, attempts") == [
        ("refused", "error", "gated: ask its owner", 1)
    ]
    with opened(path) as ledger:
        list_repositories(ledger, "gated")
        assert ledger.waiting().count() == 0
    with opened(path, resume=False) as ledger:
        list_repositories(ledger, "gated")
        look_up(ledger, "x")
    assert rows(path, "state, verdict, reason, content") == [("waiting", None, None, "x")]


def test_a_lookup_that_was_given_up_is_tried_by_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "one")
        (task,) = ledger.waiting().lookups(9, set())
        with ledger.batch():
            assert ledger.put_off(task, 0.0, counts=True) == 1
            ledger.give_up(task, "timed out", for_good=False)
        assert ledger.waiting().count() == 0
        assert ledger.waiting().progress().verdicts == {"error": 1}
    assert rows(path, "state, attempts") == [("exhausted", 1)]
    with opened(path) as ledger:
        assert ledger.waiting().progress().verdicts == {}
        look_up(ledger, "x")
    assert rows(path, "state, content") == [("waiting", "x")]


def test_what_is_put_off_waits_for_its_time(tmp_path: Path) -> None:
    clock = Clock()
    with Ledger(tmp_path / "ledger.db", clock) as ledger:
        ledger.begin(QUERY, PACKS, [], None, resume=True)
        list_repositories(ledger, "one")
        (task,) = ledger.waiting().lookups(9, set())
        with ledger.batch():
            assert ledger.put_off(task, clock.now + 5, counts=False) == 0
            assert ledger.put_off(task, clock.now + 5, counts=True) == 1
        assert ledger.waiting().lookups(9, set()) == []
        assert ledger.waiting().next_retry() == clock.now + 5
        clock.now += 5
        assert ledger.waiting().lookups(9, set()) == [task]


def test_a_sweep_takes_over_what_another_left_undone(tmp_path: Path) -> None:
    """Followers and what they followed may end in different sweeps; none is forgotten."""
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        list_repositories(ledger, "one", "two")
        look_up(ledger, "same", "same")
    with opened(path, query=OTHER_QUERY) as ledger:
        assert ledger.waiting().count() == 0  # listed by the other query only
        list_repositories(ledger, "one")
        (task,) = ledger.waiting().judgements(9, set())
        assert task.repository == "lab/one"
    with opened(path) as ledger:
        (task,) = ledger.waiting().judgements(9, set())
        assert task.repository == "lab/two"
        with ledger.batch():
            ledger.judged(judgement(task))
    with opened(path, query=OTHER_QUERY) as ledger:
        assert ledger.waiting().count() == 0
    assert [row[1:] for row in rows(path)] == [("judged", "clear")] * 2


def test_only_one_sweep_writes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path):
        code = (
            "import sys; from pathlib import Path; from scanner.sweep.ledger import Ledger\n"
            "from scanner.errors import UsageError\n"
            "try: Ledger(Path(sys.argv[1]))\n"
            "except UsageError as error: print(error.line())"
        )
        run = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
    assert "another sweep is writing to this ledger" in run.stdout
    opened(path).close()


def test_what_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, and somebody's notes " * 10)
    database = tmp_path / "other.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE somebody (data)")
    for path in (text, database):
        before = path.read_bytes()
        with pytest.raises(UsageError, match="not a ledger"):
            Ledger(path)
        assert path.read_bytes() == before


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(UsageError, match="ledger version 99, this program reads 3"):
        Ledger(path)


def test_a_ledger_that_was_only_just_begun_is_no_obstacle(tmp_path: Path) -> None:
    """A kill between making the file and making the tables leaves one of these."""
    path = tmp_path / "ledger.db"
    path.touch()
    opened(path).close()
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    opened(other).close()


def test_tasks_survive_the_way_to_another_process() -> None:
    task = Judge(key=1, repository="a/b", revision="c", subfolder="d", content="e", files=FILES)
    encoded = msgspec.msgpack.encode(task)
    assert msgspec.msgpack.decode(encoded, type=LookUp | Judge) == task
