"""Scores of one adapter under several signatures -> one joint score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.geometry import Matrix


@dataclass(frozen=True)
class JointScore:
    """How scores under one or several signatures become one.

    One signature: its own score. Several: each score is standardised on benign adapters, and
    the mean counts. Of mean, largest, smallest, Fisher's and the whitened sum none is best on
    every base of the lab (docs/detection.md, "Choices"), and the mean is never far from the
    best.
    """

    benign: Matrix
    """(n, m): score of n benign adapters under m signatures."""

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
        combined: Matrix = self.standardised(scores).mean(axis=1)
        return combined

    def deciding(self, scores: Matrix) -> int:
        """Index of the signature under which scores (m,) stand out most."""
        if len(scores) == 1:
            return 0
        return int(np.argmax(self.standardised(scores)))
