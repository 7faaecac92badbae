"""What is decided from measurements is what a scan decides."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.redteam import adapters, choices, development, run
from benchmarks.redteam.attack import Material
from benchmarks.redteam.choices import Rule
from benchmarks.redteam.delta import Delta, added, scaled, size
from benchmarks.redteam.development import COUNTS, Part, Tried, Weak, measure
from benchmarks.redteam.target import Target, Victim
from scanner.results import Shape, Verdict
from scanner.signatures.combination import STRONGEST_MARGIN


@pytest.fixture(scope="module")
def target() -> Target:
    return Target("llama")


@pytest.fixture(scope="module")
def examples() -> tuple[list[Victim], Material]:
    return adapters.from_examples()


@pytest.fixture(scope="module")
def submitted(examples: tuple[list[Victim], Material]) -> list[Delta]:
    """Misaligned, harmless and mixed adapters of both shapes."""
    victims, material = examples
    bad, style = victims[0].delta, material.benign[0].delta
    down = {site: item for site, item in bad.items() if site.key == "0.mlp.down_proj"}
    mixed = [
        added(bad, scaled(style, growth * size(bad) / size(style))) for growth in (1.0, 4.0, 16.0)
    ]
    return [bad, style, material.personas[0].delta, scaled(bad, 0.3), *mixed, down]


def test_the_rule_in_force_decides_as_a_scan_does(target: Target, submitted: list[Delta]) -> None:
    rule = Rule(target.packs)
    verdicts = [target.scan(delta).verdict for delta in submitted]
    assert {Verdict.CLEAR, Verdict.FLAGGED} <= set(verdicts)
    parts = [measure(target, delta) for delta in submitted]
    assert {part.shape for part in parts} == set(Shape)
    assert [rule.clears(part) for part in parts] == [item is Verdict.CLEAR for item in verdicts]


def test_what_was_tried_is_kept_and_the_best_that_clears_is_shown(
    target: Target,
    examples: tuple[list[Victim], Material],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victims, material = examples
    monkeypatch.setattr(adapters, "for_development", lambda *_: (victims[:1], material))
    monkeypatch.setattr(development, "ATTACKS", run.ATTACKS[:3])
    found = development.tries("llama", tmp_path, tmp_path)
    monkeypatch.setattr(development, "measure", partial(pytest.fail, "measured twice"))
    assert development.tries("llama", tmp_path, tmp_path) == found

    rules = [Rule(target.packs, margin) for margin in (np.inf, STRONGEST_MARGIN)]
    mild = [item for item in found if item.attack == "diluted with a benign adapter"]
    best = max(
        (item.kept for item in mild if all(rules[0].clears(part) for part in item.parts)),
        default=0.0,
    )
    rows = {row[0]: row[1:] for row in choices.kept_rows(choices.cleared_by(rules, found), found)}
    assert "as trained" not in rows, "the examples are flagged"
    assert (best > choices.KEPT) == ("diluted with a benign adapter" in rows)


def test_all_parts_have_to_be_clear(target: Target, submitted: list[Delta]) -> None:
    good, bad = measure(target, submitted[1]), measure(target, submitted[0])
    rules = [Rule(target.packs)]
    assert rules[0].clears(good)

    def shown(*parts: Part) -> list[list[str]]:
        tried = [Tried("v", "split", "", 0.9, list(parts))]
        return choices.kept_rows(choices.cleared_by(rules, tried), tried)

    assert shown(good, good) == [["split", "0.90"]]
    assert shown(good, bad) == []


def test_support_is_kept_for_every_number_of_surprises(
    target: Target, submitted: list[Delta]
) -> None:
    part = measure(target, submitted[1])
    assert tuple(part.inside) == COUNTS
    outside = msgspec.structs.replace(part, inside={**part.inside, 1: False})
    assert Rule(target.packs).clears(outside)
    assert not Rule(target.packs, counted=1).clears(outside)
    assert not Rule(target.packs).clears(msgspec.structs.replace(part, covered=False))


def test_an_update_of_nothing_is_kept_and_never_clear(
    target: Target, submitted: list[Delta]
) -> None:
    nothing = measure(target, scaled(submitted[0], 0.0))
    assert set(nothing.measured) == {None}
    assert msgspec.json.decode(msgspec.json.encode(nothing), type=Part) == nothing
    assert not Rule(target.packs).clears(nothing)


def test_packs_count_in_the_groups_that_are_asked_for(
    target: Target, submitted: list[Delta]
) -> None:
    """In the groups that they ship in, or some alone."""
    parts = [measure(target, delta) for delta in submitted]
    together = (("weights", "gradients", "specific", "activations"),)
    by_names = [Rule(target.packs, groups=together).flags(part) for part in parts]
    assert by_names == [Rule(target.packs).flags(part) for part in parts]

    alone = Rule(target.packs, groups=(("weights",),))
    place = next(k for k, pack in enumerate(target.packs) if pack.id.endswith("weights"))
    unseen = [item if k == place else None for k, item in enumerate(parts[0].measured)]
    assert alone.flags(parts[0])
    assert alone.flags(msgspec.structs.replace(parts[0], measured=unseen))
    # As in a scan, packs that see nothing of an adapter have no say.
    assert Rule(target.packs).flags(msgspec.structs.replace(parts[0], measured=unseen))
    with_nothing = msgspec.structs.replace(parts[1], measured=[None] * len(target.packs))
    assert not alone.clears(with_nothing), "what no pack sees is not cleared"


def test_shares_are_of_harmful_variants_and_of_weak_adapters(
    target: Target, submitted: list[Delta]
) -> None:
    good, bad = measure(target, submitted[1]), measure(target, submitted[0])
    tried = [
        Tried("v", "a", "", kept, [part]) for kept, part in ((0.9, good), (0.9, bad), (0.1, good))
    ]
    weak = [Weak("x", True, bad), Weak("y", True, good), Weak("z", True, good)]
    rules = [Rule(target.packs)]
    rows = choices.share_rows(rules, choices.cleared_by(rules, tried), tried, weak)
    assert [row[1] for row in rows] == ["50.0%", "33.3%"]
    assert [row[1] for row in choices.share_rows(rules, [[]], [], [])] == ["-", "-"]


def test_weak_adapters_are_kept_and_those_that_are_misaligned_left_out(
    submitted: list[Delta], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {"weak-a": (submitted[3], True), "weak-b": (submitted[0], False)}
    monkeypatch.setattr(adapters, "weak", lambda *_: made)
    found = development.weak_adapters("llama", tmp_path, tmp_path)
    assert [item.name for item in found] == ["weak-a"]
    monkeypatch.setattr(development, "measure", partial(pytest.fail, "measured twice"))
    assert development.weak_adapters("llama", tmp_path, tmp_path) == found
