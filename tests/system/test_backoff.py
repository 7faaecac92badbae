"""Waits between tries."""

from __future__ import annotations

import pytest

from scanner.system.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first=1.5, longest=10.0)
    assert [backoff.wait(failures) for failures in range(6)] == [0.0, 1.5, 3.0, 6.0, 10.0, 10.0]


@pytest.mark.parametrize("failures", [100, 10_000])
def test_any_number_of_failures_has_a_wait(failures: int) -> None:
    assert Backoff(first=0.001, longest=300.0).wait(failures) == 300.0


def test_chance_takes_off_no_more_than_its_share() -> None:
    backoff = Backoff(first=8.0, longest=8.0, jitter=0.25)
    waits = {backoff.wait(1) for _ in range(200)}
    assert len(waits) > 100
    assert all(6.0 <= wait <= 8.0 for wait in waits)
