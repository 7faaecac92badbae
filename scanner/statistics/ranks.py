"""Rank statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scanner.geometry import Matrix


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None of fewer than two pairs, or if one side does not vary."""
    one, other = (_ranks(np.asarray(values, np.float64)) for values in (first, second))
    if len(one) < 2 or not (one.std() > 0 and other.std() > 0):
        return None
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Matrix) -> Matrix:
    """Ranks from 1; those that tie share the mean of theirs."""
    ordered = np.sort(values)
    low = np.searchsorted(ordered, values, "left")
    high = np.searchsorted(ordered, values, "right")
    ranks: Matrix = (low + high + 1) / 2
    return ranks
