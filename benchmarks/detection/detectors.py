"""Detectors: one or several signatures, how they become one score, and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.detection.data import Row
from benchmarks.detection.metrics import Array, Flags
from benchmarks.detection.scoring import Request, Scorer
from benchmarks.detection.signatures import Setting
from scanner.statistics.conformal import DEFAULT_ALPHA, JointCalibration, Strata, conformal_p_value

Mask = Flags
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
        return Calibrated(self, Strata(benign, one_layer(rows), tuple(row.family for row in rows)))


def one_layer(rows: Sequence[Row]) -> Mask:
    """Which adapters change one layer only, (n,)."""
    return np.array([row.one_layer for row in rows], dtype=np.bool_)


@dataclass(frozen=True)
class Calibrated:
    """A detector with its benign calibration scores."""

    detector: Detector
    calibration: Strata

    def combine(self, parts: Array, one_layer: Mask, alpha: float = DEFAULT_ALPHA) -> Array:
        """Scores (k,) of parts (k, m), in standard deviations above comparable benign ones.

        Args:
            parts: Scores under each signature.
            one_layer: (k,), which of the adapters change one layer only.
            alpha: The false-positive rate at which they are to be judged.
        """
        scores = np.full(len(parts), np.nan)
        for kind in (False, True):
            comparable = self.calibration.comparable(kind, alpha)
            combined = self._combine(comparable, comparable.benign)
            combined = combined[np.isfinite(combined)]
            if len(combined) < 2:
                continue
            own = self._combine(comparable, parts[one_layer == kind])
            scores[one_layer == kind] = (own - combined.mean()) / combined.std(ddof=1)
        return scores

    def _combine(self, comparable: JointCalibration, parts: Array) -> Array:
        if parts.shape[1] == 1:
            return parts[:, 0]
        return COMBINERS[self.detector.combiner](comparable, parts)

    @property
    def benign(self) -> Array:
        """(n,): the calibration set's own scores."""
        return self.combine(self.calibration.benign, self.calibration.one_layer)

    def scores(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """(k,)."""
        return self.combine(self.detector.parts(scorer, rows), one_layer(rows))

    def p_values(self, scorer: Scorer, rows: Sequence[Row], alpha: float = DEFAULT_ALPHA) -> Array:
        """Conformal p-values among comparable adapters, (k,); 1 for one without a score."""
        parts, kinds = self.detector.parts(scorer, rows), one_layer(rows)
        return self.p_values_of(parts, kinds, alpha)

    def p_values_of(self, parts: Array, one_layer: Mask, alpha: float) -> Array:
        """The same, of parts (k, m)."""
        p_values = np.ones(len(parts))
        for kind in (False, True):
            comparable = self.calibration.comparable(kind, alpha)
            # The combined scores as one column: a calibration of their own.
            benign = self._combine(comparable, comparable.benign)[:, None]
            joint = JointCalibration(benign, comparable.families)
            for place in np.flatnonzero(one_layer == kind):
                score = self._combine(comparable, parts[[place]])[0]
                if np.isfinite(score):
                    p_values[place] = joint.p_value(score, alpha)
        return p_values

    def dose(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """Push under the signature that stands out most, as a report shows it, (k,)."""
        doses = np.stack([scorer.get(m, rows, "dose") for m in self.detector.members], axis=1)
        deciding = np.array(
            [
                self.calibration.comparable(row.one_layer, DEFAULT_ALPHA).deciding(part)
                for row, part in zip(rows, self.detector.parts(scorer, rows), strict=True)
            ],
            dtype=np.intp,
        )
        return doses[np.arange(len(rows)), deciding] if len(rows) else np.zeros(0)

    def flagged(self, scorer: Scorer, rows: Sequence[Row], alpha: float) -> Flags:
        """Whether a scan flags: p <= alpha and a dose towards misalignment, (k,) bool."""
        towards = self.dose(scorer, rows) > 0
        flags: Flags = (self.p_values(scorer, rows, alpha) <= alpha) & towards
        return flags
