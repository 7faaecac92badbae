"""Many numbers -> few that still show how they are spread, for a report."""

from __future__ import annotations

from collections.abc import Sequence

CLOUD_SIZE = 200
"""Benign adapters a report shows at most."""


def thinned(values: Sequence[float], most: int = CLOUD_SIZE) -> list[float]:
    """Values in order; if there are more than `most`, evenly spaced ranks with both ends."""
    ordered = [rounded(value) for value in sorted(values)]
    if len(ordered) <= most:
        return ordered
    return [ordered[round(i * (len(ordered) - 1) / (most - 1))] for i in range(most)]


def rounded(value: float) -> float:
    """A number at the four digits that a drawing needs."""
    return float(f"{value:.4g}")
