"""q-values: against scipy's implementation, and what the procedure itself promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from scanner.statistics.false_discovery import q_values

P_VALUES = st.lists(st.floats(0, 1) | st.sampled_from([0.01, 0.02, 1 / 301]), max_size=60)


@given(P_VALUES)
def test_equal_to_scipy(p_values: list[float]) -> None:
    expected = false_discovery_control(p_values) if p_values else []
    np.testing.assert_allclose(q_values(p_values), expected, rtol=1e-12)


@given(P_VALUES, st.floats(0.001, 0.5))
def test_findings_are_those_of_the_step_up_procedure(p_values: list[float], level: float) -> None:
    """Reject the k smallest, k the largest with p_(k) <= level k / m (the 1995 definition)."""
    ordered = sorted(p_values)
    m = len(ordered)
    margins = [p - level * k / m for k, p in enumerate(ordered, 1)]
    if any(abs(margin) < 1e-12 for margin in margins):
        return  # rounding decides
    k = max((k for k, margin in enumerate(margins, 1) if margin <= 0), default=0)
    assert sum(q <= level for q in q_values(p_values)) == k


@given(P_VALUES)
def test_never_below_the_p_value_and_in_the_same_order(p_values: list[float]) -> None:
    found = q_values(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, found, strict=True))
    by_p = [q for _, q in sorted(zip(p_values, found, strict=True))]
    assert by_p == sorted(by_p)


@given(P_VALUES, st.randoms())
def test_the_order_of_the_adapters_does_not_matter(p_values: list[float], random: object) -> None:
    permutation = list(range(len(p_values)))
    random.shuffle(permutation)  # type: ignore[attr-defined]
    found = q_values(p_values)
    assert q_values([p_values[i] for i in permutation]) == [found[i] for i in permutation]


@pytest.mark.parametrize("value", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_p_value_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        q_values([0.5, value])
