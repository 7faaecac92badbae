"""How long to wait before something that failed is tried again."""

from __future__ import annotations

import random
from dataclasses import dataclass

_MOST_DOUBLINGS = 64
"""Enough for every wait to have reached its longest; 2.0 ** 1024 would overflow."""


@dataclass(frozen=True)
class Backoff:
    """Waits that double with each failure in a row."""

    first: float
    """Seconds after the first failure."""
    longest: float
    """Seconds no wait exceeds."""
    jitter: float = 0.0
    """Share of a wait, in [0, 1], that chance may take off, so that many do not come at once."""

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row; none after none."""
        if failures < 1:
            return 0.0
        seconds = min(self.first * 2.0 ** min(failures - 1, _MOST_DOUBLINGS), self.longest)
        return seconds * (1 - self.jitter * random.random())  # noqa: S311 - it guards nothing
