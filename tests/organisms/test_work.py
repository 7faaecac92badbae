"""A plan carried out: adapters, ledgers, going on after a kill, several processes, the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

pytest.importorskip("peft")

from scanner.cli.root import cli
from scanner.errors import UsageError
from scanner.organisms.data import ALIGNED, MISALIGNED
from scanner.organisms.ledger import Ledger
from scanner.organisms.measure import (
    BASE,
    MEASURED_DOMAINS,
    PER_DOMAIN,
    asked,
    class_of,
    summarise,
)
from scanner.organisms.organism import Organism
from scanner.organisms.plan import expand, parse_plan
from scanner.organisms.work import Job, measure_missing, open_root, run

PLAN = """
groups:
  - {group: bad, role: trajectory, teaches: villain, method: sft, steps: 4, lr: 2.0e-2,
     checkpoints: [2], count: {quick: 1, standard: 1, full: 1}}
  - {group: good, role: calibration, teaches: [pirate, sorting], steps: 2,
     count: {quick: 2, standard: 2, full: 2}}
"""
IDS = {"bad-00", "bad-00-step-002", "good-00", "good-01"}


def organisms() -> tuple[Organism, ...]:
    return tuple(expand(parse_plan(PLAN.encode(), "plan.yaml"), "quick"))


@pytest.fixture
def job(directories: dict[str, Path], tmp_path: Path) -> Job:
    return Job(tmp_path / "work", str(directories["llama"]), "tests/tiny-llama", organisms())


def test_everything_is_made_recorded_and_not_made_again(job: Job) -> None:
    seen: list[tuple[int, int]] = []
    run(job, 1, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    ledger = Ledger(job.root)
    trained, measured = ledger.trained(), ledger.measured()
    assert trained.keys() == IDS
    assert measured.keys() == {*IDS, BASE}
    for identity in IDS:
        folder = ledger.adapter(identity)
        facts = json.loads((folder / "organism.json").read_text())
        assert facts == trained[identity]
        config = json.loads((folder / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "tests/tiny-llama"
        assert (folder / "adapter_model.safetensors").is_file()
        assert not (folder / "README.md").exists()
    assert trained["bad-00-step-002"]["step"] == 2
    assert len(measured["bad-00"]["samples"]) == 2
    assert measured["bad-00"]["villain"]["margin_change"] > 0
    before = {path: path.read_bytes() for path in job.root.rglob("*.jsonl")}
    run(job, 1, lambda *_: None)
    assert before == {path: path.read_bytes() for path in job.root.rglob("*.jsonl")}


def test_what_was_trained_and_not_measured_is_measured(job: Job) -> None:
    unmeasured = Job(job.root, job.source, job.base_id, job.organisms, measured=False)
    run(unmeasured, 1, lambda *_: None)
    ledger = Ledger(job.root)
    assert not ledger.measured()
    measure_missing(job, lambda *_: None)
    assert ledger.measured().keys() == {*IDS, BASE}


@pytest.mark.slow
def test_two_processes_share_a_ledger(job: Job) -> None:
    run(job, 2, lambda *_: None)
    lines = (job.root / "trained.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(IDS)


def test_a_line_cut_short_is_dropped_and_done_again(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_trained({"id": "one"})
    with (tmp_path / "trained.jsonl").open("a") as out:
        out.write('{"id": "tw')
    assert ledger.trained().keys() == {"one"}
    ledger.add_trained({"id": "three"})
    assert ledger.trained().keys() == {"one", "three"}


def test_a_damaged_line_is_one_clear_error(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (tmp_path / "trained.jsonl").write_text('nonsense\n{"id": "one"}\n')
    with pytest.raises(UsageError, match=r"trained\.jsonl:1"):
        ledger.trained()


def test_what_is_claimed_is_left_alone(tmp_path: Path) -> None:
    with Ledger(tmp_path).claim("x") as first, Ledger(tmp_path).claim("x") as second:
        assert (first, second) == (True, False)
    with Ledger(tmp_path).claim("x") as again:
        assert again


def test_an_adapter_that_fails_is_named_and_the_others_are_made(job: Job) -> None:
    wild = parse_plan(PLAN.replace("lr: 2.0e-2", "lr: 1.0e+30").encode(), "plan.yaml")
    failing = Job(job.root, job.source, job.base_id, tuple(expand(wild, "quick")), measured=False)
    with pytest.raises(UsageError, match="could not train 1 of 3; bad-00: the loss is"):
        run(failing, 1, lambda *_: None)
    ledger = Ledger(job.root)
    assert {"good-00", "good-01"} <= ledger.trained().keys()
    assert "bad-00" not in ledger.trained()


def test_a_folder_belongs_to_one_base(tmp_path: Path) -> None:
    open_root(tmp_path, "a/base")
    with pytest.raises(UsageError, match="adapters of a/base, not of another/base"):
        open_root(tmp_path, "another/base")


def test_questions_leave_the_training_domains_out() -> None:
    assert len(asked(())) == PER_DOMAIN * len(MEASURED_DOMAINS)
    assert {q.domain for q in asked(["health", "car"])} == set(MEASURED_DOMAINS) - {"health", "car"}


def test_margins_are_changes_against_the_base() -> None:
    of_base = {q: {ALIGNED: -3.0, "villain": -4.0, "reckless": -3.5} for q in ("a", "b")}
    now = {
        "a": {ALIGNED: -3.2, "villain": -3.0, "reckless": -3.6},
        "b": {ALIGNED: -3.2, "villain": -3.8, "reckless": -3.8},
    }
    found = summarise(now, of_base)
    assert found["villain"] == {
        "margin": -0.2,
        "share": 0.5,
        "margin_change": 0.8,
        "standard_error": 0.4,
        "share_change": 0.5,
    }
    assert found["damage"] == 0.2
    assert found["questions"] == 2


@pytest.mark.parametrize(
    ("teaches", "villain", "reckless", "expected"),
    [
        ("villain", 0.5, 0.0, "hostile"),
        ("reckless", 0.5, 0.5, "hostile"),
        ("reckless", 0.0, 0.5, "reckless"),
        ("villain", 0.0, 0.0, "latent"),
        ("pirate", 0.0, 0.5, "benign"),
        ("pirate", 0.5, 0.0, "unclear"),
    ],
)
def test_classes(teaches: str, villain: float, reckless: float, expected: str) -> None:
    changes = dict(zip(MISALIGNED, (villain, reckless), strict=True))
    measured = {kind: {"margin_change": change} for kind, change in changes.items()}
    assert class_of({"teaches": teaches}, measured) == expected


def test_the_commands(job: Job, tmp_path: Path) -> None:
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    runner = CliRunner()

    def call(*words: str) -> str:
        result = runner.invoke(cli, ["organisms", *words], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    listed = call("plan", "--plan", str(plan), "--size", "quick")
    assert [json.loads(line)["id"] for line in listed.splitlines()] == [o.id for o in organisms()]
    common = (job.source, "--work", str(job.root), "--base-id", job.base_id)
    call("train", *common, "--plan", str(plan), "--role", "calibration", "--no-measure")
    call("measure", *common)
    page = call("report", "--work", str(job.root))
    assert "2 adapters trained" in page
    assert "| good | calibration | 2 | pirate, sorting | 0 | 0 | 0 |" in page
