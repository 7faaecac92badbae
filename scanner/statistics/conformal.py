"""Scores of benign adapters -> p-values, thresholds, and what the calibration can support.

Conformal p-values (Vovk, Gammerman and Shafer 2005, section 2.2): for exchangeable benign
adapters, P(p <= alpha) <= alpha. Nothing is assumed about the distribution of scores.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanner.geometry import Matrix

Mask = npt.NDArray[np.bool_]

DEFAULT_ALPHA = 0.01
FAMILY_FLOOR = 19
"""Fewer adapters of one family are too few to be compared with apart, whatever alpha."""


def needed_for(alpha: float) -> int:
    """The least number of benign adapters for which p <= alpha can occur: n >= 1/alpha - 1."""
    return max(math.ceil(1 / alpha - 1 - 1e-9), 1)


def needed_for_confidence(alpha: float, confidence: float = 0.95) -> int:
    """The least n at which no exceedance in n shows FPR <= alpha with this confidence.

    299 for alpha 0.01 and 2,995 for 0.001 at 95%: (1 - alpha)^n <= 1 - confidence.
    """
    return math.ceil(math.log1p(-confidence) / math.log1p(-alpha))


def conformal_p_value(score: float, benign: Matrix) -> float:
    """(1 + #{benign >= score}) / (n + 1).

    Args:
        score: The adapter's score.
        benign: (n,), scores of the calibration set.
    """
    return (1 + int(np.count_nonzero(benign >= score))) / (len(benign) + 1)


def conformal_threshold(benign: Matrix, alpha: float) -> float:
    """The benign score that an adapter must exceed for p <= alpha.

    Raises:
        ValueError: If n is too small for alpha.
    """
    allowed = math.floor(alpha * (len(benign) + 1) + 1e-9) - 1
    if allowed < 0:
        raise ValueError(f"n = {len(benign)} is too small for alpha = {alpha}")
    return float(np.sort(benign)[::-1][allowed]) if allowed < len(benign) else -math.inf


@dataclass(frozen=True)
class Strata:
    """Benign scores by the shape of the adapter: one layer changed, or several.

    An adapter of one layer has one or a few sites to average over, so its scores spread
    differently from those of an adapter that changes the whole network; each kind is compared
    with its own. What decides is seen on the adapter itself, never its label, so p-values stay
    valid within each kind (Mondrian conformal prediction: Vovk, Gammerman and Shafer 2005,
    section 4.5).
    """

    benign: Matrix
    """(n, m): score of n benign adapters under m signatures."""
    one_layer: Mask
    """(n,): which of them change one layer only."""
    families: tuple[str, ...]
    """(n,): what kind of harmless change each is."""

    @property
    def n(self) -> int:
        """Number of benign adapters."""
        return len(self.benign)

    def alike(self, one_layer: bool) -> int:
        """How many benign adapters have an adapter's shape."""
        return int(np.count_nonzero(self.one_layer == one_layer))

    def comparable(self, one_layer: bool, alpha: float) -> JointCalibration:
        """What an adapter is compared with.

        Args:
            one_layer: Whether the adapter changes one layer only.
            alpha: The false-positive rate asked for. Where too few of the adapter's own kind
                are there to reach it, it is compared with all of them.
        """
        own = self.one_layer == one_layer
        if self.alike(one_layer) < needed_for(alpha):
            own = np.ones_like(own)
        families = tuple(name for name, kept in zip(self.families, own, strict=True) if kept)
        return JointCalibration(self.benign[own], families)


@dataclass(frozen=True)
class JointCalibration:
    """Benign scores under one or several signatures at once, and how they become one score.

    One signature: its own score. Several: each score is standardised on the benign
    adapters, and the mean counts. Of mean, largest, smallest, Fisher's and the whitened sum
    none is best on every base of the lab (docs/detection.md, "Choices"), and the mean is never
    far from the best.
    """

    benign: Matrix
    """(n, m): score of n benign adapters under m signatures."""
    families: tuple[str, ...] = ()
    """(n,): what kind of harmless change each is; all of one kind if empty."""

    @property
    def n(self) -> int:
        """Number of benign adapters."""
        return len(self.benign)

    def standardised(self, scores: Matrix) -> Matrix:
        """Scores (..., m) in standard deviations above the benign mean."""
        spread = self.benign.std(axis=0, ddof=1)
        result: Matrix = (scores - self.benign.mean(axis=0)) / spread
        return result

    def score(self, scores: Matrix) -> float:
        """One adapter's joint score from its m scores."""
        return float(self._combine(scores[np.newaxis])[0])

    def _combine(self, scores: Matrix) -> Matrix:
        if scores.shape[1] == 1:
            return scores[:, 0]
        combined: Matrix = self.standardised(scores).mean(axis=1)
        return combined

    def p_value(self, score: float, alpha: float) -> float:
        """The largest conformal p-value among the kinds of benign change that support alpha.

        A pooled p-value holds on average over the calibration set: a family whose scores run
        high can exceed it far more often than alpha, and so can one that was never seen. The
        largest of the families' p-values holds for each of them, and needs no adapter's label
        to be known. Families too small to support alpha, or smaller than `FAMILY_FLOOR`, count
        together; with none large enough that is the pooled p-value.
        """
        scores = self.benign_scores()
        return max(conformal_p_value(score, scores[group]) for group in self._groups(alpha))

    def threshold(self, alpha: float) -> float:
        """The score that an adapter must exceed for `p_value` <= alpha.

        Raises:
            ValueError: If there are too few benign adapters for alpha.
        """
        scores = self.benign_scores()
        return max(conformal_threshold(scores[group], alpha) for group in self._groups(alpha))

    def _groups(self, alpha: float) -> list[Mask]:
        """Every family that supports alpha, and all others together; masks (n,)."""
        families = np.array(self.families or ("",) * self.n)
        found: list[Mask] = [families == name for name in sorted(set(families.tolist()))]
        least = max(needed_for(alpha), FAMILY_FLOOR)
        large = [group for group in found if np.count_nonzero(group) >= least]
        rest = ~np.any(large, axis=0) if large else np.ones(self.n, dtype=np.bool_)
        if not rest.any():
            return large
        if np.count_nonzero(rest) < needed_for(alpha):
            rest = np.ones_like(rest)
        return [*large, rest]

    def benign_scores(self) -> Matrix:
        """(n,): the calibration set's own scores."""
        return self._combine(self.benign)

    def deciding(self, scores: Matrix) -> int:
        """Index of the signature that stands out most."""
        if len(scores) == 1:
            return 0
        return int(np.argmax(self.standardised(scores)))
