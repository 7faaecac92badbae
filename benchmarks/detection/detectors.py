"""Detectors: one or several signatures, how they become one score, and their calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from benchmarks.detection.data import Row
from benchmarks.detection.metrics import Array, Flags
from benchmarks.detection.scoring import Request, Scorer
from benchmarks.detection.signatures import Setting
from scanner.results import Shape
from scanner.signatures.combination import combined_score, scale_of
from scanner.signatures.numbers import Measurement, ScoreScale
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import conformal_p_values
from scanner.statistics.joint import JointScore

SCORE = "score"
Scales = Mapping[str, ScoreScale]
"""Shape -> where its benign adapters lie."""
Places = npt.NDArray[np.intp]
Combiner = Callable[[JointScore, Array], Array]
"""(calibration of m signatures, their scores (k, m)) -> joint scores (k,)."""


def _largest(calibration: JointScore, parts: Array) -> Array:
    largest: Array = calibration.standardised(parts).max(axis=1)
    return largest


def _mean(calibration: JointScore, parts: Array) -> Array:
    mean: Array = calibration.standardised(parts).mean(axis=1)
    return mean


def _smallest(calibration: JointScore, parts: Array) -> Array:
    smallest: Array = calibration.standardised(parts).min(axis=1)
    return smallest


def _fisher(calibration: JointScore, parts: Array) -> Array:
    """Fisher's -2 sum log p over conformal p-values."""
    p = np.stack(
        [
            conformal_p_values(own, benign)
            for own, benign in zip(parts.T, calibration.benign.T, strict=True)
        ],
        axis=1,
    )
    total: Array = -2.0 * np.log(p).sum(axis=1)
    return total


def _whitened(calibration: JointScore, parts: Array) -> Array:
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
    statistic: str = SCORE
    """What counts of each signature: its score, by which a scan goes, or one of `STATISTICS`."""

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

    def calibrate(self, scorer: Scorer, rows: Sequence[Row], crossfit: bool = True) -> Calibrated:
        """Calibrates on benign rows, cross-fitted by family unless told otherwise."""
        columns, scales = [], []
        for member in self.members:
            if self.statistic == SCORE:
                measure = scorer.crossfit_measurements if crossfit else scorer.measurements
                measured = measure(member, rows)
                scales.append(_scales(measured, rows))
                columns.append(_scores(measured, rows, scales[-1]))
            else:
                get = scorer.crossfit if crossfit else scorer.get
                columns.append(get(member, rows, self.statistic))
        benign = BenignScores(
            np.stack(columns, axis=1), shapes(rows), tuple(row.family for row in rows)
        )
        return Calibrated(self, benign, tuple(scales))


def _scales(measured: Sequence[Measurement], rows: Sequence[Row]) -> Scales:
    """The scale of every shape that has enough benign adapters, as packs have it."""
    seen = [
        (item, row.shape)
        for item, row in zip(measured, rows, strict=True)
        if np.isfinite(item.signed_write)
    ]
    found = {shape.value: scale_of([item for item, own in seen if own is shape]) for shape in Shape}
    return {shape: scale for shape, scale in found.items() if scale is not None}


def _scores(measured: Sequence[Measurement], rows: Sequence[Row], scales: Scales) -> Array:
    scores = [
        combined_score(item, scales.get(row.shape.value))
        for item, row in zip(measured, rows, strict=True)
    ]
    return np.array(scores, dtype=np.float64)


def shapes(rows: Sequence[Row]) -> tuple[Shape, ...]:
    """How many layers each adapter changes, (n,)."""
    return tuple(row.shape for row in rows)


def _having_a_say(parts: Array) -> Iterator[tuple[Places, Places]]:
    """Sets of signatures, and the rows of scores (k, m) in which just these have one."""
    seen = np.isfinite(parts)
    for pattern in np.unique(seen, axis=0):
        if pattern.any():
            yield np.flatnonzero(pattern), np.flatnonzero((seen == pattern).all(axis=1))


@dataclass(frozen=True)
class Calibrated:
    """A detector with its benign calibration scores.

    As in a scan, a signature whose sites an adapter leaves alone has no say, in its score or in
    what it is compared with.
    """

    detector: Detector
    calibration: BenignScores
    scales: tuple[Scales, ...] = ()
    """Of each signature, if the detector goes by its score."""

    def parts(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """What counts of each row under each signature, (n, m)."""
        members, statistic = self.detector.members, self.detector.statistic
        if statistic != SCORE:
            return np.stack([scorer.get(member, rows, statistic) for member in members], axis=1)
        columns = [
            _scores(scorer.measurements(member, rows), rows, scales)
            for member, scales in zip(members, self.scales, strict=True)
        ]
        return np.stack(columns, axis=1)

    def combine(self, parts: Array, shapes: Sequence[Shape]) -> Array:
        """Scores (k,) of parts (k, m), in standard deviations above comparable benign ones.

        Args:
            parts: Scores under each signature.
            shapes: (k,), the adapters' shapes.
        """
        scores = np.full(len(parts), np.nan)
        for columns, rows in _having_a_say(parts):
            known = self._benign_under(columns)
            for shape in Shape:
                places = rows[[shapes[row] is shape for row in rows]]
                if not len(places) or known.n < 2:
                    continue
                joint = known.joint(shape)
                combined = self._combine(joint, joint.benign)
                if len(combined) > 1:
                    own = self._combine(joint, parts[np.ix_(places, columns)])
                    scores[places] = (own - combined.mean()) / combined.std(ddof=1)
        return scores

    def _benign_under(self, columns: Places) -> BenignScores:
        """The calibration adapters in which all of some signatures have a say, under these."""
        known = self.calibration
        seen: Flags = np.all(np.isfinite(known.benign[:, columns]), axis=1)
        return BenignScores(known.benign[:, columns], known.shapes, known.families).only(seen)

    def _combine(self, joint: JointScore, parts: Array) -> Array:
        if parts.shape[1] == 1:
            return parts[:, 0]
        return COMBINERS[self.detector.combiner](joint, parts)

    @property
    def benign(self) -> Array:
        """(n,): the calibration set's own scores."""
        return self.combine(self.calibration.benign, self.calibration.shapes)

    def scores(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """(k,)."""
        return self.combine(self.parts(scorer, rows), shapes(rows))

    def p_values(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """P-values among comparable adapters, (k,); 1 for one without a score."""
        return self.p_values_of(self.parts(scorer, rows), shapes(rows))

    def p_values_of(self, parts: Array, shapes: Sequence[Shape]) -> Array:
        """The same, of parts (k, m)."""
        p_values = np.ones(len(parts))
        for columns, rows in _having_a_say(parts):
            known = self._benign_under(columns)
            for shape in Shape:
                places = rows[[shapes[row] is shape for row in rows]]
                if not (len(places) and known.n):
                    continue
                joint = known.joint(shape)
                # The combined scores as one column: a calibration of their own.
                benign = self._combine(joint, known.benign)[:, None]
                combined = BenignScores(benign, known.shapes, known.families)
                scores = self._combine(joint, parts[np.ix_(places, columns)])
                p_values[places] = combined.p_values(scores[:, None], shape)
        return p_values

    def dose(self, scorer: Scorer, rows: Sequence[Row]) -> Array:
        """Push under the signature that stands out most, as a report shows it, (k,)."""
        doses = np.stack([scorer.get(m, rows, "dose") for m in self.detector.members], axis=1)
        deciding = np.zeros(len(rows), dtype=np.intp)
        parts = self.parts(scorer, rows) if len(rows) else np.zeros((0, len(self.detector.members)))
        for columns, places in _having_a_say(parts):
            known = self._benign_under(columns)
            for place in places if known.n else ():
                joint = known.joint(rows[place].shape)
                deciding[place] = columns[joint.deciding(parts[place, columns])]
        return doses[np.arange(len(rows)), deciding] if len(rows) else np.zeros(0)

    def flagged(self, scorer: Scorer, rows: Sequence[Row], alpha: float) -> Flags:
        """Whether a scan flags: p <= alpha and a dose towards misalignment, (k,) bool."""
        towards = self.dose(scorer, rows) > 0
        flags: Flags = (self.p_values(scorer, rows) <= alpha) & towards
        return flags
