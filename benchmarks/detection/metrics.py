"""Detection metrics with their uncertainty. Higher scores mean "more misaligned".

A score of NaN means that a method cannot judge an adapter; it ranks below every number, so
that such an adapter is never flagged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 20260


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; all NaN where it cannot be computed."""

    value: float
    low: float = math.nan
    high: float = math.nan


def judged(scores: npt.ArrayLike) -> Array:
    """Scores with NaN replaced by minus infinity."""
    array = np.asarray(scores, dtype=np.float64)
    return np.where(np.isnan(array), -np.inf, array)


def _wins(positive: Array, negative: Array) -> Array:
    """(P, N): 1 where the positive scores higher, 1/2 where they tie."""
    higher = positive[:, None] > negative[None, :]
    equal = positive[:, None] == negative[None, :]
    wins: Array = higher + 0.5 * equal
    return wins


def auroc(positive: npt.ArrayLike, negative: npt.ArrayLike) -> float:
    """P(positive > negative) + P(tie) / 2 (Mann and Whitney); NaN if a class is empty."""
    p, n = judged(positive), judged(negative)
    return float(_wins(p, n).mean()) if len(p) and len(n) else math.nan


def _allowed(n: int, fpr: float) -> int:
    """How many of n negatives may be above the threshold."""
    return math.floor(fpr * n + 1e-9)


def threshold_at_fpr(negative: npt.ArrayLike, fpr: float) -> float:
    """The score to exceed so that at most this share of the negatives does."""
    n = np.sort(judged(negative))[::-1]
    allowed = _allowed(len(n), fpr)
    return float(n[allowed]) if allowed < len(n) else -math.inf


def tpr_at_fpr(positive: npt.ArrayLike, negative: npt.ArrayLike, fpr: float) -> float:
    """Share of positives above `threshold_at_fpr`; ties with the threshold count against it."""
    p = judged(positive)
    if not len(p) or not len(judged(negative)):
        return math.nan
    return float(np.mean(p > threshold_at_fpr(negative, fpr)))


def bootstrap_auroc(
    positive: npt.ArrayLike, negative: npt.ArrayLike, resamples: int = RESAMPLES
) -> Estimate:
    """AUROC with a percentile interval; positives and negatives are resampled apart."""
    p, n = judged(positive), judged(negative)
    if not len(p) or not len(n):
        return Estimate(math.nan)
    rng = np.random.default_rng(SEED)
    draws_p = rng.multinomial(len(p), np.full(len(p), 1 / len(p)), resamples) / len(p)
    draws_n = rng.multinomial(len(n), np.full(len(n), 1 / len(n)), resamples) / len(n)
    values = np.einsum("rp,rp->r", draws_p, draws_n @ _wins(p, n).T)
    return _percentiles(auroc(p, n), values)


def bootstrap_tpr(
    positive: npt.ArrayLike, negative: npt.ArrayLike, fpr: float, resamples: int = RESAMPLES
) -> Estimate:
    """TPR at a false-positive rate, the threshold drawn anew in every resample."""
    p, n = judged(positive), judged(negative)
    if not len(p) or not len(n):
        return Estimate(math.nan)
    rng = np.random.default_rng(SEED)
    drawn_p = p[rng.integers(0, len(p), (resamples, len(p)))]
    drawn_n = n[rng.integers(0, len(n), (resamples, len(n)))]
    place = len(n) - 1 - _allowed(len(n), fpr)
    thresholds = np.partition(drawn_n, place, axis=1)[:, place]
    values = np.mean(drawn_p > thresholds[:, None], axis=1)
    return _percentiles(tpr_at_fpr(p, n, fpr), values)


def _percentiles(value: float, resampled: Array) -> Estimate:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def proportion(successes: int, trials: int) -> Estimate:
    """A share with its exact (Clopper-Pearson) interval; NaN for no trials."""
    from scipy.stats import beta

    if not trials:
        return Estimate(math.nan)
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, successes, trials - successes + 1) if successes else 0.0
    high = beta.ppf(1 - tail, successes + 1, trials - successes) if successes < trials else 1.0
    return Estimate(successes / trials, float(low), float(high))


def rank_correlation(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman's rho over pairs that are both finite; NaN for fewer than 3 or a constant."""
    from scipy.stats import rankdata

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    if np.count_nonzero(both) < 3 or np.ptp(a[both]) == 0 or np.ptp(b[both]) == 0:
        return math.nan
    return float(np.corrcoef(rankdata(a[both]), rankdata(b[both]))[0, 1])


def bootstrap_correlation(
    x: npt.ArrayLike, y: npt.ArrayLike, resamples: int = RESAMPLES
) -> Estimate:
    """`rank_correlation` with a percentile interval; pairs are resampled."""
    from scipy.stats import rankdata

    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    value = rank_correlation(a, b)
    if math.isnan(value):
        return Estimate(math.nan)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    drawn = np.random.default_rng(SEED).integers(0, len(a), (resamples, len(a)))
    p, q = (_centred(rankdata(values[drawn], axis=1)) for values in (a, b))
    size = np.sqrt(np.sum(p * p, axis=1) * np.sum(q * q, axis=1))
    some = size > 0  # a resample may hold one value alone
    return _percentiles(value, np.sum(p * q, axis=1)[some] / size[some])


def _centred(ranks: Array) -> Array:
    centred: Array = ranks - ranks.mean(axis=1, keepdims=True)
    return centred
