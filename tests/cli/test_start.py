"""How long the program takes to say what it can do."""

from __future__ import annotations

import os

from tests.cli.program import run


def test_help_takes_a_fifth_of_a_second() -> None:
    """Processor time, which a busy machine stretches least; the best of five."""
    spent = []
    for _ in range(5):
        before = os.times()
        assert run("--help").returncode == 0
        after = os.times()
        user = after.children_user - before.children_user
        spent.append(user + after.children_system - before.children_system)
    assert min(spent) < 0.2, spent
