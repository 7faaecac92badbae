"""Conformal p-values, thresholds, and what n supports."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scanner.errors import AlphaUnsupportedError
from scanner.statistics.conformal import (
    check_supported,
    conformal_p_value,
    conformal_threshold,
    needed_for,
    needed_for_confidence,
    smallest_level,
    supports,
)

scores = st.lists(st.floats(-1, 1), min_size=1, max_size=200)


@given(scores, st.floats(-1, 1))
def test_p_value_counts_benign_adapters_at_or_above(benign: list[float], score: float) -> None:
    above = sum(1 for value in benign if value >= score)
    assert conformal_p_value(score, np.array(benign)) == (1 + above) / (len(benign) + 1)


def test_a_score_that_is_not_a_number_is_compared_with_nothing() -> None:
    with pytest.raises(ValueError, match="NaN"):
        conformal_p_value(math.nan, np.zeros(3))


@given(scores, st.floats(-1, 1), st.floats(0.001, 1))
@example([0.0] * 99, 0.5, 0.01)
@example([0.0] * 19, 0.5, math.nextafter(0.05, 0))
def test_exceeding_the_threshold_is_having_a_small_p_value(
    benign: list[float], score: float, alpha: float
) -> None:
    values = np.array(benign)
    if not supports(len(benign), alpha):
        with pytest.raises(ValueError, match="too small"):
            conformal_threshold(values, alpha)
    else:
        flagged = conformal_p_value(score, values) <= alpha
        assert flagged == (score > conformal_threshold(values, alpha))


@given(st.one_of(st.floats(0.0005, 0.999), st.integers(2, 5000).map(lambda k: 1 / k)))
@example(5e-324)
def test_needed_for_is_the_least_n_that_supports_alpha(alpha: float) -> None:
    n = needed_for(alpha)
    assert Fraction(1, n + 1) <= Fraction(alpha) or smallest_level(n) <= alpha
    assert n == 1 or Fraction(1, n) > Fraction(alpha)


def test_an_alpha_without_support_is_refused_with_what_it_takes() -> None:
    check_supported(99, 0.01)
    with pytest.raises(AlphaUnsupportedError, match=r"needs 99 benign adapters, .* has 98"):
        check_supported(98, 0.01)


@pytest.mark.parametrize(("alpha", "n"), [(0.01, 299), (0.001, 2995), (0.05, 59)])
def test_confidence_needs_the_published_numbers(alpha: float, n: int) -> None:
    assert needed_for_confidence(alpha) == n
    assert (1 - alpha) ** n <= 0.05 < (1 - alpha) ** (n - 1)


def test_false_positive_rate_is_at_most_alpha_for_exchangeable_adapters() -> None:
    generator = np.random.default_rng(11)
    flagged = [
        conformal_p_value(float(sample[0]), sample[1:]) <= 0.05
        for sample in generator.standard_normal((4000, 60))
    ]
    assert np.mean(flagged) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)
