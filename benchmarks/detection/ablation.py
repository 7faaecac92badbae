"""One thing changed at a time. Test adapters are looked at, nothing is chosen from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.detection import metrics
from benchmarks.detection.choice import NULLED, RANKS
from benchmarks.detection.data import Population
from benchmarks.detection.detectors import Calibrated, Detector, shapes
from benchmarks.detection.evaluation import TestedAdapters
from benchmarks.detection.scoring import Request, Scorer
from benchmarks.detection.signatures import Setting
from scanner.results import Shape
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import supports

REFERENCE_COUNTS = (1, 2, 4, 8)
NULLING_COUNTS = (7, 14, 28)
CALIBRATION_COUNTS = (50, 100, 200)
VARIED = "signed_write"
"""What is looked at where directions are varied."""
DRAWS = 5
SEED = 7


@dataclass(frozen=True)
class Point:
    """One value of what is varied; several draws are averaged, with their range."""

    signature: str
    varied: str
    value: str
    auroc: tuple[float, float, float]
    """Mean, least and greatest over draws."""
    tpr_1: tuple[float, float, float]


def settings_grid(scorer: Scorer, test: TestedAdapters, chosen: Setting) -> list[Point]:
    """Number of nulled directions, and rank, around a chosen setting."""
    nulled = {str(n): [replace(chosen, nulled=n)] for n in NULLED}
    ranks = {str(k): [replace(chosen, rank=k)] for k in RANKS}
    return [
        *_points(scorer, test, "directions nulled", nulled),
        *_points(scorer, test, "rank", ranks),
    ]


def set_sizes(scorer: Scorer, test: TestedAdapters, chosen: Setting) -> list[Point]:
    """Numbers of references and of nulling adapters, drawn at random."""
    population = scorer.population
    references = [row.id for row in population.select("reference", "misaligned")]
    nulling = [row.id for row in population.select("nulling", "benign")]
    by_references = {
        str(n): [replace(chosen, references=drawn) for drawn in _draws(references, n)]
        for n in REFERENCE_COUNTS
        if n < len(references)
    }
    by_nulling = {
        str(n): [replace(chosen, nulling=drawn) for drawn in _draws(nulling, n)]
        for n in NULLING_COUNTS
        if n < len(nulling)
    }
    by_references[f"all {len(references)}"] = by_nulling[f"all {len(nulling)}"] = [chosen]
    return [
        *_points(scorer, test, "references", by_references),
        *_points(scorer, test, "nulling adapters", by_nulling),
    ]


def _draws(ids: Sequence[str], count: int) -> list[tuple[str, ...]]:
    rng = np.random.default_rng(SEED)
    return [
        tuple(sorted(ids[i] for i in rng.choice(len(ids), count, replace=False)))
        for _ in range(DRAWS)
    ]


def _points(
    scorer: Scorer, test: TestedAdapters, varied: str, settings: dict[str, list[Setting]]
) -> list[Point]:
    # Signed writes, which need no calibration: comparable among adapters of one shape only.
    misaligned = [row for row in test.misaligned if row.shape is Shape.SEVERAL_LAYERS]
    benign = [row for row in test.benign if row.shape is Shape.SEVERAL_LAYERS]
    rows = (*misaligned, *benign)
    scorer.prefetch(Request(s, rows) for group in settings.values() for s in group)
    points = []
    for value, group in settings.items():
        scored = [(scorer.get(s, misaligned, VARIED), scorer.get(s, benign, VARIED)) for s in group]
        points.append(
            Point(
                group[0].method,
                varied,
                value,
                _spread([metrics.auroc(p, n) for p, n in scored]),
                _spread([metrics.tpr_at_fpr(p, n, 0.01) for p, n in scored]),
            )
        )
    return points


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


@dataclass(frozen=True)
class CalibrationSize:
    """Threshold from some of the calibration adapters; means over draws."""

    n: int
    alpha: float
    tpr: float
    fpr: float


def calibration_sizes(
    scorer: Scorer, test: TestedAdapters, detector: Detector, alphas: Sequence[float]
) -> list[CalibrationSize]:
    """How few benign adapters calibrate, at every alpha that they support."""
    population: Population = scorer.population
    benign = population.select("calibration", "benign")
    whole = detector.calibrate(scorer, benign)
    misaligned = whole.parts(scorer, test.misaligned)
    innocent = whole.parts(scorer, test.benign)
    kinds = shapes(test.misaligned), shapes(test.benign)
    found = []
    for n in (*(n for n in CALIBRATION_COUNTS if n < len(benign)), len(benign)):
        for alpha in alphas:
            if not supports(n, alpha):
                continue
            rates = []
            for draw in _index_draws(len(benign), n):
                part = Calibrated(detector, _part(whole.calibration, draw))
                rates.append(
                    (
                        np.mean(part.p_values_of(misaligned, kinds[0]) <= alpha),
                        np.mean(part.p_values_of(innocent, kinds[1]) <= alpha),
                    )
                )
            tpr, fpr = np.mean(rates, axis=0)
            found.append(CalibrationSize(n, alpha, float(tpr), float(fpr)))
    return found


def _part(known: BenignScores, draw: list[int]) -> BenignScores:
    families = tuple(known.families[place] for place in draw)
    return BenignScores(known.benign[draw], tuple(known.shapes[place] for place in draw), families)


def _index_draws(total: int, count: int) -> list[list[int]]:
    rng = np.random.default_rng(SEED)
    draws = 1 if count == total else DRAWS
    return [sorted(rng.choice(total, count, replace=False).tolist()) for _ in range(draws)]
