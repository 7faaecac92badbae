"""`hub scan` and `hub report` as users run them: processes, exit statuses, what is printed."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy.stats import false_discovery_control

from scanner.reports.json_report import SCHEMA_PATH
from scanner.reports.terminal import printable
from scanner.results import ScanResult, Verdict
from scanner.signatures.pack import Signature
from scanner.sweep.ledger_rows import FinishedAdapter
from scanner.sweep.table import csv_pieces
from tests.cli.program import PROGRAM, ROOT, run
from tests.hub.faults import Fault
from tests.hub.fixtures import ServeHub
from tests.hub.repository import Repository
from tests.hub.server import HubServer
from tests.sweep.population import ALPHA, Population, adapter_files, make_population
from tests.sweep.sweeping import content_of, found_in, read_adapters
from tests.synthetic import BASE

COUNTS = re.compile(r"adapters: (\d+) flagged, (\d+) error, (\d+) inconclusive, (\d+) clear")


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory, pack: Signature) -> Population:
    return make_population(tmp_path_factory.mktemp("population"), [pack], 60, seed=1)


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory, population: Population, pack: Signature
) -> Path:
    """A finished ledger."""
    ledger = tmp_path_factory.mktemp("swept") / "ledger.db"
    with HubServer(population.repositories, page_size=20) as hub:
        done = run(*arguments(ledger, pack), env={"HF_ENDPOINT": hub.endpoint})
    assert done.returncode == 1, done.stderr
    return ledger


def arguments(ledger: Path, pack: Signature, *more: str) -> list[str]:
    options = ["--ledger", str(ledger), "-s", str(pack.path), "--alpha", str(ALPHA)]
    return ["hub", "scan", *options, *more]


def killed(number: int, when: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.sweep.killed", str(number), when, *args]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def test_a_sweep_prints_counts_and_where_to_look(swept: Path, population: Population) -> None:
    assert found_in(swept) == population.expected
    assert read_adapters(swept) == population.contents


def test_what_is_printed(
    serve_hub: ServeHub, pack: Signature, population: Population, tmp_path: Path
) -> None:
    serve_hub(*population.repositories)
    done = run(*arguments(tmp_path / "my ledger.db", pack))
    assert done.returncode == 1
    assert done.stderr == ""
    match = COUNTS.search(done.stdout)
    assert match is not None, done.stdout
    verdicts = [item.verdict for item in population.expected.values()]
    expected = [verdicts.count(v) for v in ("flagged", "error", "inconclusive", "clear")]
    assert [int(number) for number in match.groups()] == expected
    assert f"hub report '{tmp_path}/my ledger.db' --summary" in done.stdout
    first = done.stdout.splitlines()[0]
    assert first.startswith("flagged       hf://owner-")
    assert ", q " in first


@pytest.mark.slow
def test_kills_at_any_transaction_lose_nothing_and_repeat_nothing(
    serve_hub: ServeHub, pack: Signature, population: Population, swept: Path, tmp_path: Path
) -> None:
    hub = serve_hub(*population.repositories, page_size=20)
    ledger = tmp_path / "ledger.db"
    kills = [(1, "after"), (2, "before"), (3, "after"), (7, "before"), *[(12, "after")] * 4]
    for number, when in kills:
        done = killed(number, when, *arguments(ledger, pack, "--resume"))
        assert done.returncode == -signal.SIGKILL, done.stderr
        finished = finished_in(ledger)
        hub.forget()
        if (
            finished and number == 12
        ):  # on a slow machine the first twelve transactions may finish nothing
            break
    assert finished, "every kill came before anything was finished"
    done = run(*arguments(ledger, pack, "--resume"))
    assert done.returncode == 1, done.stderr
    asked = {path_of(line) for line in hub.log}
    assert not {path for path in asked if any(path.startswith(f"/{item}/") for item in finished)}
    assert differences(ledger, swept) == []
    hub.forget()
    again = run(*arguments(ledger, pack, "--resume"))
    assert (again.returncode, hub.log) == (1, [])


def differences(first: Path, second: Path) -> list[object]:
    """What is not the same in two ledgers; the packs' digest and all else must be."""
    a, b = content_of(first), content_of(second)
    return [pair for pair in zip(a, b, strict=True) if pair[0] != pair[1]]


def finished_in(ledger: Path) -> list[str]:
    """Repositories all of whose adapters have a verdict."""
    if not ledger.exists():
        return []
    with sqlite3.connect(ledger) as connection:
        rows = connection.execute(
            "SELECT repository FROM repository WHERE state <> 'waiting' EXCEPT SELECT repository "
            "FROM adapter WHERE state IN ('waiting', 'duplicate')"
        ).fetchall()
    return [row[0] for row in rows]


def path_of(line: str) -> str:
    return line.split()[1].removeprefix("/api/models")


@pytest.mark.slow
def test_a_kill_from_outside_at_a_random_moment(
    serve_hub: ServeHub, pack: Signature, population: Population, swept: Path, tmp_path: Path
) -> None:
    serve_hub(*population.repositories, page_size=20)
    ledger = tmp_path / "ledger.db"
    generator = np.random.default_rng()
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [*PROGRAM, *arguments(ledger, pack, "--resume")]
    for _ in range(4):
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(float(generator.uniform(0.3, 1.5)))
        process.kill()
        process.wait(timeout=60)
    assert run(*arguments(ledger, pack, "--resume")).returncode == 1
    assert differences(ledger, swept) == []


def test_interrupted_it_says_how_to_go_on(
    serve_hub: ServeHub, pack: Signature, population: Population, tmp_path: Path
) -> None:
    hub = serve_hub(
        *population.repositories, faults=[Fault("slow", match="/resolve/", seconds=60.0)]
    )
    ledger = tmp_path / "ledger.db"
    process = subprocess.Popen(
        [*PROGRAM, *arguments(ledger, pack, "--jobs", "2")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background inherits that interrupts are ignored; a terminal's does not.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not hub.requests["resolve"] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.startswith(f"adapter-scanner: interrupted; what was done is in {ledger}")
    again = err.splitlines()[1].split()
    assert again[0] == "adapter-scanner"
    assert again[-1] == "--resume"
    hub.faults.clear()
    assert run(*again[1:]).returncode == 1
    assert found_in(ledger) == population.expected


def test_every_format_holds_every_adapter(swept: Path, population: Population) -> None:
    schema = json.loads(SCHEMA_PATH.read_text())
    for name in ("text", "json", "jsonl", "sarif", "markdown", "html", "junit", "cyclonedx"):
        done = run("hub", "report", str(swept), "-f", name)
        assert (done.returncode, done.stderr) == (1, ""), name
        for (repository, _), item in population.expected.items():
            if name == "sarif" and item.verdict == "clear":
                continue  # SARIF holds findings
            assert repository in done.stdout
        if name == "json":
            report = json.loads(done.stdout)
            jsonschema.validate(report, schema)


def test_q_values_are_of_different_adapters(swept: Path) -> None:
    report = json.loads(run("hub", "report", str(swept), "-f", "json").stdout)
    by_content = {
        (item["sha256"], item["config_sha256"]): (item["p_value"], item["q_value"])
        for item in report["results"]
        if item["p_value"] is not None
    }
    p_values, q_values = zip(*by_content.values(), strict=True)
    np.testing.assert_allclose(q_values, false_discovery_control(p_values), rtol=1e-12)
    assert len(p_values) < sum(item["p_value"] is not None for item in report["results"])


def test_parquet_holds_the_same_numbers(swept: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    path = tmp_path / "sweep.parquet"
    done = run("hub", "report", str(swept), "-f", "parquet", "-o", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    table = pyarrow.parquet.read_table(path).to_pylist()
    report = json.loads(run("hub", "report", str(swept), "-f", "json").stdout)
    expected = {item["target"]: item for item in report["results"]}
    assert {row["target"] for row in table} == set(expected)
    for row in table:
        item = expected[row["target"]]
        for name in ("verdict", "p_value", "q_value", "score", "sha256", "reasons", "base_model"):
            assert row[name] == item[name]
        assert row["dose"] == item["dose"].get(item["decided_by"])
    assert list(tmp_path.iterdir()) == [path]


def test_csv_holds_what_parquet_holds(swept: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    done = run("hub", "report", str(swept), "-f", "csv")
    assert (done.returncode, done.stderr) == (1, "")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    run("hub", "report", str(swept), "-f", "parquet", "-o", str(tmp_path / "sweep.parquet"))
    table = pyarrow.parquet.read_table(tmp_path / "sweep.parquet").to_pylist()
    assert len(rows) == len(table) > 50
    for row, other in zip(rows, table, strict=True):
        assert list(row) == list(other)
        for name, value in other.items():
            if isinstance(value, float):
                assert float(row[name]) == value
            elif isinstance(value, str):
                assert row[name] == value
            elif value is None:
                assert row[name] == ""
    (pack,) = {row["decided_by"] for row in rows} - {""}
    assert [row[f"dose:{pack}"] for row in rows] == [row["dose"] for row in rows]
    run("hub", "report", str(swept), "-f", "csv", "-o", str(tmp_path / "sweep.csv"))
    assert (tmp_path / "sweep.csv").read_text().splitlines() == done.stdout.splitlines()


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "a\tb", 'say "no", please', "1\n2"])
def test_no_text_is_a_formula_or_breaks_a_line_of_csv(text: str) -> None:
    result = ScanResult(target=text, verdict=Verdict.ERROR, reasons=[text, "second"])
    row = FinishedAdapter("a/b", "c", text, "", "judged", False, 1, "0", "", result)
    head, line = "".join(csv_pieces([row], ["p"])).splitlines()
    (found,) = csv.DictReader([head, line])
    for name in ("target", "subfolder", "reasons"):
        assert not found[name].startswith(("=", "+", "-", "@", "\t"))
    assert found["target"].removeprefix("'") == printable(text)


def test_the_summary_links_what_was_scanned(swept: Path, population: Population) -> None:
    page = run("hub", "report", str(swept), "--summary", "-f", "markdown").stdout
    rows = [line for line in page.splitlines() if re.match(r"\|\s+\d\.\d{4} ", line)]
    judged = {item.dose for item in population.expected.values()} - {None}
    assert len(rows) == len(judged)
    p_values = [float(line.split("|")[1]) for line in rows if "flagged" in line]
    assert p_values == sorted(p_values)
    commits = {item.id: item.head for item in population.repositories}
    links = re.findall(r"/(owner-\d+/adapter-\d+)/tree/([0-9a-f]{40})", page)
    assert links
    assert all(commits[name] == commit for name, commit in links)
    html = run("hub", "report", str(swept), "--summary", "-f", "html").stdout
    assert html.count("<rect") > 2
    assert "<script" not in html


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--summary", "-f", "sarif"], "--summary: there is no summary as sarif"),
        (["-f", "parquet"], "-f parquet: Parquet is written to a file; say -o FILE"),
    ],
)
def test_a_report_that_cannot_be_made(swept: Path, words: list[str], line: str) -> None:
    done = run("hub", "report", str(swept), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert line in done.stderr


def test_an_unfinished_sweep_says_so(swept: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    copy.write_bytes(swept.read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE adapter SET state = 'waiting', verdict = NULL WHERE id = 1")
    done = run("hub", "report", str(copy), "-f", "json")
    assert "the sweep is not finished; 1 wait" in done.stderr
    json.loads(done.stdout)


@pytest.mark.parametrize(
    ("options", "line", "status"),
    [
        (["--alpha", "0.0001"], "--alpha: alpha 0.0001 needs 9999 benign adapters", 2),
        (["--address", "ray://x:1"], "--address: only a Ray cluster has an address", 2),
        (["--since", "yesterday"], "does not match the format", 2),
        (["--limit", "0"], "0 is not in the range", 2),
    ],
)
def test_what_cannot_be_asked_for(
    pack: Signature, tmp_path: Path, options: list[str], line: str, status: int
) -> None:
    done = run(*arguments(tmp_path / "ledger.db", pack, *options))
    assert (done.returncode, done.stdout) == (status, "")
    assert line in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_exit_statuses(serve_hub: ServeHub, pack: Signature, tmp_path: Path) -> None:
    generator = np.random.default_rng(902)  # the benign adapter of the other tests
    clear = Repository("lab/clear", adapter_files(generator), base_model=BASE)
    hub = serve_hub(clear)
    assert run(*arguments(tmp_path / "clear.db", pack)).returncode == 0
    other = adapter_files(generator, base_model_name_or_path="somebody/another")
    hub.add(Repository("lab/other", other, base_model=BASE))
    assert run(*arguments(tmp_path / "other.db", pack)).returncode == 3
    done = run(*arguments(tmp_path / "other.db", pack, "--fail-on", "flagged", "--resume"))
    assert done.returncode == 0
    hub.add(Repository("lab/bad", adapter_files(generator, dose=2.0), base_model=BASE))
    assert run(*arguments(tmp_path / "bad.db", pack)).returncode == 1
    assert run(*arguments(tmp_path / "bad.db", pack, "--fail-on", "never")).returncode == 0


def test_a_hub_that_is_not_there(
    pack: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = run(*arguments(tmp_path / "ledger.db", pack))
    assert (done.returncode, done.stdout) == (3, "")
    assert "offline mode" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_progress_is_shown_on_a_terminal(
    serve_hub: ServeHub, pack: Signature, population: Population, tmp_path: Path
) -> None:
    serve_hub(*population.repositories, page_size=20, faults=[Fault("slow", seconds=0.05)])
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, *arguments(tmp_path / "ledger.db", pack)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "160", "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while block := os.read(reader, 65536):
            shown += block
    os.close(reader)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert COUNTS.search(out.decode()), "the bar must not get between the lines of the result"
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "sweeping" in text
    assert re.search(r"\d+/\d+ .*\d+ flagged .*\d+ clear .*\d+\.\d/s", text)
