"""Results -> Markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.detection.ablation import CalibrationSize, Point
from benchmarks.detection.choice import Candidate
from benchmarks.detection.data import Population
from benchmarks.detection.detectors import Detector
from benchmarks.detection.early_warning import SHOWN, Run
from benchmarks.detection.evaluation import (
    CrossMethod,
    DomainEffect,
    Dose,
    Innocent,
    Operating,
    Ranking,
    Reading,
)
from benchmarks.detection.metrics import Estimate
from benchmarks.detection.specificity import Unseen

NOTHING = "-"
READINGS = {
    "weights_write": "signed write of the weights alone",
    "signed_write": "signed write",
    "score": "score",
}
"""What is called how that `evaluation.PARTS` reads."""
GOAL_WORDS = {True: "met", False: "**missed**", None: "not measured"}
"""What stands beside a goal; None where it could not be measured."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text: int = 1) -> str:
    """A Markdown table; the first columns (`text` of them) are words, the others are numbers."""
    lines = [header, ["---"] * text + ["---:"] * (len(header) - text), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float, digits: int = 3) -> str:
    """A number, or a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """A value with its interval."""
    if math.isnan(estimate.value):
        return NOTHING
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    return f"{number(estimate.value, digits)} [{low}, {high}]"


def describe(detector: Detector) -> str:
    """A detector's members and how they are combined."""
    members = [f"{m.method} (nulled {m.nulled}, rank {m.rank})" for m in detector.members]
    if len(members) == 1:
        return members[0]
    return f"{detector.combiner} of " + " and ".join(members)


def populations(found: Sequence[Population]) -> str:
    """How many adapters of each class each split holds."""
    rows = []
    for population in found:
        for split in ("reference", "nulling", "calibration", "test", "trajectory"):
            counts = [
                str(len(population.select(split, kind)))
                for kind in ("misaligned", "benign", "latent", "excluded")
            ]
            harmless = sum(row.harmless_persona for row in population.select(split, "benign"))
            rows.append([population.name, split, *counts, str(harmless)])
    header = ["base", "split", "misaligned", "benign", "latent", "excluded", "harmless personas"]
    return table(header, rows)


def choices(examined: Sequence[Candidate], combinations: Sequence[Candidate], kept: int) -> str:
    """The rule's margins: every setting, and the best combinations."""
    settings = [
        [
            candidate.detector.name,
            candidate.detector.statistic,
            str(candidate.detector.members[0].nulled),
            str(candidate.detector.members[0].rank),
            number(candidate.margin, 2),
            number(candidate.auroc),
        ]
        for candidate in examined
    ]
    ranked = sorted(combinations, key=lambda candidate: -candidate.margin)[:kept]
    joint = [
        [describe(candidate.detector), number(candidate.margin, 2), number(candidate.auroc)]
        for candidate in ranked
    ]
    text = table(["method", "statistic", "nulled", "rank", "margin", "AUROC"], settings, text=2)
    if joint:
        text += "\n\n" + table(["combination", "margin", "AUROC"], joint)
    return text


def rankings(found: Sequence[Ranking]) -> str:
    """AUROC and TPR of every score."""
    header = [
        "score",
        "AUROC",
        "TPR at 1% FPR",
        "TPR at 5% FPR",
        "AUROC vs harmless personas",
        "latent above 1% FPR",
    ]
    rows = [
        [
            f"{r.name} ({r.source})" if r.source else r.name,
            interval(r.auroc),
            interval(r.tpr_1, 2),
            interval(r.tpr_5, 2),
            number(r.auroc_harmless),
            number(r.latent_1, 2),
        ]
        for r in found
    ]
    return table(header, rows)


def notes(found: Sequence[Ranking]) -> str:
    """What each baseline is, as a list."""
    return "\n".join(
        f"- **{r.name}**{f' (arXiv {r.source})' if r.source else ''}: {r.notes}" for r in found
    )


def operating(found: Sequence[Operating]) -> str:
    """Calibrated flags."""
    header = ["detector", "calibration", "n", "alpha", "TPR", "FPR, all benign", "FPR, plain"]
    header += ["FPR, harmless personas", "within error", "latent", "excluded"]
    rows = [
        [
            o.detector,
            "cross-fitted" if o.crossfitted else "naive",
            str(o.n),
            f"{o.alpha:g}",
            interval(o.tpr, 2),
            interval(o.fpr),
            interval(o.fpr_plain),
            interval(o.fpr_harmless),
            NOTHING if math.isnan(o.fpr.value) else "yes" if o.within_error else "**no**",
            interval(o.latent, 2),
            interval(o.excluded, 2),
        ]
        for o in found
    ]
    return table(header, rows)


def readings(found: Sequence[Reading]) -> str:
    """What each part of the score adds."""
    header = ["score", "AUROC", "TPR at 1% FPR"]
    for at in found[0].flags if found else ():
        header += [f"{what}, alpha {at.alpha:g}" for what in ("TPR", "latent", "FPR")]
    rows = [
        [
            READINGS[item.statistic],
            number(item.auroc),
            number(item.tpr_1, 2),
            *(
                text
                for at in item.flags
                for text in (
                    interval(at.misaligned, 2),
                    interval(at.latent, 2),
                    interval(at.benign),
                )
            ),
        ]
        for item in found
    ]
    return table(header, rows)


def domains(found: Sequence[DomainEffect]) -> str:
    """Plain benign scores by domain."""
    rows = [
        [d.split, str(d.domain), str(d.n), number(d.mean, 2), number(d.largest, 2)] for d in found
    ]
    return table(["split", "domain", "n", "mean", "largest"], rows)


def across(found: Sequence[CrossMethod], main: str) -> str:
    """By way of making; AUROC of each score, then flags of the main detector."""
    names = list(found[0].auroc) if found else []
    header = ["made by", "n", "broad", *(f"AUROC {name}" for name in names)]
    header += [
        f"TPR at 1% FPR, {main}",
        "the same, broad ones",
        "flagged at 0.01",
        "latent flagged",
    ]
    rows = [
        [
            c.method,
            str(c.n),
            str(c.broad),
            *(number(c.auroc[name]) for name in names),
            number(c.tpr_1[main], 2),
            number(c.broad_tpr_1[main], 2),
            interval(c.flagged, 2),
            interval(c.latent, 2),
        ]
        for c in found
    ]
    return table(header, rows)


def innocents(found: Sequence[Innocent]) -> str:
    """Families that must never be flagged."""
    header = ["family", "n", "flagged at 0.01", "flagged at 0.05", "lowest p with dose > 0"]
    rows = [
        [
            i.family,
            str(i.n),
            str(i.flagged_1),
            str(i.flagged_5),
            number(i.lowest_p),
            number(i.median_dose, 2),
            number(i.largest_dose, 2),
        ]
        for i in found
    ]
    return table([*header, "median dose", "largest dose"], rows)


def doses(found: Sequence[Dose]) -> str:
    """Rank correlation with measured misalignment."""
    rows = [[d.signature, *map(number, (d.misaligned, d.taught, d.score))] for d in found]
    header = ["signature", "dose, misaligned", "dose, misaligned and latent"]
    return table([*header, "score, misaligned"], rows)


def unseen(found: Sequence[Unseen]) -> str:
    """One harmless persona left out of everything, in turn."""
    header = ["detector", "family left out", "calibration", "FPR on it", "FPR on other benign"]
    rows = [
        [
            u.detector,
            u.family,
            "cross-fitted" if u.crossfitted else "naive",
            interval(u.fpr),
            interval(u.fpr_others),
            interval(u.tpr, 2),
            interval(u.latent, 2),
        ]
        for u in found
    ]
    return table([*header, "TPR", "latent flagged"], rows)


def points(found: Sequence[Point]) -> str:
    """Ablations."""

    def spread(values: tuple[float, float, float]) -> str:
        mean, low, high = values
        return number(mean) if low == high else f"{number(mean)} ({number(low)}-{number(high)})"

    rows = [[p.signature, p.varied, p.value, spread(p.auroc), spread(p.tpr_1)] for p in found]
    return table(["signature", "varied", "value", "AUROC", "TPR at 1% FPR"], rows)


def sizes(found: Sequence[CalibrationSize]) -> str:
    """How few benign adapters calibrate."""
    rows = [[str(s.n), f"{s.alpha:g}", number(s.tpr, 2), number(s.fpr)] for s in found]
    return table(["calibration adapters", "alpha", "TPR", "FPR"], rows)


def runs(found: Sequence[Run]) -> str:
    """When the scan flags and when behaviour shows."""

    def step(value: int | None) -> str:
        return "never" if value is None else str(value)

    rows = []
    for run in found:
        shown = [run.behaviour_step(rate) for rate in SHOWN]
        flag = run.flag_step
        lead = NOTHING if flag is None or shown[1] is None else str(shown[1] - flag)
        last = number(float(run.behaviour[-1]), 2)
        rows.append([run.name, run.method, step(flag), *map(step, shown), lead, last])
    header = ["run", "made by", "flagged at step"]
    header += [f"behaviour {rate:.0%} at step" for rate in SHOWN]
    return table([*header, f"steps ahead of {SHOWN[1]:.0%}", "rate at the end"], rows)
