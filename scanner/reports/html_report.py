"""One self-contained HTML page that a person can read without training.

It holds no script and asks the network for nothing (its own policy forbids both), so it can
be mailed, archived and opened anywhere. All text is escaped by the template engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.reports.drawing import HeatMap, Scale, heat_map, scale
from scanner.reports.terminal import printable
from scanner.reports.wording import (
    NOT_ALIGNED,
    ONE_DOSE,
    ORDER,
    OVERLAP_WORDS,
    VERDICT_WORDS,
    comparison_words,
    configuration_in_words,
    one_dose_words,
    percent,
    site_name,
    strongest_sites,
    used_signatures,
)
from scanner.results import DoseUnit, Report, ScanResult, SignatureSummary, Verdict

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")
_HEADLINES = {
    Verdict.FLAGGED: "Flagged",
    Verdict.ERROR: "Could not be read",
    Verdict.INCONCLUSIVE: "Inconclusive",
    Verdict.CLEAR: "Clear",
}


@dataclass(frozen=True)
class View:
    """One result as the page shows it."""

    result: ScanResult
    anchor: str
    headline: str
    words: str
    sentences: list[str]
    """What the numbers say, in words."""
    signature: SignatureSummary | None
    dose: Scale | None
    likeness: Scale | None
    heat: HeatMap | None
    strongest: str


def environment() -> Environment:
    """What renders the pages: everything is escaped, and what is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["printable"] = printable
    found.filters["percent"] = percent
    found.filters["signed"] = lambda x: f"{x:+.2f}".replace("-", "\u2212")
    return found


def render(report: Report) -> str:
    """The report as one HTML page."""
    ordered = sorted(report.results, key=lambda result: ORDER.index(result.verdict))
    by_id = {signature.id: signature for signature in report.signatures}
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            views=[
                _view(index, result, by_id.get(result.decided_by or ""))
                for index, result in enumerate(ordered, 1)
            ],
            counts=[(verdict.value, getattr(report.summary, verdict.value)) for verdict in ORDER],
            signatures=used_signatures(report.results, report.signatures),
            not_aligned=NOT_ALIGNED,
            overlap_words=OVERLAP_WORDS,
            one_dose=one_dose_words(report.results),
            configuration=configuration_in_words(report.configuration),
        )
    )
    return page.lstrip() + "\n"


def _view(index: int, result: ScanResult, signature: SignatureSummary | None) -> View:
    calibration = signature.calibration if signature else None
    position = likeness = None
    dose = result.deciding_dose
    if dose is not None and calibration is not None:
        position = scale(
            dose,
            calibration.benign_doses,
            [(item.id, item.dose) for item in calibration.references],
            [(1.0, ONE_DOSE[unit])] if (unit := result.dose_unit) in ONE_DOSE else [],
        )
        if _one_signature(result) and result.score is not None and result.comparison is not None:
            likeness = scale(
                result.score,
                calibration.benign_scores,
                [(item.id, item.score) for item in calibration.references],
                [(result.comparison.threshold, "flagged from here")],
            )
    return View(
        result=result,
        anchor=f"adapter-{index}",
        headline=_HEADLINES[result.verdict],
        words=VERDICT_WORDS[result.verdict],
        sentences=_sentences(result),
        signature=signature,
        dose=position,
        likeness=likeness,
        heat=heat_map(result.sites),
        strongest=", ".join(site_name(site) for site in strongest_sites(result)),
    )


def _one_signature(result: ScanResult) -> bool:
    """Whether the score is one signature's own, not a combination of several."""
    return len(result.dose) == 1


def _sentences(result: ScanResult) -> list[str]:
    found = []
    dose, overlap = result.deciding_dose, result.deciding_overlap
    if dose is not None:
        found.append(_dose_words(dose, result.dose_unit))
    if overlap is not None:
        found.append(
            f"Its column space writes {percent(overlap)} of the update into the misalignment "
            "directions."
        )
    if result.comparison is not None:
        found.append(comparison_words(result.comparison))
    if result.nearest_reference is not None and dose is not None and dose > 0:
        nearest = result.nearest_reference
        found.append(f"It is most like the misaligned reference {printable(nearest.id)}.")
    return found


def _dose_words(dose: float, unit: DoseUnit | None) -> str:
    if dose <= 0:
        return "It does not move its base model towards misalignment (the dose is not positive)."
    if unit is DoseUnit.REFERENCE:
        return f"It carries {dose:.2f} of the dose of a known misaligned model."
    return f"It carries a dose of {dose:.2f}, where 1 is {(unit or DoseUnit.NONE).value}."
