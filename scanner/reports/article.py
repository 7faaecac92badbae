"""One result -> what a page shows of it: sentences, pictures and numbers by signature.

The first picture is what decides: the score among the benign adapters that it was compared with,
and the threshold. The dose explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.reports.drawing import HeatMap, Scale, heat_map, scale
from scanner.reports.wording import (
    ONE_DOSE,
    VERDICT_WORDS,
    comparison_words,
    nearest_words,
    percent,
    score_words,
    site_name,
    strongest_sites,
    under_several,
)
from scanner.results import (
    DoseUnit,
    ReferenceSummary,
    ScanResult,
    SignatureSummary,
    Verdict,
)

_HEADLINES = {
    Verdict.FLAGGED: "Flagged",
    Verdict.ERROR: "Could not be read",
    Verdict.INCONCLUSIVE: "Inconclusive",
    Verdict.CLEAR: "Clear",
}


@dataclass(frozen=True)
class Picture:
    """An adapter on a scale, with its words."""

    scale: Scale
    title: str
    text: str
    """The same in words, for those who do not see it."""
    unit: str


@dataclass(frozen=True)
class Under:
    """What one signature sees."""

    signature: str
    dose: float | None
    cosine: float | None
    overlap: float | None
    decides: bool


@dataclass(frozen=True)
class View:
    """One result as a page shows it."""

    result: ScanResult
    anchor: str
    headline: str
    words: str
    sentences: list[str]
    """What the numbers say, in words."""
    signature: SignatureSummary | None
    under: list[Under]
    """What each signature sees, the one that decided first; empty if it is alone."""
    score: Picture | None
    dose: Picture | None
    heat: HeatMap | None
    strongest: str
    references_shown: bool


def view(
    result: ScanResult, anchor: str, signature: SignatureSummary | None, largest: float
) -> View:
    """What a page shows of a result.

    Args:
        result: The result.
        anchor: The id of its place on the page.
        signature: The signature that decided, if the page knows it.
        largest: |dose| at a site that heat maps show at full strength (`drawing.largest_dose`).
    """
    score, dose = _score(result), _dose(result, signature)
    pictures = [item for item in (score, dose) if item is not None]
    return View(
        result=result,
        anchor=anchor,
        headline=_HEADLINES[result.verdict],
        words=VERDICT_WORDS[result.verdict],
        sentences=_sentences(result),
        signature=signature,
        under=_under(result),
        score=score,
        dose=dose,
        heat=heat_map(result.sites, largest),
        strongest=", ".join(site_name(site) for site in strongest_sites(result)),
        references_shown=any(item.scale.references for item in pictures),
    )


def _under(result: ScanResult) -> list[Under]:
    return [
        Under(
            signature=name,
            dose=result.dose.get(name),
            cosine=result.cosine.get(name),
            overlap=result.overlap.get(name),
            decides=name == result.decided_by,
        )
        for name in under_several(result)
    ]


def _score(result: ScanResult) -> Picture | None:
    """The score among the benign adapters it was compared with."""
    compared = result.comparison
    if result.score is None or compared is None or not compared.benign_scores:
        return None
    alike = f" that change {compared.shape.value}" if compared.shape else ""
    unit = "" if len(result.dose) <= 1 else ", in standard deviations of benign adapters"
    return Picture(
        scale=scale(
            result.score,
            compared.benign_scores,
            [(item.id, item.score) for item in compared.references if item.score is not None],
            [(compared.threshold, "flagged above")],
        ),
        title=f"Score among the {compared.n} benign adapters{alike}: {score_words(result)}{unit}",
        text=f"This adapter scores {result.score:.3f}. "
        f"{_between(compared.benign_scores, 'score')} Scores above {compared.threshold:.3f} are "
        "flagged.",
        unit="score",
    )


def _dose(result: ScanResult, signature: SignatureSummary | None) -> Picture | None:
    """The dose under the signature that decided, among the same adapters."""
    dose, compared = result.deciding_dose, result.comparison
    known = compared or (signature.calibration if signature else None)
    if dose is None or known is None or not known.benign_doses:
        return None
    one = ONE_DOSE.get(result.dose_unit or DoseUnit.NONE)
    whose = f" under {result.decided_by}" if len(result.dose) > 1 else ""
    return Picture(
        scale=scale(
            dose,
            known.benign_doses,
            [(item.id, item.dose) for item in known.references],
            [(1.0, one)] if one else [],
        ),
        title=f"Dose{whose}: 0 is no move at all" + (f", 1 is {one}" if one else ""),
        text=f"This adapter has a dose of {dose:+.2f}. {_between(known.benign_doses, 'have')} "
        + _reference_words(known.references),
        unit="dose",
    )


def _between(numbers: Sequence[float], verb: str) -> str:
    return f"Benign adapters {verb} {numbers[0]:.3g} to {numbers[-1]:.3g}."


def _reference_words(references: Sequence[ReferenceSummary]) -> str:
    if not references:
        return ""
    doses = [item.dose for item in references]
    return f"Known misaligned models have {min(doses):.2f} to {max(doses):.2f}."


def _sentences(result: ScanResult) -> list[str]:
    found = []
    dose, overlap = result.deciding_dose, result.deciding_overlap
    if result.comparison is not None:
        found.append(comparison_words(result.comparison))
    if dose is not None:
        found.append(_dose_words(dose, result.dose_unit))
    if overlap is not None:
        found.append(
            f"Its column space writes {percent(overlap)} of the update into the misalignment "
            "directions."
        )
    if result.nearest_reference is not None and dose is not None and dose > 0:
        nearest = nearest_words(result.nearest_reference)
        found.append(f"Of the misaligned references it is most like {nearest}.")
    return found


def _dose_words(dose: float, unit: DoseUnit | None) -> str:
    if dose <= 0:
        return "It does not move its base model towards misalignment (the dose is not positive)."
    if unit is DoseUnit.REFERENCE:
        return f"It carries {dose:.2f} of the dose of a known misaligned model."
    return f"It carries a dose of {dose:.2f}, where 1 is {(unit or DoseUnit.NONE).value}."
