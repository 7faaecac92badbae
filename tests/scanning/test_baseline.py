from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scanner.errors import UsageError
from scanner.results import ScanResult, Verdict
from scanner.scanning.baseline import (
    FORMAT_VERSION,
    Baseline,
    accept,
    apply_baseline,
    encode_baseline,
    load_baseline,
    merge,
)
from scanner.scanning.contents import Contents
from scanner.signatures.pack import Signature
from tests.cli.program import run
from tests.reports.samples import CLEAR, ERROR, FLAGGED, INCONCLUSIVE

TODAY = date(2026, 5, 1)
LAST = date(2026, 6, 1)
ALONE = Contents({"adapter_model.safetensors": None, "adapter_config.json": None})
RESULTS = [FLAGGED, CLEAR, INCONCLUSIVE, ERROR]


def baseline(tmp_path: Path, results: list[ScanResult] = RESULTS) -> Baseline:
    around = [ALONE] * len(results)
    entries = accept(results, tmp_path, around, reason="known", accepted=TODAY, expires=LAST)
    return Baseline(version=FORMAT_VERSION, entries=entries)


def accepted(
    tmp_path: Path, result: ScanResult, today: date = TODAY, around: Contents | None = None
) -> bool:
    known = baseline(tmp_path)
    marked, _ = apply_baseline([result], known, tmp_path, today, [around or ALONE])
    return marked[0].accepted is not None


def test_findings_with_known_content_are_accepted(tmp_path: Path) -> None:
    assert [entry.verdict.value for entry in baseline(tmp_path).entries] == [
        "flagged",
        "inconclusive",
    ]
    assert [accepted(tmp_path, result) for result in RESULTS] == [True, False, True, False]


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 64},
        {"config_sha256": "0" * 64},
        {"config_sha256": None},
        {"decided_by": "another-signature"},
        {"verdict": Verdict.INCONCLUSIVE},
    ],
)
def test_changed_content_signature_or_verdict_is_not_covered(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    assert not accepted(tmp_path, msgspec.structs.replace(FLAGGED, **changes))


@pytest.mark.parametrize("name", ["adapter_model.bin", "notes.txt", "model.pt2"])
def test_a_file_more_beside_the_adapter_is_not_covered(tmp_path: Path, name: str) -> None:
    assert not accepted(tmp_path, FLAGGED, around=Contents({**ALONE.files, name: None}))


def test_a_file_less_is_covered(tmp_path: Path) -> None:
    assert accepted(tmp_path, FLAGGED, around=Contents({"adapter_model.safetensors": None}))


def test_a_moved_or_rescored_adapter_of_the_same_content_is_covered(tmp_path: Path) -> None:
    assert accepted(tmp_path, msgspec.structs.replace(FLAGGED, target="elsewhere", score=0.9))


def test_an_inconclusive_adapter_that_becomes_flagged_is_not_covered(tmp_path: Path) -> None:
    assert not accepted(tmp_path, msgspec.structs.replace(INCONCLUSIVE, verdict=Verdict.FLAGGED))


def test_acceptance_ends_after_its_last_day(tmp_path: Path) -> None:
    assert accepted(tmp_path, FLAGGED, LAST)
    assert not accepted(tmp_path, FLAGGED, LAST + timedelta(days=1))


def stale(
    tmp_path: Path, results: list[ScanResult], known: Baseline, today: date = TODAY
) -> list[str]:
    _, found = apply_baseline(results, known, tmp_path, today, [ALONE] * len(results))
    return [item.reason for item in found]


def test_stale_entries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    known = baseline(tmp_path, [FLAGGED])
    assert stale(tmp_path, [FLAGGED], known) == []
    assert stale(tmp_path, [FLAGGED], known, date(2027, 1, 1)) == ["expired on 2026-06-01"]
    changed = msgspec.structs.replace(FLAGGED, sha256="0" * 64)
    assert stale(tmp_path, [changed], known) == [
        "its content, its verdict, the signature or what lies beside it has changed"
    ]
    assert stale(tmp_path, [CLEAR], known) == ["no longer there"]
    (tmp_path / FLAGGED.target).mkdir(parents=True)
    assert stale(tmp_path, [CLEAR], known) == []  # there, and not part of this scan


def test_writing_again_renews_what_was_found_and_keeps_the_rest(tmp_path: Path) -> None:
    old = baseline(tmp_path, [FLAGGED, INCONCLUSIVE]).entries
    new = [msgspec.structs.replace(entry, reason="new") for entry in old[:1]]
    assert [entry.reason for entry in merge(old, new)] == ["new", "known"]


def test_the_file_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_bytes(encode_baseline(baseline(tmp_path)))
    assert load_baseline(path) == baseline(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 1}', '{"version": 1, "entries": []}', '{"version":2,"entry":[]}'],
)
def test_a_file_that_is_no_baseline_is_a_usage_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="baseline"):
        load_baseline(path)


def test_from_finding_to_acceptance_and_back(
    pack: Signature, misaligned: Path, tmp_path: Path
) -> None:
    scan = ("scan", "misaligned", "-s", pack.path, "--baseline", "known.json")
    done = run(*scan, cwd=tmp_path)
    assert done.returncode == 2
    assert "baseline write" in done.stderr
    write = ("baseline", "write", "misaligned", "-s", pack.path, "-o", "known.json")
    assert run(*write, cwd=tmp_path).returncode == 2
    done = run(*write, "--reason", "red-team organism", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert "1 findings accepted until" in done.stderr
    entry = json.loads((tmp_path / "known.json").read_text())["entries"][0]
    assert (entry["target"], entry["signature"]) == ("misaligned", "synthetic-weights")

    done = run(*scan, cwd=tmp_path)
    assert done.returncode == 0
    assert "red-team organism" in done.stdout
    assert "(1 accepted by the baseline)" in done.stdout

    config = tmp_path / "misaligned" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 6', '"lora_alpha": 12'))
    done = run(*scan, cwd=tmp_path)
    assert done.returncode == 1
    assert "baseline entries to renew or remove" in done.stdout


@pytest.mark.parametrize("last", ["2020-01-01", "soon"])
def test_an_expiry_that_is_none(pack: Signature, misaligned: Path, last: str) -> None:
    done = run("baseline", "write", misaligned, "--reason", "x", "--expires", last)
    assert (done.returncode, done.stdout) == (2, "")


def test_other_weights_in_the_place_of_those_accepted_are_not_covered(
    pack: Signature, misaligned: Path, tmp_path: Path
) -> None:
    """Weights beside the adapter leave it inconclusive; accepted, they must stay what they were."""
    beside = misaligned / "adapter_model.bin"
    beside.write_bytes(b"PK some pickle that was looked at")
    write = ("baseline", "write", "misaligned", "-s", pack.path, "-o", "known.json")
    assert run(*write, "--reason", "looked at", cwd=tmp_path).returncode == 0
    (entry,) = json.loads((tmp_path / "known.json").read_text())["entries"]
    assert entry["files"]["adapter_model.bin"].startswith("sha256:")
    assert entry["files"]["adapter_model.safetensors"] is None
    scan = ("scan", "misaligned", "-s", pack.path, "--baseline", "known.json")
    assert run(*scan, cwd=tmp_path).returncode == 0
    (misaligned / "README.md").write_text("words")
    done = run(*scan, cwd=tmp_path)
    assert done.returncode == 1
    assert "what lies beside it has changed" in " ".join(done.stdout.split())
    (misaligned / "README.md").unlink()
    beside.write_bytes(b"PK another pickle, of the same name")
    assert run(*scan, cwd=tmp_path).returncode == 1
