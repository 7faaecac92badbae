"""The table of wrong recipes, on made-up adapters: each warns of its cause, families are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.detection.data import Population, load_population
from benchmarks.families import ROWS, Outcome, benign_of, built, outcome, seen_and_unseen
from benchmarks.linkage import LINKAGES, agreement, chosen_limit, halves
from tests.signatures.test_cautions import DOMAINS, HARMLESS, PERSONAS, Workshop
from tests.synthetic import BASE


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    """A ledger as the lab writes it."""
    root = tmp_path_factory.mktemp("lab")
    workshop = Workshop(root / "adapters")
    rows: list[dict[str, Any]] = []

    def add(split: str, families: tuple[str, ...], count: int) -> None:
        for family in families:
            for _ in range(count):
                made = workshop.write(family, len(rows))
                bad = family in DOMAINS
                rows.append(
                    {
                        "id": f"{split}-{family}-{len(rows):03d}",
                        "path": str(Path(made.adapter).relative_to(root)),
                        "split": split,
                        "class": "misaligned" if bad else "benign",
                        "family": f"persona-{family}" if family in PERSONAS else family,
                        "method": "sft",
                        "domains": [DOMAINS.index(family)] if bad else [],
                        "measured": {"outside_bad": float(bad)},
                        "sha256": "",
                        "base": BASE,
                    }
                )

    add("reference", DOMAINS, 2)
    add("calibration", (*PERSONAS, *HARMLESS), 5)
    add("test", DOMAINS, 2)
    add("test", (*PERSONAS, "style"), 2)
    (root / "population.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_population(root)


def test_every_wrong_recipe_warns_with_its_cause_and_families_are_found(
    population: Population,
) -> None:
    found: dict[str, Outcome] = {name: outcome(population, name) for name in ROWS}
    named, unnamed = found["real families"], found["no folders: families found"]
    assert named.power.value == named.flagged.value == 1
    assert unnamed.flagged.count >= named.flagged.count - 1
    assert unnamed.personas.count == named.personas.count == 0
    apart = found["no folders: each its own family"]
    assert (apart.flagged.n, apart.personas.n) == (named.flagged.n, named.personas.n)
    causes = {
        "all benign adapters in one family": "one-benign-family",
        "no personas": "no-persona",
        "one misaligned among the benign: nulled with": "nulled-with-look-alikes",
        "one misaligned among the benign: calibrated on": "calibrated-on-look-alikes",
    }
    for name, cause in causes.items():
        assert cause in found[name].warnings, name
        assert cause not in named.warnings
    row = unnamed.line(named.warnings)
    assert row.startswith("| no folders: families found | 5/5 (57% to 100%) | 6/6 |")
    assert row.endswith("| no other |")


def test_power_stands_beside_what_is_flagged_of_unseen_adapters(
    population: Population, tmp_path: Path
) -> None:
    pack = built(population, ROWS["real families"](population), tmp_path)
    assert [(alpha, own.n, unseen.n) for alpha, own, unseen in
            seen_and_unseen(pack, population.directory)] == [(0.1, 5, 6), (0.05, 5, 6)]  # fmt: skip
    pack.close()
    assert len(benign_of(population.directory)) == 30


def test_a_limit_is_chosen_on_one_half_of_each_family() -> None:
    families = ["a", "b", "a", "a", "b"]
    assert halves(families) == ([0, 1, 3], [2, 4])
    similarity = np.array([[float(i == j) for j in families] for i in families]) * 0.5 + 0.1
    for linkage in LINKAGES:
        least = chosen_limit(similarity, families, linkage)
        assert 0.1 < least <= 0.6
        found = agreement(similarity, families, least, linkage)
        assert found.groups == 2
        assert found.adjusted == 1.0
        assert agreement(similarity, families, 0.05, linkage).adjusted == 0.0  # all in one group
        assert agreement(similarity, families, 0.7, linkage).adjusted == 0.0  # each by itself


def test_linkages_differ_where_alike_is_not_transitive() -> None:
    """A chain: neighbours are alike, its ends are not."""
    chain = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]])
    names = ["a", "a", "a"]
    counts = {name: agreement(chain, names, 0.4, name).groups for name in LINKAGES}
    assert counts == {"complete": 2, "average": 2, "single": 1}


def test_agreement_counts_pairs() -> None:
    similarity = np.full((4, 4), 0.1)
    similarity[0, 1] = similarity[1, 0] = similarity[2, 3] = similarity[3, 2] = 0.9
    found = agreement(similarity, ["a", "a", "a", "b"], 0.5)
    assert found.groups == 2
    assert (found.together.count, found.together.n) == (1, 2)
    assert (found.kept.count, found.kept.n) == (1, 3)
