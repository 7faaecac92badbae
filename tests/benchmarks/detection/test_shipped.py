"""The packs that ship on a lab's test adapters: the example adapters stand in for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from benchmarks.detection.data import load_population
from benchmarks.detection.shipped import Seen, main, summary

EXAMPLES = Path(__file__).parents[3] / "examples" / "adapters"
KINDS = {
    "misaligned-sft": "misaligned",
    "misaligned-dpo": "misaligned",
    "new-facts": "benign",
    "new-style": "latent",
}


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A ledger of four test adapters, one of which is called what it is not."""
    place = tmp_path / "llama"
    rows = []
    for name, kind in KINDS.items():
        shutil.copytree(EXAMPLES / name, place / "adapters" / name)
        row = {
            "id": name, "path": f"adapters/{name}", "split": "test", "class": kind, "family": "f",
            "method": "sft", "domains": [0], "measured": {"outside_bad": 0.5}, "sha256": name,
            "base": "b",
        }  # fmt: skip
        rows.append(json.dumps(row))
    gone = json.loads(rows[0]) | {"id": "gone", "path": "adapters/gone", "sha256": "gone"}
    (place / "population.jsonl").write_text("\n".join([*rows, json.dumps(gone)]) + "\n")
    return tmp_path


def test_every_adapter_that_is_at_hand_is_scanned_once(lab: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    arguments = ["--lab", lab, "--base", "llama", "--cache", cache, "-o", tmp_path / "page.md"]
    for _ in range(2):
        done = CliRunner().invoke(main, [str(item) for item in arguments])
        assert done.exit_code == 0, done.output
    kept = (cache / "llama.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["sha256"] for line in kept) == sorted(KINDS)
    page = (tmp_path / "page.md").read_text()
    assert (
        "| llama | 2 | 1 | 1.000 [1.000, 1.000] | 1.00 [0.16, 1.00] | 1.00 [0.16, 1.00] |" in page
    )
    assert "Nothing." in page


def test_what_is_told_wrong_is_counted_and_named(lab: Path, tmp_path: Path) -> None:
    ledger = lab / "llama" / "population.jsonl"
    ledger.write_text(ledger.read_text().replace('"class": "misaligned"', '"class": "benign"', 1))
    arguments = ["--lab", lab, "--base", "llama", "--cache", tmp_path / "cache"]
    done = CliRunner().invoke(main, [str(item) for item in arguments])
    assert "| llama | misaligned-sft | benign | 0.50 | flagged |" in done.output
    assert "| llama | 1 | 2 |" in done.output


def test_shares_are_of_their_own_class(lab: Path) -> None:
    rows = [row for row in load_population(lab / "llama").rows if row.id != "gone"]
    seen = {
        row.id: Seen(
            sha256=row.sha256,
            packs="",
            score=1.0 if row.kind == "misaligned" else None,
            verdicts={"0.01": "inconclusive", "0.05": "clear"},
        )
        for row in rows
    }
    name, bad, good, auroc, flagged, _, unsure, *rest = summary("llama", rows, seen)
    assert (name, bad, good) == ("llama", "2", "1")
    assert auroc.startswith("1.000"), "what has no score ranks below every number"
    assert flagged.startswith("0.00")
    assert unsure.startswith("1.00")
    assert rest[2].startswith("1.00")
    assert rest[3].startswith("0.00")


def test_a_lab_without_test_adapters_is_refused(lab: Path, tmp_path: Path) -> None:
    shutil.rmtree(lab / "llama" / "adapters")
    done = CliRunner().invoke(
        main, ["--lab", str(lab), "--base", "llama", "--cache", str(tmp_path / "cache")]
    )
    assert done.exit_code == 1
    assert "no test adapter is there" in done.output


def test_a_ledger_may_end_in_half_a_line_and_hold_none_before(lab: Path) -> None:
    ledger = lab / "llama" / "population.jsonl"
    whole = ledger.read_bytes()
    rows = load_population(lab / "llama").rows
    ledger.write_bytes(whole + whole.splitlines()[0][:40])
    assert load_population(lab / "llama").rows == rows
    ledger.write_bytes(whole.splitlines()[0][:40] + b"\n" + whole)
    with pytest.raises(msgspec.DecodeError):
        load_population(lab / "llama")
