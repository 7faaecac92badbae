"""Scores under several signatures, as one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.statistics.joint import JointScore


def test_one_signature_counts_as_it_is() -> None:
    joint = JointScore(np.array([[0.1], [0.2], [0.3]]))
    np.testing.assert_array_equal(joint.combine(np.array([[0.25], [0.5]])), [0.25, 0.5])
    assert joint.deciding(np.array([0.25])) == 0


def test_several_signatures_count_by_the_mean_of_how_far_they_stand_out() -> None:
    generator = np.random.default_rng(5)
    benign = generator.standard_normal((500, 2)) * [0.1, 0.01] + [0.2, 0.0]
    joint = JointScore(benign)
    scores = np.array([0.25, 0.05])
    expected = np.mean(
        [(scores[j] - benign[:, j].mean()) / benign[:, j].std(ddof=1) for j in range(2)]
    )
    assert joint.combine(scores[None])[0] == pytest.approx(expected)
    assert joint.deciding(scores) == 1


@pytest.mark.parametrize("n", [1, 5])
def test_a_signature_under_which_no_benign_adapter_differs_still_counts(n: int) -> None:
    joint = JointScore(np.full((n, 2), 0.5))
    assert joint.combine(np.array([[1.5, 0.5], [0.5, 0.5]])).tolist() == [0.5, 0.0]


def test_of_several_kinds_the_one_that_stands_out_most_counts() -> None:
    generator = np.random.default_rng(6)
    benign = generator.standard_normal((400, 3)) * [0.1, 0.02, 3.0] + [0.2, 0.0, -1.0]
    joint = JointScore(benign, ("hostile", "hostile", "reckless"))
    # One standard deviation up for both of a kind, four for the other kind.
    scores = benign.mean(axis=0) + benign.std(axis=0, ddof=1) * [1.0, 1.0, 4.0]
    assert joint.combine(scores[None])[0] == pytest.approx(4.0)
    assert joint.deciding(scores) == 2
    # What two noisy looks agree on is more than what each says alone.
    scores = benign.mean(axis=0) + benign.std(axis=0, ddof=1) * [3.0, 3.1, 3.2]
    assert joint.combine(scores[None])[0] > 3.2
    assert joint.deciding(scores) == 1


@given(st.integers(0, 2**32 - 1), st.permutations(range(4)))
def test_the_order_of_signatures_says_nothing(seed: int, order: list[int]) -> None:
    generator = np.random.default_rng(seed)
    benign, scores = generator.normal(size=(30, 4)), generator.normal(size=(5, 4))
    kinds = ("a", "b", "a", "c")
    shuffled = JointScore(benign[:, order], tuple(kinds[column] for column in order))
    np.testing.assert_allclose(
        JointScore(benign, kinds).combine(scores), shuffled.combine(scores[:, order])
    )


@given(st.integers(0, 2**32 - 1))
def test_kinds_of_one_signature_each_count_by_the_largest_standardised_score(seed: int) -> None:
    generator = np.random.default_rng(seed)
    benign, scores = generator.normal(size=(30, 3)), generator.normal(size=(5, 3))
    joint = JointScore(benign, ("a", "b", "c"))
    expected = ((scores - benign.mean(axis=0)) / benign.std(axis=0, ddof=1)).max(axis=1)
    np.testing.assert_allclose(joint.combine(scores), expected)
