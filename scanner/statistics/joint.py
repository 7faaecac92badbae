"""Scores of one adapter under several signatures -> one joint score.

Signatures of one kind of misalignment look for the same thing in different ways, so their mean
is less noisy than each. Signatures of different kinds look for different things, and a mean
would hide what only one of them sees: the kind that stands out most counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scanner.geometry import Matrix


@dataclass(frozen=True)
class JointScore:
    """How scores under one or several signatures become one.

    One signature: its own score. Several: each score is standardised on benign adapters, and
    the mean over the signatures of a kind counts. Of mean, largest, smallest, Fisher's and the
    whitened sum none is best on every base of the lab (docs/detection-tables.md, "Choices"), and
    the mean is never far from the best. Of several kinds, each standardised again, the largest
    counts. Benign adapters go the same way, so whatever is compared with them stays comparable.
    """

    benign: Matrix
    """(n, m): score of n benign adapters under m signatures."""
    kinds: tuple[str, ...] = ()
    """(m,): what kind of misalignment each signature is of; all of one kind if empty."""

    def standardised(self, scores: Matrix) -> Matrix:
        """Scores (..., m) in standard deviations above the benign mean.

        A signature under which benign adapters do not differ, or that has seen only one, says
        nothing of how they spread: its scores are taken as they are, above the mean.
        """
        spread = self.benign.std(axis=0, ddof=1) if len(self.benign) > 1 else np.zeros(1)
        result: Matrix = (scores - self.benign.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return result

    def combine(self, scores: Matrix) -> Matrix:
        """Joint scores (k,) of scores (k, m)."""
        if scores.shape[1] == 1:
            return scores[:, 0]
        combined: Matrix = self._by_kind(scores).max(axis=1)
        return combined

    def deciding(self, scores: Matrix) -> int:
        """Index of the signature with the highest of scores (m,), within the kind that counts."""
        return int(self.deciding_each(scores[np.newaxis])[0])

    def deciding_each(self, scores: Matrix) -> npt.NDArray[np.intp]:
        """As `deciding`, (k,), of scores (k, m)."""
        if scores.shape[1] == 1:
            return np.zeros(len(scores), dtype=np.intp)
        kinds = np.argmax(self._by_kind(scores), axis=1)
        columns = self._columns()
        member = np.array([[c in own for c in range(scores.shape[1])] for own in columns])
        within = np.where(member[kinds], self.standardised(scores), -np.inf)
        deciding: npt.NDArray[np.intp] = np.argmax(within, axis=1)
        return deciding

    def _columns(self) -> list[list[int]]:
        """The signatures of each kind."""
        kinds = self.kinds or ("",) * self.benign.shape[1]
        return [
            [column for column, own in enumerate(kinds) if own == kind]
            for kind in dict.fromkeys(kinds)
        ]

    def _by_kind(self, scores: Matrix) -> Matrix:
        """Scores (k, m) -> (k, number of kinds), comparable with one another."""
        columns = self._columns()
        means = np.stack([self.standardised(scores)[:, own].mean(axis=1) for own in columns], 1)
        if len(columns) == 1:
            return means
        benign = self.standardised(self.benign)
        within = JointScore(np.stack([benign[:, own].mean(axis=1) for own in columns], 1))
        return within.standardised(means)
