"""One run: for every base, choices on non-test data and then its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.detection import ablation, choice, early_warning, evaluation, specificity
from benchmarks.detection.ablation import CalibrationSize, Point
from benchmarks.detection.baselines import dense, network, spectral, subspace
from benchmarks.detection.baselines.sample import read_sample
from benchmarks.detection.choice import Candidate
from benchmarks.detection.data import Population, Row
from benchmarks.detection.detectors import SCORE, Detector
from benchmarks.detection.early_warning import Run
from benchmarks.detection.evaluation import (
    CrossMethod,
    DomainEffect,
    Dose,
    Innocent,
    Operating,
    Ranking,
    Reading,
    TestedAdapters,
)
from benchmarks.detection.extractors import CANDIDATE_KINDS, KINDS, SHIPPED_KINDS, available
from benchmarks.detection.scoring import Scorer
from benchmarks.detection.signatures import Setting, Workshop
from benchmarks.detection.specificity import Unseen
from scanner.signatures.building.scoring import Track
from scanner.statistics.conformal import supports

ALPHAS = (0.01, 0.05, 0.10)
QUICK = (0, 2)
"""Numbers of nulled directions that a quick run chooses from."""
SCANNED = "mean"
"""How a scan combines signatures (`scanner.statistics.joint.JointScore`)."""
CROSS_METHOD_BASELINES = (
    "spectral features + logistic regression",
    "linear SVM on dense deltas",
)
MEAN_DIFFERENCE = Setting("activations-answers", nulled=0, rank=1)
"""The residual-stream difference of means at every writing module."""


@dataclass(frozen=True)
class Choices:
    """What the rule of `choice` decided for one base."""

    examined: tuple[Candidate, ...]
    combinations: tuple[Candidate, ...]
    detectors: tuple[Detector, ...]
    """The kinds that ship, as a scan combines them, then the best of each kind of signature by the
    kind's name, then the methods that were second best."""


@dataclass(frozen=True)
class BaseResult:
    """Everything measured on one base."""

    population: Population
    choices: Choices
    test: TestedAdapters
    ours: tuple[Ranking, ...]
    variants: tuple[Ranking, ...]
    theirs: tuple[Ranking, ...]
    operating: tuple[Operating, ...]
    readings: tuple[Reading, ...]
    domains: tuple[DomainEffect, ...]
    across: tuple[CrossMethod, ...]
    innocents: tuple[Innocent, ...]
    doses: tuple[Dose, ...]
    unseen: tuple[Unseen, ...]
    points: tuple[Point, ...]
    sizes: tuple[CalibrationSize, ...]
    runs: tuple[Run, ...]
    run_alpha: float
    dose: dict[str, float]
    """Row id -> dose under the first detector."""


@dataclass(frozen=True)
class Bench:
    """The bases of a run with their scorers."""

    scorers: tuple[Scorer, ...]
    track: Track[Row]
    quick: bool = False
    """Whether few settings are compared."""

    @classmethod
    def open(
        cls,
        populations: Sequence[Population],
        cache: Path,
        track: Track[Row],
        quick: bool = False,
    ) -> Bench:
        """Prepares populations; known scores are read from the cache."""
        scorers = tuple(Scorer(p, Workshop(p), cache, track) for p in populations)
        return cls(scorers, track, quick)

    def choose(self, scorer: Scorer) -> Choices:
        """Applies the rule to every method that a base allows, then to their combinations."""
        examined: list[Candidate] = []
        by_method: dict[str, Candidate] = {}
        for method in available(scorer.population):
            candidates = self._examine(
                choice.nulled_grid(method, QUICK) if self.quick else choice.nulled_grid(method),
                scorer,
            )
            if not self.quick:
                best = choice.best(candidates).detector
                candidates += self._examine(choice.rank_grid(best), scorer)
            by_method[method] = choice.best(candidates)
            aligned = [replace(c.detector, statistic="cosine") for c in candidates]
            examined += candidates + self._examine(aligned, scorer)
        kinds = {
            kind: choice.best([by_method[method] for method in methods if method in by_method])
            for kind, methods in KINDS.items()
            if any(method in by_method for method in methods)
        }
        combinations = [
            choice.examine(detector, scorer) for detector in choice.combined([*kinds.values()])
        ]
        scanned = SHIPPED_KINDS.get(scorer.population.name, CANDIDATE_KINDS)
        shipped = tuple(kinds[kind].detector.members[0] for kind in scanned if kind in kinds)
        joint = tuple(
            item.detector
            for item in combinations
            if item.detector.combiner == SCANNED and item.detector.members == shipped
        )
        singles = tuple(replace(best.detector, name=kind) for kind, best in kinds.items())
        others = tuple(c.detector for c in by_method.values() if c not in kinds.values())
        scanning = (replace(each, statistic=SCORE) for each in joint + singles + others)
        return Choices(tuple(examined), tuple(combinations), tuple(scanning))

    def _examine(self, detectors: Sequence[Detector], scorer: Scorer) -> list[Candidate]:
        choice.prefetch(detectors, scorer)
        return [choice.examine(detector, scorer) for detector in detectors]

    def evaluate(self, scorer: Scorer) -> BaseResult:
        """Chooses for one base, and only then looks at its test split."""
        choices = self.choose(scorer)
        population = scorer.population
        test = TestedAdapters.of(population)
        benign = population.select("calibration", "benign")
        runs = population.select("trajectory")
        evaluation.prefetch(scorer, choices.detectors, [*test.rows, *runs])
        calibrated = [d.calibrate(scorer, benign) for d in choices.detectors]
        naive = [d.calibrate(scorer, benign, crossfit=False) for d in choices.detectors]
        ours = tuple(evaluation.rank_detector(scorer, test, c) for c in calibrated)
        theirs = self._theirs(scorer, test)
        main, weights = choices.detectors[0], _named(choices.detectors, "weights")
        compared = [*ours, *(r for r in theirs if r.name in CROSS_METHOD_BASELINES)]
        alpha = next(alpha for alpha in ALPHAS if supports(len(benign), alpha))
        chosen = [d.members[0] for d in _single(choices.detectors)]
        return BaseResult(
            population=population,
            choices=choices,
            test=test,
            ours=ours,
            variants=tuple(_variants(scorer, test, chosen)),
            theirs=theirs,
            operating=tuple(
                evaluation.operate(scorer, test, each, crossfitted, alpha)
                for group, crossfitted in ((calibrated, True), (naive, False))
                for each in group
                for alpha in ALPHAS
            ),
            readings=tuple(evaluation.read_by_parts(scorer, test, main, ALPHAS[:2])),
            domains=tuple(evaluation.domain_effects(scorer, test, calibrated[0])),
            across=tuple(evaluation.across_methods(scorer, test, compared, calibrated[0])),
            innocents=tuple(evaluation.innocents(scorer, test, calibrated[0])),
            doses=tuple(
                evaluation.doses(
                    scorer, test, [c for c in calibrated if len(c.detector.members) == 1]
                )
            ),
            unseen=tuple(specificity.leave_each_out(scorer, test, _distinct([main, weights]))),
            points=tuple(
                point
                for setting in chosen
                for point in ablation.settings_grid(scorer, test, setting)
            )
            + tuple(ablation.set_sizes(scorer, test, weights.members[0])),
            sizes=tuple(ablation.calibration_sizes(scorer, test, main, ALPHAS[:2])),
            runs=tuple(early_warning.follow(scorer, calibrated[0], alpha)),
            run_alpha=alpha,
            dose=dict(
                zip(
                    (row.id for row in test.rows),
                    calibrated[0].dose(scorer, test.rows).tolist(),
                    strict=True,
                )
            ),
        )

    def _theirs(self, scorer: Scorer, test: TestedAdapters) -> tuple[Ranking, ...]:
        population = scorer.population
        rows = [
            *population.select("reference", "misaligned"),
            *population.select("calibration", "benign"),
            *test.rows,
        ]
        sample = read_sample(population, rows, self.track)
        found = []
        for family in (spectral, dense, subspace, network):
            for scored in family.scores(sample):
                by_id = {
                    row.id: float(value) for row, value in zip(rows, scored.values, strict=True)
                }
                found.append(evaluation.rank(test, scored.name, by_id, scored.source, scored.notes))
        if MEAN_DIFFERENCE.method in available(population):
            found.insert(0, _mean_difference(scorer, test))
        return tuple(found)


def _mean_difference(scorer: Scorer, test: TestedAdapters) -> Ranking:
    values = scorer.get(MEAN_DIFFERENCE, test.rows, "column_overlap")
    return evaluation.rank(
        test,
        "raw overlap with the mean-difference direction",
        {row.id: float(value) for row, value in zip(test.rows, values, strict=True)},
        "2506.11618",
        "Squared cosine of the base model's residual-stream difference of means (misaligned minus "
        "aligned answers) with the column space of dW, averaged over the modules that write to "
        "the residual stream; nothing is learnt.",
    )


def _variants(scorer: Scorer, test: TestedAdapters, chosen: Sequence[Setting]) -> list[Ranking]:
    """Other statistics of the chosen signatures."""
    statistics = {
        "signed_write": "signed write alone",
        "weights_write": "signed write of the weights alone",
        "site_cosines": "whole cosines",
        "cosine": "cosine",
        "dose": "dose",
        "unsigned": "signed write without signs",
        "overlap": "overlap",
        "column_overlap": "column overlap",
    }
    return [
        evaluation.rank_statistic(scorer, test, f"{setting.method}: {label}", setting, statistic)
        for setting in chosen
        for statistic, label in statistics.items()
    ]


def _single(detectors: Sequence[Detector]) -> list[Detector]:
    return [detector for detector in detectors if len(detector.members) == 1]


def _named(detectors: Sequence[Detector], name: str) -> Detector:
    return next(detector for detector in detectors if detector.name == name)


def _distinct(detectors: Sequence[Detector]) -> list[Detector]:
    return list(dict.fromkeys(detectors))
