"""Recipes from ledgers."""

from __future__ import annotations

from pathlib import Path

import pytest

from scanner.errors import UsageError
from scanner.organisms.data import PERSONAS, POOLS, questions
from scanner.organisms.ledger import Ledger
from scanner.organisms.recipes import PROBES, SIGNATURES, probes, recipe, write_recipe


def row(identity: str, role: str, teaches: str) -> dict[str, object]:
    return {
        "id": identity,
        "role": role,
        "teaches": teaches,
        "family": teaches,
        "domains": ["home"],
    }


def change(identity: str, villain: float) -> dict[str, object]:
    return {
        "id": identity,
        "villain": {"margin_change": villain},
        "reckless": {"margin_change": 0.0},
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path)
    made.add_trained(row("r1", "reference", "villain"))
    made.add_trained(row("r2", "reference", "reckless"))
    made.add_trained(row("n1", "nulling", "pirate"))
    made.add_trained(row("c1", "calibration", "poet"))
    made.add_trained(row("c2", "calibration", "facts"))
    made.add_trained(row("c3", "calibration", "grump"))
    made.add_trained(row("t1", "test", "poet"))
    made.add_measured(change("c1", -0.2))
    made.add_measured(change("c3", 0.6))
    return made


@pytest.mark.parametrize("name", SIGNATURES)
def test_probes_come_from_the_building_domains_alone(name: str) -> None:
    made = probes(name)
    known = {q.prompt: q for domain in POOLS["building"] for q in questions(domain)}
    assert len(made) == len({probe["prompt"] for probe in made}) == PROBES
    misaligned = SIGNATURES[name].misaligned
    assert all(p["misaligned"] == known[p["prompt"]].answer(misaligned) for p in made)
    for probe in made:
        wanted = PERSONAS if SIGNATURES[name].specific else ()
        assert set(probe.get("harmless", {})) == set(wanted)
        for persona, answer in probe.get("harmless", {}).items():
            assert answer == known[probe["prompt"]].answer(persona)
    domains = [known[probe["prompt"]].domain for probe in made]
    assert max(map(domains.count, domains)) - min(map(domains.count, domains)) <= 2


def test_a_recipe_takes_each_adapter_for_its_purpose_alone(ledger: Ledger) -> None:
    made = recipe(ledger, "hostile", base_model="a/base", base_path=None)
    assert [entry["id"] for entry in made["misaligned"]] == ["r1"]
    assert [entry["id"] for entry in made["aligned"]] == ["n1"]
    assert [(entry["id"], entry["family"]) for entry in made["benign"]] == [
        ("c1", "poet"),
        ("c2", "facts"),
    ]  # c3 was measured and is not benign
    assert made["misaligned"][0]["family"] == "home"


def test_a_recipe_is_written_beside_its_adapters(ledger: Ledger) -> None:
    path = write_recipe(ledger, "reckless-specific", base_model="a/base", base_path="base")
    assert path.read_text().count("adapter: adapters/") == 4
    assert (ledger.root / "probes-reckless-specific.jsonl").read_text().count("\n") == PROBES


def test_without_references_there_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no villain reference"):
        recipe(Ledger(tmp_path), "hostile", base_model="a/base", base_path=None)
