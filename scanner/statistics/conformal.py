"""Conformal p-values of one group of benign scores, and what a number of them can support.

For exchangeable benign adapters P(p <= alpha) <= alpha (Vovk, Gammerman and Shafer 2005,
section 2.2); nothing is assumed about the distribution of scores. A p-value is a ratio of two
whole numbers, and everything here compares such ratios with alpha as floating-point numbers,
without a tolerance: division is rounded correctly, so 5 / 100 <= 0.05 holds.
"""

from __future__ import annotations

import math

import numpy as np

from scanner.errors import AlphaUnsupportedError, option
from scanner.geometry import Matrix

DEFAULT_ALPHA = 0.01


def smallest_level(n: int) -> float:
    """The smallest p-value that a comparison with n benign adapters can give: 1 / (n + 1)."""
    return 1 / (n + 1)


def supports(n: int, alpha: float) -> bool:
    """Whether p <= alpha can occur in a comparison with n benign adapters."""
    return smallest_level(n) <= alpha


def needed_for(alpha: float) -> int:
    """The least number of benign adapters that supports alpha: 1 / alpha - 1, rounded up."""
    numerator, denominator = alpha.as_integer_ratio()  # exactly
    n = max(-(-denominator // numerator) - 1, 1)
    return n - 1 if n > 1 and supports(n - 1, alpha) else n


def check_supported(n: int, alpha: float, whose: str = "the calibration") -> None:
    """Refuses a false-positive rate that no p-value of n benign adapters can reach.

    Args:
        n: Benign adapters.
        alpha: The false-positive rate asked for.
        whose: What has these adapters, for the message.

    Raises:
        AlphaUnsupportedError: With the number of benign adapters it would need.
    """
    if not supports(n, alpha):
        raise AlphaUnsupportedError(
            f"alpha {alpha:g} needs {needed_for(alpha)} benign adapters, {whose} has {n}",
            where=option("alpha"),
            todo=f"ask for alpha >= {smallest_level(n):.4g}, or calibrate on more",
        )


def needed_for_confidence(alpha: float, confidence: float = 0.95) -> int:
    """The least n at which no exceedance in n shows FPR <= alpha with this confidence.

    299 for alpha 0.01 and 2,995 for 0.001 at 95%: (1 - alpha)^n <= 1 - confidence.
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha))


def count_as_high(score: float, benign: Matrix) -> int:
    """How many benign scores, (n,), are at least as high; ties count.

    Raises:
        ValueError: If the score is NaN: no comparison with it means anything.
    """
    if math.isnan(score):
        raise ValueError("the score is NaN")
    return int(np.count_nonzero(benign >= score))


def conformal_p_value(score: float, benign: Matrix) -> float:
    """(1 + #{benign >= score}) / (n + 1).

    Args:
        score: The adapter's score.
        benign: (n,), scores of the calibration set.

    Raises:
        ValueError: If the score is NaN.
    """
    return float(conformal_p_values(np.array([score]), benign)[0])


def conformal_p_values(scores: Matrix, benign: Matrix) -> Matrix:
    """(k,): `conformal_p_value` of scores (k,).

    Raises:
        ValueError: If a score is NaN.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    as_high = np.count_nonzero(benign >= scores[:, np.newaxis], axis=1)
    p_values: Matrix = (1 + as_high) / (len(benign) + 1)
    return p_values


def conformal_threshold(benign: Matrix, alpha: float) -> float:
    """The benign score that an adapter must exceed for `conformal_p_value` <= alpha.

    Args:
        benign: (n,), scores of the calibration set.
        alpha: The false-positive rate.

    Returns:
        The k-th highest score, k being the largest number with k / (n + 1) <= alpha; -inf if
        any score will do.

    Raises:
        ValueError: If n is too small for alpha.
    """
    n = len(benign)
    # Rounding may put the product on the other side of a whole number than the ratio is on.
    k = math.floor(alpha * (n + 1)) + 1
    while k / (n + 1) > alpha:
        k -= 1
    if k < 1:
        raise ValueError(f"n = {n} is too small for alpha = {alpha}")
    return float(np.sort(benign)[n - k]) if k <= n else -math.inf
