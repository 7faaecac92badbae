"""Metrics against independent implementations, and their edge cases."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.detection import metrics

Array = npt.NDArray[np.float64]


def sample(seed: int, ties: bool) -> tuple[Array, Array]:
    generator = np.random.default_rng(seed)
    positive, negative = generator.normal(0.8, 1, 37), generator.normal(0, 1, 119)
    if ties:
        positive, negative = np.round(positive, 1), np.round(negative, 1)
    return positive, negative


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_auroc_agrees_with_sklearn(seed: int, ties: bool) -> None:
    positive, negative = sample(seed, ties)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    expected = roc_auc_score(labels, np.concatenate([positive, negative]))
    assert metrics.auroc(positive, negative) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("fpr", [0.01, 0.05, 0.1, 0.3])
def test_tpr_is_the_best_point_of_the_roc_curve_within_the_rate(fpr: float, ties: bool) -> None:
    positive, negative = sample(3, ties)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    scores = np.concatenate([positive, negative])
    rates, hits, _ = roc_curve(labels, scores, drop_intermediate=False)
    expected = hits[rates <= fpr + 1e-12].max()
    assert metrics.tpr_at_fpr(positive, negative, fpr) == pytest.approx(expected)


def test_a_tie_with_the_threshold_is_not_above_it() -> None:
    assert metrics.tpr_at_fpr([1.0, 1.0], [1.0, 0.0], 0.0) == 0.0
    assert metrics.tpr_at_fpr([1.0, 2.0], [1.0, 0.0], 0.0) == 0.5


def test_one_percent_of_fewer_than_a_hundred_negatives_allows_none() -> None:
    assert metrics.threshold_at_fpr(np.arange(99.0), 0.01) == 98.0
    assert metrics.threshold_at_fpr(np.arange(100.0), 0.01) == 98.0


def test_nan_ranks_below_everything() -> None:
    assert metrics.auroc([math.nan], [-1e9]) == 0.0
    assert metrics.auroc([math.nan], [math.nan]) == 0.5
    assert metrics.tpr_at_fpr([math.nan, 1.0], [0.0], 0.0) == 0.5


def test_empty_classes_give_nan() -> None:
    assert math.isnan(metrics.auroc([], [1.0]))
    assert math.isnan(metrics.tpr_at_fpr([1.0], [], 0.1))
    assert math.isnan(metrics.bootstrap_auroc([], [1.0]).value)
    assert math.isnan(metrics.bootstrap_tpr([], [1.0], 0.1).value)
    assert math.isnan(metrics.proportion(0, 0).value)


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (1, 299)])
def test_proportion_agrees_with_scipy(k: int, n: int) -> None:
    estimate = metrics.proportion(k, n)
    expected = stats.binomtest(k, n).proportion_ci(method="exact")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_bootstrap_interval_of_auroc_agrees_with_the_asymptotic_one() -> None:
    generator = np.random.default_rng(0)
    positive, negative = generator.normal(1, 1, 200), generator.normal(0, 1, 300)
    estimate = metrics.bootstrap_auroc(positive, negative)
    area = estimate.value
    # Hanley and McNeil 1982, equation 1.
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 199 * (q1 - area**2) + 299 * (q2 - area**2)) / (200 * 300)
    assert (estimate.high - estimate.low) / 3.92 == pytest.approx(math.sqrt(variance), rel=0.15)
    assert estimate.low < area < estimate.high


def test_bootstrap_is_the_same_every_time() -> None:
    positive, negative = sample(1, ties=True)
    first = metrics.bootstrap_tpr(positive, negative, 0.05)
    assert first == metrics.bootstrap_tpr(positive, negative, 0.05)


def test_bootstrap_of_tpr_agrees_with_a_plain_loop() -> None:
    positive, negative = sample(2, ties=False)
    generator = np.random.default_rng(5)
    values = []
    for _ in range(2000):
        drawn = generator.choice(positive, len(positive)), generator.choice(negative, len(negative))
        values.append(metrics.tpr_at_fpr(*drawn, 0.1))
    estimate = metrics.bootstrap_tpr(positive, negative, 0.1, resamples=2000)
    expected = np.percentile(values, [2.5, 97.5])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(expected), abs=0.04)


@pytest.mark.parametrize("ties", [False, True])
def test_rank_correlation_agrees_with_scipy(ties: bool) -> None:
    x, noise = sample(4, ties)
    y = x + noise[: len(x)]
    assert metrics.rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_rank_correlation_leaves_out_what_is_not_finite() -> None:
    x = np.array([1.0, 2.0, 3.0, math.nan])
    assert metrics.rank_correlation(x, [1.0, 2.0, 3.0, -9.0]) == pytest.approx(1.0)
    assert math.isnan(metrics.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    assert math.isnan(metrics.rank_correlation([1.0, 2.0], [1.0, 2.0]))


def test_a_correlation_has_an_interval_that_holds_it() -> None:
    generator = np.random.default_rng(5)
    x = generator.normal(size=60)
    y = x + generator.normal(size=60)
    found = metrics.bootstrap_correlation(x, y)
    assert found.value == metrics.rank_correlation(x, y)
    assert found.low < found.value < found.high
    assert 0.1 < found.high - found.low < 0.6
    assert math.isnan(metrics.bootstrap_correlation(x[:2], y[:2]).value)
