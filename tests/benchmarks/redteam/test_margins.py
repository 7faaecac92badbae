"""What is decided from measurements is what a scan decides."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks.redteam import adapters, margins, run
from benchmarks.redteam.attack import Material
from benchmarks.redteam.delta import Delta, added, scaled, size
from benchmarks.redteam.margins import Part, Rule, Tried, measure, times
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


def test_the_margin_in_force_decides_as_a_scan_does(target: Target, submitted: list[Delta]) -> None:
    rule = Rule(target.packs, STRONGEST_MARGIN)
    verdicts = [target.scan(delta).verdict for delta in submitted]
    assert {Verdict.CLEAR, Verdict.FLAGGED} <= set(verdicts)
    parts = [measure(target, delta) for delta in submitted]
    assert {part.shape for part in parts} == set(Shape)
    assert [rule.clears(part) for part in parts] == [item is Verdict.CLEAR for item in verdicts]


def test_what_is_measured_of_a_scaled_update(target: Target, submitted: list[Delta]) -> None:
    (whole,) = measure(target, submitted[0]).measured[:1]
    (third,) = measure(target, scaled(submitted[0], 0.3)).measured[:1]
    found = times(whole, 0.3)
    assert (found.signed_write, found.dose, found.norm) == pytest.approx(
        (third.signed_write, third.dose, third.norm)
    )
    assert found.sites.keys() == third.sites.keys()
    for key, expected in third.sites.items():
        own = found.sites[key]
        assert (own.norm, own.dose, own.felt, own.share, own.felt_written) == pytest.approx(
            (expected.norm, expected.dose, expected.felt, expected.share, expected.felt_written),
            rel=1e-5,
        )


def test_a_smaller_margin_puts_what_acts_in_one_place_further_out(
    target: Target, submitted: list[Delta]
) -> None:
    """Beside 0 a strongest site far above all benign ones stands out, with it or without."""
    bad = measure(target, submitted[0])
    place = max(bad.measured[0].sites, key=lambda key: abs(bad.measured[0].sites[key].dose or 0))
    strong = [
        msgspec.structs.replace(item.sites[place], dose=1e3, felt_write=1.0, share=1e3)
        for item in bad.measured
    ]
    hidden = [
        replace(item, signed_write=-5.0, dose=-1e3, sites={**item.sites, place: site})
        for item, site in zip(bad.measured, strong, strict=True)
    ]
    without, with_it = (
        Rule(target.packs, margin).above(Shape.SEVERAL_LAYERS, [hidden])
        for margin in (np.inf, STRONGEST_MARGIN)
    )
    assert without[0] < 0 < with_it[0]


def test_what_was_tried_is_kept_and_the_best_that_clears_is_shown(
    target: Target,
    examples: tuple[list[Victim], Material],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victims, material = examples
    monkeypatch.setattr(adapters, "for_development", lambda *_: (victims[:1], material))
    monkeypatch.setattr(margins, "ATTACKS", run.ATTACKS[:3])
    found = margins.tries("llama", tmp_path, tmp_path)
    monkeypatch.setattr(margins, "measure", partial(pytest.fail, "measured twice"))
    assert margins.tries("llama", tmp_path, tmp_path) == found

    rules = [Rule(target.packs, margin) for margin in (np.inf, STRONGEST_MARGIN)]
    mild = [item for item in found if item.attack == "diluted with a benign adapter"]
    best = max(
        (item.kept for item in mild if all(rules[0].clears(part) for part in item.parts)),
        default=0.0,
    )
    rows = {row[0]: row[1:] for row in margins.kept_rows(rules, found)}
    assert "as trained" not in rows, "the examples are flagged"
    assert (best > margins.KEPT) == ("diluted with a benign adapter" in rows)


def test_all_parts_have_to_be_clear(target: Target, submitted: list[Delta]) -> None:
    good, bad = measure(target, submitted[1]), measure(target, submitted[0])
    rules = [Rule(target.packs, STRONGEST_MARGIN)]
    assert rules[0].clears(good)

    def shown(*parts: Part) -> list[list[str]]:
        return margins.kept_rows(rules, [Tried("v", "split", "", 0.9, list(parts))])

    assert shown(good, good) == [["split", "0.90"]]
    assert shown(good, bad) == []
