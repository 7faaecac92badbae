"""A whole population of adapters on one page: who carries most, and is it like the calibration?

A sweep finds thousands of adapters, so the page ranks and counts instead of showing each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from scanner.results import (
    ReferenceSummary,
    ScanResult,
    SignatureSummary,
    Summary,
    Tool,
    Verdict,
)
from scanner.version import version

SHOWN = 100
"""Adapters a page ranks at most."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass(frozen=True)
class Ranked:
    """One adapter in the ranking."""

    target: str
    verdict: Verdict
    dose: float
    """This and the next two as the signature that decided sees them."""
    cosine: float | None
    overlap: float | None
    p_value: float
    q_value: float | None
    base_model: str | None
    copies: int
    """Other addresses of the same content."""


@dataclass(frozen=True)
class CalibrationComparison:
    """The swept adapters beside what the signature that judged them was calibrated on."""

    signature: SignatureSummary
    doses: list[float]
    """Doses of the swept adapters, sorted; one for each content."""
    benign: list[float]
    """Doses of the benign calibration adapters, sorted."""
    references: list[ReferenceSummary]
    alpha: float
    share: float
    """Share of the swept contents with p <= alpha; benign ones would be alpha of themselves."""

    def quantiles(self) -> list[tuple[float, float, float]]:
        """(level, benign dose, swept dose) at `QUANTILES`."""
        return [(q, quantile(self.benign, q), quantile(self.doses, q)) for q in QUANTILES]


@dataclass(frozen=True)
class Population:
    """What the page shows."""

    tool: Tool
    lines: list[str]
    """What was swept, one sentence each."""
    summary: Summary
    ranked: list[Ranked]
    unranked: int
    """Adapters with a dose that the ranking leaves out."""
    comparisons: list[CalibrationComparison]
    unjudged: list[tuple[str, str, int]]
    """Verdict, reason, and how many adapters: the most frequent first."""


def quantile(ordered: Sequence[float], level: float) -> float:
    """The value below which a share of sorted values lies, interpolated linearly."""
    position = level * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@dataclass
class _Tally:
    """What is gathered of one signature's adapters."""

    doses: list[float] = field(default_factory=list)
    extreme: int = 0
    alpha: float = 0.0


def survey(
    entries: Iterable[tuple[str, ScanResult]],
    signatures: Sequence[SignatureSummary],
    lines: Sequence[str],
    shown: int = SHOWN,
) -> Population:
    """Gathers the page from results that are seen once and not kept.

    Args:
        entries: Content digest (empty if unknown) and result of every adapter.
        signatures: The packs that judged.
        lines: What was swept, one sentence each.
        shown: Adapters to rank.
    """
    counts: Counter[str] = Counter()
    reasons: Counter[tuple[str, str]] = Counter()
    copies: Counter[str] = Counter()
    tallies: dict[str, _Tally] = {}
    first: list[tuple[tuple[float, str], str, Ranked]] = []
    with_dose = 0
    by_id = {signature.id: signature for signature in signatures}
    for content, result in entries:
        counts[result.verdict.value] += 1
        if result.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
            reasons[result.verdict.value, _kind(result)] += 1
        if content:
            copies[content] += 1
        dose = result.deciding_dose if result.p_value is not None else None
        if (content and copies[content] > 1) or dose is None:
            continue
        with_dose += 1
        _add(tallies, result, dose)
        first.append(((-dose, result.target), content, _ranked(result, dose)))
        if len(first) > 2 * shown:
            first = nsmallest(shown, first, key=lambda item: item[0])
    ranked = [
        replace(item, copies=copies[content] - 1 if content else 0)
        for _, content, item in nsmallest(shown, first, key=lambda item: item[0])
    ]
    return Population(
        tool=Tool(name="adapter-scanner", version=version()),
        lines=list(lines),
        summary=Summary(**{verdict.value: counts[verdict.value] for verdict in Verdict}),
        ranked=ranked,
        unranked=with_dose - len(ranked),
        comparisons=[
            comparison
            for name, tally in sorted(tallies.items())
            if (comparison := _compared(by_id[name], tally)) is not None
        ],
        unjudged=[(verdict, text, n) for (verdict, text), n in reasons.most_common()],
    )


def _ranked(result: ScanResult, dose: float) -> Ranked:
    assert result.p_value is not None, "a dose is ranked beside its p-value"
    return Ranked(
        target=result.target,
        verdict=result.verdict,
        dose=dose,
        cosine=result.deciding_cosine,
        overlap=result.deciding_overlap,
        p_value=result.p_value,
        q_value=result.q_value,
        base_model=result.base_model,
        copies=0,
    )


def _add(tallies: dict[str, _Tally], result: ScanResult, dose: float) -> None:
    assert result.decided_by is not None, "a dose comes from a signature"
    assert result.p_value is not None, "a dose is ranked beside its p-value"
    tally = tallies.setdefault(result.decided_by, _Tally())
    tally.doses.append(dose)
    tally.alpha = result.alpha or tally.alpha
    tally.extreme += result.p_value <= tally.alpha


def _compared(signature: SignatureSummary, tally: _Tally) -> CalibrationComparison | None:
    calibration = signature.calibration
    if calibration is None or not calibration.benign_doses:
        return None
    return CalibrationComparison(
        signature=signature,
        doses=sorted(tally.doses),
        benign=calibration.benign_doses,
        references=calibration.references,
        alpha=tally.alpha,
        share=tally.extreme / len(tally.doses),
    )


def _kind(result: ScanResult) -> str:
    """What stopped it, without what differs from adapter to adapter."""
    text = result.reasons[0] if result.reasons else "no reason given"
    return text.replace(result.target, "").lstrip("/: ") or text
