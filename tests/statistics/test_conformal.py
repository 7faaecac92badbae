"""Conformal p-values, thresholds, and what n supports."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.statistics.conformal import (
    JointCalibration,
    Strata,
    conformal_p_value,
    conformal_threshold,
    needed_for,
    needed_for_confidence,
)

scores = st.lists(st.floats(-1, 1), min_size=1, max_size=200)


@given(scores, st.floats(-1, 1))
def test_p_value_counts_benign_adapters_at_or_above(benign: list[float], score: float) -> None:
    above = sum(1 for value in benign if value >= score)
    assert conformal_p_value(score, np.array(benign)) == (1 + above) / (len(benign) + 1)


@given(scores, st.floats(-1, 1), st.floats(0.001, 0.5))
def test_exceeding_the_threshold_is_having_a_small_p_value(
    benign: list[float], score: float, alpha: float
) -> None:
    values = np.array(benign)
    if len(benign) < needed_for(alpha):
        with pytest.raises(ValueError, match="too small"):
            conformal_threshold(values, alpha)
    else:
        flagged = conformal_p_value(score, values) <= alpha + 1e-12
        assert flagged == (score > conformal_threshold(values, alpha))


@given(st.floats(0.0005, 0.9))
def test_needed_for_is_the_least_n_that_can_reach_alpha(alpha: float) -> None:
    n = needed_for(alpha)
    assert 1 / (n + 1) <= alpha * (1 + 1e-6)
    assert n == 1 or 1 / n > alpha * (1 - 1e-6)


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


def test_one_signature_is_scored_by_its_alignment() -> None:
    joint = JointCalibration(np.array([[0.1], [0.2], [0.3]]))
    assert joint.score(np.array([0.25])) == 0.25
    assert joint.deciding(np.array([0.25])) == 0
    np.testing.assert_array_equal(joint.benign_scores(), [0.1, 0.2, 0.3])


def test_several_signatures_are_scored_by_the_mean_of_what_stands_out() -> None:
    generator = np.random.default_rng(5)
    benign = generator.standard_normal((500, 2)) * [0.1, 0.01] + [0.2, 0.0]
    joint = JointCalibration(benign)
    alignments = np.array([0.25, 0.05])
    expected = np.mean(
        [(alignments[j] - benign[:, j].mean()) / benign[:, j].std(ddof=1) for j in range(2)]
    )
    assert joint.score(alignments) == pytest.approx(expected)
    assert joint.deciding(alignments) == 1


@given(st.integers(0, 150), st.integers(0, 150), st.floats(0.005, 0.3), st.booleans())
def test_an_adapter_is_compared_with_its_own_shape_if_that_supports_alpha(
    several: int, single: int, alpha: float, one_layer: bool
) -> None:
    benign = np.arange(several + single, dtype=np.float64)[:, None]
    shapes = np.arange(several + single) >= several
    own = benign[shapes == one_layer]
    found = Strata(benign, shapes, tuple("ab"[place % 2] for place in range(len(benign))))
    expected = own if len(own) >= needed_for(alpha) else benign
    comparable = found.comparable(one_layer, alpha)
    np.testing.assert_array_equal(comparable.benign, expected)
    assert comparable.families == tuple("ab"[int(value) % 2] for value in expected[:, 0])


def test_false_positive_rate_holds_within_each_shape() -> None:
    generator = np.random.default_rng(12)
    flagged = {False: 0, True: 0}
    for _ in range(1000):
        shapes = np.arange(140) >= 70
        benign = generator.standard_normal((140, 1)) * np.where(shapes, 5.0, 1.0)[:, None]
        for one_layer in (False, True):
            score = float(generator.standard_normal()) * (5.0 if one_layer else 1.0)
            own = Strata(benign, shapes, ("x",) * 140).comparable(one_layer, 0.05)
            flagged[one_layer] += conformal_p_value(score, own.benign_scores()) <= 0.05
    assert all(count / 1000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000) for count in flagged.values())


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), min_size=1, max_size=200),
    st.integers(-1, 21),
    st.floats(0.02, 0.4),
)
def test_the_p_value_is_the_largest_of_the_families_that_support_alpha(
    benign: list[tuple[str, int]], score: int, alpha: float
) -> None:
    joint = JointCalibration(
        np.array([[float(value)] for _, value in benign]), tuple(name for name, _ in benign)
    )
    by_family = {name: [v for own, v in benign if own == name] for name, _ in benign}
    least = max(needed_for(alpha), 19)
    small = {name for name, values in by_family.items() if len(values) < least}
    groups = [values for name, values in by_family.items() if name not in small]
    rest = [value for name, value in benign if name in small]
    if rest:
        groups.append(rest if len(rest) >= needed_for(alpha) else [v for _, v in benign])
    expected = max((1 + sum(v >= score for v in own)) / (len(own) + 1) for own in groups)
    assert joint.p_value(float(score), alpha) == expected
    if len(benign) >= needed_for(alpha):
        flagged = expected <= alpha + 1e-12
        assert flagged == (score > joint.threshold(alpha))


def test_the_false_positive_rate_holds_for_the_family_that_scores_highest() -> None:
    generator = np.random.default_rng(13)
    families = ("high",) * 30 + ("low",) * 170
    flagged = 0
    for _ in range(1000):
        benign = generator.standard_normal((200, 1))
        benign[:30] += 3.0
        joint = JointCalibration(benign, families)
        flagged += joint.p_value(float(generator.standard_normal() + 3.0), 0.05) <= 0.05
    assert flagged / 1000 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
