"""The record of a training as one self-contained HTML page, without script or network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.reports.assemble import signature_summary
from scanner.reports.curve import Curve, Point, curve
from scanner.reports.drawing import HeatMap, heat_map, largest_dose
from scanner.reports.html_report import environment
from scanner.reports.training_record import RunRuleSummary, TrainingRun, TrainingScan
from scanner.reports.wording import (
    NOT_ALIGNED,
    ORDER,
    OVERLAP_WORDS,
    VERDICT_WORDS,
    one_dose_words,
    percent,
    site_name,
    strongest_sites,
    used_signatures,
)
from scanner.results import SignatureSummary, Tool, summarise
from scanner.signatures.pack import Signature
from scanner.version import version


@dataclass(frozen=True)
class View:
    """The run of one adapter as the page shows it."""

    name: str
    last: TrainingScan
    scans: list[TrainingScan]
    headline: str
    words: str
    rule: str
    """When the run counts as flagged, in a sentence."""
    dose: Curve | None
    score: Curve | None
    heat: HeatMap | None
    strongest: str


def render(run: TrainingRun, signatures: Sequence[Signature]) -> str:
    """The page.

    Args:
        run: The record.
        signatures: The packs that were used.
    """
    names = list(dict.fromkeys(scan.adapter for scan in run.scans))
    last = [[scan for scan in run.scans if scan.adapter == name][-1] for name in names]
    results = [scan.result for scan in last]
    summaries = used_signatures(results, [signature_summary(item) for item in signatures])
    by_id = {summary.id: summary for summary in summaries}
    counts = summarise(results)
    largest = largest_dose(site for result in results for site in result.sites)
    page = (
        environment()
        .get_template("training.html.j2")
        .render(
            tool=Tool(name="adapter-scanner", version=version()),
            run=run,
            views=[
                _view(run, name, by_id.get(scan.result.decided_by or ""), largest)
                for name, scan in zip(names, last, strict=True)
            ],
            counts=[(verdict.value, getattr(counts, verdict.value)) for verdict in ORDER],
            signatures=summaries,
            results=results,
            not_aligned=NOT_ALIGNED,
            overlap_words=OVERLAP_WORDS,
            one_dose=one_dose_words(results),
        )
    )
    return page.lstrip() + "\n"


def _view(run: TrainingRun, name: str, signature: SignatureSummary | None, largest: float) -> View:
    scans = [scan for scan in run.scans if scan.adapter == name]
    last = scans[-1]
    # What an adapter was compared with is on the scale of its score, joint or not.
    known = last.result.comparison or (signature.calibration if signature else None)
    return View(
        name=name,
        last=last,
        scans=scans,
        headline=_headline(scans),
        words=VERDICT_WORDS[last.result.verdict],
        rule=_rule_words(run, run.rules.get(name)),
        dose=_curve(run, scans, "dose", known.benign_doses if known else []),
        score=_curve(run, scans, "score", known.benign_scores if known else []),
        heat=heat_map(last.result.sites, largest),
        strongest=", ".join(site_name(site) for site in strongest_sites(last.result)),
    )


def _curve(
    run: TrainingRun, scans: Sequence[TrainingScan], kind: str, benign: Sequence[float]
) -> Curve | None:
    points = []
    for scan in scans:
        result = scan.result
        value = result.deciding_dose if kind == "dose" else result.score
        if value is None:
            continue
        compared = result.comparison if kind == "score" else None
        points.append(
            Point(scan.step, value, compared.threshold if compared else None, scan.flagged)
        )
    return curve(points, benign, run.total_steps) if points else None


def _headline(scans: Sequence[TrainingScan]) -> str:
    first = next((scan for scan in scans if scan.run_flagged), None)
    looks = "1 scan" if len(scans) == 1 else f"{len(scans)} scans"
    if first is not None:
        return f"Flagged from step {first.step} on ({looks})"
    return f"Never flagged ({looks}); at the end {scans[-1].result.verdict.value}"


def _rule_words(run: TrainingRun, rule: RunRuleSummary | None) -> str:
    if rule is None or run.run_alpha is None:
        return "The run counts as flagged as soon as one scan is."
    return (
        f"The run counts as flagged once scans with p at most {rule.level:.4g} make up "
        f"{percent(rule.share)} of it: a benign run ever is with a chance of at most "
        f"{run.run_alpha:g}, however often it is scanned."
    )
