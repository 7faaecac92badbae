"""Detectors: one or several signatures, how they become one score, and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.detection.data import Row
from benchmarks.detection.metrics import Array, Flags
from benchmarks.detection.scoring import Request, Scorer
from benchmarks.detection.signatures import Setting
from scanner.calibration import JointCalibration, conformal_p_value

Combiner = Callable[[JointCalibration, Array], Array]
"""(calibration of m signatures, their scores (k, m)) -> joint scores (k,)."""


def _largest(calibration: JointCalibration, parts: Array) -> Array:
    largest: Array = calibration.standardised(parts).max(axis=1)
    return largest


def _mean(calibration: JointCalibration, parts: Array) -> Array:
    mean: Array = calibration.standardised(parts).mean(axis=1)
    return mean


def _smallest(calibration: JointCalibration, parts: Array) -> Array:
    smallest: Array = calibration.standardised(parts).min(axis=1)
    return smallest


def _fisher(calibration: JointCalibration, parts: Array) -> Array:
    """Fisher's -2 sum log p over conformal p-values."""
    p = np.array(
        [
            [conformal_p_value(score, benign) for score in column]
            for column, benign in zip(parts.T, calibration.benign.T, strict=True)
        ]
    )
    total: Array = -2.0 * np.log(p).sum(axis=0)
    return total


def _whitened(calibration: JointCalibration, parts: Array) -> Array:
    """Sum of the standardised parts after the benign correlations are taken out."""
    standardised = calibration.standardised(calibration.benign)
    inverse = np.linalg.inv(np.atleast_2d(np.corrcoef(standardised.T)))
    total: Array = (calibration.standardised(parts) @ inverse).sum(axis=1)
    return total


COMBINERS: Mapping[str, Combiner] = {
    "max": _largest,
    "mean": _mean,
    "min": _smallest,
    "Fisher": _fisher,
    "whitened": _whitened,
}


@dataclass(frozen=True)
class Detector:
    """Signatures and how they are combined."""

    name: str
    members: tuple[Setting, ...]
    combiner: str = "max"
    statistic: str = "score"
    """What counts of each signature; a scan goes by its score."""

    def without(self, *families: str) -> Detector:
        """The same with benign families kept out of the nulling set."""
        members = tuple(member.without(*families) for member in self.members)
        return replace(self, members=members)

    def trained_on(self, references: Sequence[str]) -> Detector:
        """The same with signatures from some of the references."""
        members = tuple(
            Setting(m.method, m.nulled, m.rank, tuple(references), m.nulling, m.left_out)
            for m in self.members
        )
        return replace(self, members=members)

    def requests(self, rows: Sequence[Row]) -> list[Request]:
        """What must be scored to judge rows."""
        return [Request(member, tuple(rows)) for member in self.members]

    def calibration_requests(
        self, scorer: Scorer, rows: Sequence[Row], crossfit: bool = True
    ) -> list[Request]:
        """What must be scored to calibrate on rows."""
        if not crossfit:
            return self.requests(rows)
        return [r for member in self.members for r in scorer.crossfit_requests(member, rows)]

    def parts(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """(n, m)."""
        return np.stack(
            [scorer.get(member, rows, self.statistic) for member in self.members], axis=1
        )

    def calibrate(self, scorer: Scorer, rows: Sequence[Row], crossfit: bool = True) -> Calibrated:
        """Calibrates on benign rows, cross-fitted by family unless told otherwise."""
        score = scorer.crossfit if crossfit else scorer.get
        benign = np.stack([score(member, rows, self.statistic) for member in self.members], axis=1)
        return Calibrated(self, JointCalibration(benign))


@dataclass(frozen=True)
class Calibrated:
    """A detector with its benign calibration scores."""

    detector: Detector
    calibration: JointCalibration

    def combine(self, parts: Array) -> Array:
        """Scores (k,) of parts (k, m)."""
        if parts.shape[1] == 1:
            return parts[:, 0]
        return COMBINERS[self.detector.combiner](self.calibration, parts)

    @property
    def benign(self) -> Array:
        """(n,): the calibration set's own scores."""
        return self.combine(self.calibration.benign)

    def scores(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """(k,)."""
        return self.combine(self.detector.parts(scorer, rows))

    def p_values(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """Conformal p-values, (k,); 1 for an adapter without a score."""
        benign = self.benign
        return np.array(
            [
                conformal_p_value(score, benign) if np.isfinite(score) else 1.0
                for score in self.scores(scorer, rows)
            ]
        )

    def push(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """Push under the signature that stands out most, as a report shows it, (k,)."""
        pushes = np.stack([scorer.get(m, rows, "push") for m in self.detector.members], axis=1)
        deciding = np.array(
            [self.calibration.deciding(x) for x in self.detector.parts(scorer, rows)],
            dtype=np.intp,
        )
        return pushes[np.arange(len(rows)), deciding] if len(rows) else np.zeros(0)

    def flagged(self, scorer: Scorer, rows: Sequence[Row], alpha: float) -> Flags:
        """Whether a scan flags: p <= alpha and a push towards misalignment, (k,) bool."""
        towards = self.push(scorer, rows) > 0
        flags: Flags = (self.p_values(scorer, rows) <= alpha) & towards
        return flags
