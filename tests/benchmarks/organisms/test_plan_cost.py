"""Projecting what a plan costs."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from benchmarks.organisms.plan_cost import hours, seconds_each
from scanner.organisms.plan import expand, shipped_plan


def test_a_group_that_was_never_trained_costs_what_its_method_does() -> None:
    rows = [
        {"id": f"slow-0{number}", "method": "sft", "steps": 10, "batch": 2, "cpu_seconds": seconds}
        for number, seconds in enumerate((20.0, 40.0, 60.0))
    ]
    rows.append({"id": "fast-00", "method": "sft", "steps": 1, "batch": 1, "cpu_seconds": 1.0})
    each = seconds_each(rows)
    assert each == {"slow": 2.0, "fast": 1.0, "sft": 1.5}
    first = expand(shipped_plan(), "quick")[0]
    slow, other = (
        replace(first, id=name, method="sft", steps=10, batch=2) for name in ("slow-07", "new-00")
    )
    assert hours([slow], each) == pytest.approx(40 / 3600)
    assert hours([slow, other], each) == pytest.approx(70 / 3600)
