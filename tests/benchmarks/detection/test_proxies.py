"""Harmless personas as targets: nothing misaligned is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.detection import proxies
from benchmarks.detection.data import Population, Row, load_population
from benchmarks.detection.proxies import Found, compare, references_of, whole_cosines
from scanner import geometry
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank
from scanner.signatures.building.scoring import untracked
from tests.benchmarks.detection.population import PERSONAS, write_population


@pytest.fixture
def population(tmp_path: Path) -> Population:
    return load_population(write_population(tmp_path / "quick"))


def test_planted_personas_are_found(
    population: Population, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Row] = []
    original = Population.read

    def watched(self: Population, row: Row) -> object:
        read.append(row)
        return original(self, row)

    def first_three(rows: Sequence[Row], persona: str) -> list[Row]:
        return [row for row in rows if row.family == persona][:3]

    monkeypatch.setattr(Population, "read", watched)
    monkeypatch.setattr(proxies, "references_of", first_three)
    found = compare(population, untracked)
    assert found == {"sft": dict.fromkeys(proxies.STATISTICS, Found(2 * len(PERSONAS), 4))}
    assert {row.split for row in read} == {"nulling", "calibration"}
    assert {row.kind for row in read} == {"benign"}


def test_targets_are_made_of_declared_groups(population: Population) -> None:
    template = population.select("calibration", "benign")[0]
    names = ("cal-persona-broad-000", "cal-persona-single-000", "cal-persona-single-001", "x-000")
    rows = [
        type(template)(
            **{
                field: getattr(template, field)
                for field in template.__struct_fields__
                if field not in ("id", "family")
            },
            id=name,
            family="persona-poet",
        )
        for name in names
    ]
    assert [row.id for row in references_of(rows, "persona-poet")] == list(names[:2])
    assert references_of(rows, "persona-pirate") == []


def test_whole_cosines_are_the_sites_cosines() -> None:
    generator = np.random.default_rng(4)
    sites, expected, weights = {}, [], []
    for layer in range(3):
        u = np.linalg.qr(generator.standard_normal((9, 2)))[0]
        v = np.linalg.qr(generator.standard_normal((7, 2)))[0]
        s = np.array([2.0, 1.0]) * (layer + 1)
        b, a = generator.standard_normal((9, 3)), generator.standard_normal((3, 7))
        sites[Site(layer, "mlp.down_proj")] = geometry.project(
            LowRank(b, a, 0.5), Direction(u, s, v)
        )
        dense, delta = (u * s) @ v.T, 0.5 * b @ a
        expected.append(np.sum(dense * delta) / np.linalg.norm(dense) / np.linalg.norm(delta))
        weights.append(np.sum(dense**2))
    assert whole_cosines(sites) == pytest.approx(
        np.dot(weights, expected) / np.linalg.norm(weights)
    )
