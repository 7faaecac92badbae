"""Many p-values at once -> q-values, so that a list of findings has a known share of false ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def q_values(p_values: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg adjusted p-values, in the order given.

    q_(i) = min over j >= i of p_(j) m / j. Calling everything with q <= level a finding keeps
    the expected share of false findings at `level`, for independent or positively dependent
    p-values (Benjamini and Hochberg 1995; Benjamini and Yekutieli 2001). Conformal p-values
    that share one calibration set are positively dependent (Bates et al. 2023, theorem 2).

    Args:
        p_values: In [0, 1].

    Raises:
        ValueError: If one is not in [0, 1], NaN included.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p-values must be in [0, 1]")
    if not len(p):
        return []
    order = np.argsort(p)
    # The quotient first: at the largest p-value it is exactly 1, so no q rounds below its p.
    scaled = p[order] * (len(p) / np.arange(1, len(p) + 1))
    adjusted = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    result = np.empty_like(p)
    result[order] = adjusted
    return [float(value) for value in result]
