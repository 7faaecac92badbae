"""Many looks at one training run -> one decision whose false-positive rate holds over the run.

**Why a rule of its own.** Each scan of a benign run has p <= a with probability at most a. A run
that is looked at twenty times has twenty chances, and they depend on each other in a way that
nobody knows: successive checkpoints are alike, but not equal. So the rule may assume nothing
about the dependence. That excludes conformal test martingales (Vovk 2021, "Testing randomness
online", Statistical Science 36): they multiply bets on observations that are exchangeable, and
the checkpoints of one run are not.

**The rule.** The share of the run that a look stands for is w: the steps since the look before,
divided by all steps of the run. With a share s that is chosen before the run,

    the run is flagged as soon as looks with p <= alpha s make up at least s of it.

**The guarantee.** For a run each of whose checkpoints is like the benign adapters of the
calibration, E[sum of w over looks with p <= alpha s] <= alpha s, whatever the dependence; by
Markov's inequality the sum reaches s with probability at most alpha. The sum only grows, so
"ever reaches" and "has reached at the end" are the same event. With looks of equal weight this
is the rule of Rüger (1978, "Das maximale Signifikanzniveau des Tests: Lehne H0 ab, wenn k unter
n gegebenen Tests zur Ablehnung führen", Metrika 25): m of K p-values at most m alpha / K. With
m = 1 it is alpha spending in proportion to the steps (Lan and DeMets 1983, "Discrete sequential
boundaries for clinical trials", Biometrika 70) with Bonferroni's bound in the place of a known
joint distribution.

**The share.** A comparison with n benign adapters gives no p-value below 1 / (n + 1), so s is at
least 1 / (alpha (n + 1)), and at least one look. More looks cost nothing; a small calibration
costs time: the run has to look misaligned for longer before it is flagged.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from scanner.statistics.conformal import check_supported, smallest_level

DEFAULT_RUN_ALPHA = 0.05


class Look(NamedTuple):
    """One look at a run."""

    steps: int
    """Steps of the training since the look before."""
    p_value: float
    """1 where the look says nothing."""


@dataclass(frozen=True)
class RunRule:
    """When a whole run counts as flagged; the module says what that guarantees."""

    alpha: float
    """The chance that a benign run is ever flagged."""
    share: Fraction
    """The share of the run that has to look misaligned, in (0, 1]."""

    @classmethod
    def for_run(cls, alpha: float, looks: int, n: int) -> RunRule:
        """The rule that flags soonest: the smallest number of equal looks that n supports.

        Args:
            alpha: The chance that a benign run is ever flagged.
            looks: Looks planned, at least 1.
            n: Benign adapters of the calibration.

        Raises:
            AlphaUnsupportedError: If even looks over the whole run would not do.
        """
        check_supported(n, alpha)
        least = smallest_level(n)
        # Rounding may put 1 / (alpha (n + 1)) on the other side of a whole number of looks.
        needed = max(int(least / alpha * looks) - 1, 1)
        while _over_a_share(least, Fraction(needed, looks)) > alpha:
            needed += 1
        return cls(alpha, Fraction(needed, looks))

    @property
    def level(self) -> float:
        """Looks with a p-value of at most this count."""
        return float(Fraction(self.alpha) * self.share)

    def p_value(self, looks: Iterable[Look], total: int) -> float:
        """The smallest alpha at which a run is flagged by now, its share being given.

        It never rises from one look to the next, and P(it is ever <= a) <= a.

        Args:
            looks: What was seen so far.
            total: Steps of the whole run, at least 1.

        Raises:
            ValueError: If the looks stand for more steps than the run has, or a p-value is
                not in [0, 1].
        """
        ordered = sorted(looks, key=lambda look: look.p_value)
        if sum(look.steps for look in ordered) > total:
            raise ValueError(f"looks stand for more than the {total} steps of the run")
        if not all(0 <= look.p_value <= 1 for look in ordered):
            raise ValueError("p-values must be in [0, 1]")
        covered = 0
        for look in ordered:
            covered += look.steps
            if covered >= self.share * total:
                return _over_a_share(look.p_value, self.share)
        return 1.0

    def flags(self, looks: Iterable[Look], total: int) -> bool:
        """Whether the run is flagged by now.

        Raises:
            ValueError: As `p_value`.
        """
        return self.p_value(looks, total) <= self.alpha


def _over_a_share(p_value: float, share: Fraction) -> float:
    return min(float(Fraction(p_value) / share), 1.0)
