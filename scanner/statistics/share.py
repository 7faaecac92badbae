"""A share of a few trials, and how far the trials leave it open."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """How many of some trials succeeded."""

    count: int
    n: int

    @classmethod
    def of(cls, trials: Iterable[bool]) -> Share:
        """The share of trials that are true."""
        found = list(trials)
        return cls(sum(found), len(found))

    @property
    def value(self) -> float | None:
        """The share, in [0, 1]; None without a trial."""
        return self.count / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's score interval at 95% (Wilson 1927, JASA 22:209; Brown, Cai and DasGupta 2001).

        Trials that resemble each other, such as adapters of one family, say less than the
        interval takes them to say. (0, 1) without a trial.
        """
        if not self.n:
            return 0.0, 1.0
        from statistics import NormalDist  # for reports; a scan starts without it

        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        share, spread = self.count / self.n, z * z / self.n
        middle = share + spread / 2
        half = z * math.sqrt((share * (1 - share) + spread / 4) / self.n)
        low, high = ((middle + sign * half) / (1 + spread) for sign in (-1, 1))
        # Exact at the ends, where rounding could leave the share itself outside.
        return (low if self.count else 0.0), (high if self.count < self.n else 1.0)
