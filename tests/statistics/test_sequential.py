"""The rule over a whole run: what it promises, under the worst dependence there is."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.errors import AlphaUnsupportedError
from scanner.statistics.conformal import smallest_level
from scanner.statistics.sequential import Look, RunRule

P_VALUES = st.floats(0, 1)
SHARES = st.fractions(Fraction(1, 50), 1)
RUNS = st.lists(st.builds(Look, st.integers(0, 40), P_VALUES), min_size=1, max_size=30)


def total_of(looks: list[Look]) -> int:
    return max(sum(look.steps for look in looks), 1)


@given(RUNS, SHARES, st.integers(0, 30))
def test_the_p_value_of_a_run_never_rises(looks: list[Look], share: Fraction, at: int) -> None:
    rule, total = RunRule(0.05, share), total_of(looks)
    assert rule.p_value(looks, total) <= rule.p_value(looks[:at], total)


@given(RUNS, SHARES, st.floats(0.001, 0.999))
def test_it_is_flagged_when_low_looks_make_up_the_share(
    looks: list[Look], share: Fraction, alpha: float
) -> None:
    """The definition, counted the other way round, away from ties that rounding decides."""
    rule, total = RunRule(alpha, share), total_of(looks)
    level = Fraction(alpha) * share
    if any(abs(Fraction(look.p_value) - level) < Fraction(1, 10**12) for look in looks):
        return
    low = sum(look.steps for look in looks if look.p_value <= level)
    assert rule.flags(looks, total) is (low >= share * total)


@given(st.lists(P_VALUES, min_size=1, max_size=30), st.integers(1, 30))
def test_equal_looks_are_the_rule_of_rueger(p_values: list[float], m: int) -> None:
    k = len(p_values)
    m = min(m, k)
    rule = RunRule(0.05, Fraction(m, k))
    expected = min(sorted(p_values)[m - 1] * k / m, 1.0)
    assert rule.p_value([Look(3, p) for p in p_values], 3 * k) == pytest.approx(expected)


@given(P_VALUES)
def test_one_look_is_a_plain_scan(p_value: float) -> None:
    assert RunRule(0.05, Fraction(1)).p_value([Look(100, p_value)], 100) == p_value


@pytest.mark.parametrize(("k", "m"), [(1, 1), (20, 1), (20, 4), (20, 20), (100, 7)])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.2])
def test_under_the_worst_dependence_the_rate_is_at_most_alpha(k: int, m: int, alpha: float) -> None:
    """Groups of m looks that take turns at being low: each uniform, no two groups low together.

    All p-values are one uniform number, shifted around the circle by the group. So the run is
    flagged on one interval of that number for each whole group, as long as the level.
    """
    rule, groups = RunRule(alpha, Fraction(m, k)), -(-k // m)

    def flagged(number: float) -> bool:
        return rule.flags([Look(1, (number + j // m / groups) % 1) for j in range(k)], k)

    whole = 0
    for group in range(groups):
        start = 1 - group / groups
        inside, outside = (start + share * rule.level for share in (0.999, 1.001))
        assert not flagged(outside % 1)
        whole += flagged(inside % 1)
    assert whole == k // m
    rate = whole * rule.level
    assert rate <= alpha * (1 + 1e-12)
    if k % m == 0:
        assert rate == pytest.approx(alpha)


@given(st.integers(1, 3000), st.integers(1, 200), st.sampled_from([0.01, 0.05, 0.1]))
def test_the_share_is_the_smallest_that_the_calibration_supports(
    n: int, looks: int, alpha: float
) -> None:
    if smallest_level(n) > alpha:
        with pytest.raises(AlphaUnsupportedError, match="benign adapters"):
            RunRule.for_run(alpha, looks, n)
        return
    rule = RunRule.for_run(alpha, looks, n)
    m = rule.share * looks
    assert m.denominator == 1
    lowest = [Look(1, smallest_level(n))] * int(m) + [Look(1, 1.0)] * int(looks - m)
    assert rule.flags(lowest, looks)
    assert not rule.flags(lowest[1:], looks)
    if m > 1:
        assert not RunRule(alpha, rule.share - Fraction(1, looks)).flags(lowest, looks)


def test_what_is_no_run_is_refused() -> None:
    rule = RunRule(0.05, Fraction(1, 4))
    with pytest.raises(ValueError, match="more than the 10 steps"):
        rule.p_value([Look(6, 0.5), Look(5, 0.5)], 10)
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        rule.p_value([Look(5, float("nan"))], 10)
