"""Scores under several signatures, as one."""

from __future__ import annotations

import numpy as np
import pytest

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
