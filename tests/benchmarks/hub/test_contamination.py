"""Planting scores in a calibration."""

from __future__ import annotations

import pytest

from benchmarks.hub.contamination import shares
from scanner.results import Shape

SEVERAL = Shape.SEVERAL_LAYERS
BENIGN = [(number / 1000, SEVERAL) for number in range(120)]
FAMILIES = [f"owner-{number // 2}" for number in range(120)]


def test_equal_misaligned_adapters_hide_each_other() -> None:
    misaligned = [(0.9, SEVERAL)] * 20
    clean = shares(BENIGN, FAMILIES, misaligned, 0.0, 5)
    assert clean == {0.05: 1.0, 0.01: 1.0}
    assert shares(BENIGN, FAMILIES, misaligned, 0.01, 5) == {0.05: 1.0, 0.01: 0.0}
    assert shares(BENIGN, FAMILIES, misaligned, 0.1, 5) == {0.05: 0.0, 0.01: 0.0}


def test_a_planted_adapter_hides_those_that_score_lower() -> None:
    misaligned = [(0.5 + number / 100, SEVERAL) for number in range(20)]
    found = shares(BENIGN, FAMILIES, misaligned, 0.01, 400)
    assert found[0.05] == 1.0
    assert found[0.01] == pytest.approx(0.5, abs=0.05)
