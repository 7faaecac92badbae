"""A whole population of adapters on one page: who is flagged, and is it like the calibration?

A sweep finds thousands of adapters, so the page lists what is flagged and what came next, and
counts the rest. A verdict rests on all packs of a base together, so there is one rate for all of
them, and doses stand beside each other, one column for each pack.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from scanner.results import (
    DoseUnit,
    ReferenceSummary,
    ScanResult,
    SignatureSummary,
    Summary,
    Tool,
    Verdict,
)
from scanner.version import version

SHOWN = 100
"""Adapters a page ranks at most beside the flagged ones."""
FLAGGED_SHOWN = 500
"""Flagged adapters a page lists at most; the others are counted."""
COPIES_SHOWN = 20
"""Addresses a page names at most of one adapter's copies; the others are counted."""
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

_PARTICULAR = re.compile(r"\b(?:[0-9a-f]{7,64}|\d[\d,._]*)\b")
"""Digests and numbers: what differs between two adapters that are stopped by the same thing."""


@dataclass(frozen=True)
class Place:
    """Where an adapter lies."""

    name: str
    """As a person calls it: ``owner/name`` or ``owner/name/subfolder``; else the target."""
    link: str | None = None
    """A page that shows the very files that were scanned."""


@dataclass(frozen=True)
class Entry:
    """One adapter of the population."""

    result: ScanResult
    content: str
    """Digest of its files; empty if unknown."""
    place: Place


@dataclass(frozen=True)
class Ranked:
    """One adapter that the page lists, by its first address."""

    place: Place
    verdict: Verdict
    doses: dict[str, float]
    """Id of the pack -> dose."""
    p_value: float
    q_value: float | None
    base_model: str
    """The base of the packs that judged it."""
    copies: list[Place]
    """Other addresses of the same content, `COPIES_SHOWN` at most."""
    more_copies: int
    """Copies that are not among them."""


@dataclass(frozen=True)
class Table:
    """Adapters of one base: the same packs judged all of them."""

    base_model: str
    packs: list[str]
    rows: list[Ranked]


@dataclass(frozen=True)
class Rate:
    """How many different adapters of a base have p <= alpha, all packs of it together."""

    base_model: str
    extreme: int
    n: int
    """Different adapters with a p-value."""

    @property
    def share(self) -> float:
        """Benign adapters like those of the calibration would be alpha of themselves."""
        return self.extreme / self.n


@dataclass(frozen=True)
class CalibrationComparison:
    """All swept adapters beside what a pack was calibrated on, in doses of this pack."""

    signature: SignatureSummary
    doses: list[float]
    """Doses of the swept adapters, sorted; one for each content, whichever pack decided."""
    benign: list[float]
    """Doses of the benign calibration adapters, sorted."""
    references: list[ReferenceSummary]
    unit: DoseUnit | None
    """What a dose of 1 is; None if this pack decided nowhere."""

    def quantiles(self) -> list[tuple[float, float, float]]:
        """(level, benign dose, swept dose) at `QUANTILES`."""
        return [(q, quantile(self.benign, q), quantile(self.doses, q)) for q in QUANTILES]


@dataclass(frozen=True)
class Unjudged:
    """What kept some adapters from being judged."""

    verdict: str
    reason: str
    """Without what differs from adapter to adapter."""
    count: int
    example: Place


@dataclass(frozen=True)
class Population:
    """What the page shows."""

    tool: Tool
    lines: list[str]
    """What was swept, one sentence each."""
    summary: Summary
    """Addresses with each verdict, copies counted."""
    alpha: float | None
    """The false-positive rate that was asked for; None if nothing has a p-value."""
    rates: list[Rate]
    flagged: list[Table]
    more_flagged: int
    """Different flagged adapters that the tables leave out."""
    ranked: list[Table]
    """Those with the lowest p-values of what is not flagged."""
    unranked: int
    """Different adapters with a p-value that no table shows."""
    comparisons: list[CalibrationComparison]
    unjudged: list[Unjudged]
    """The most frequent first; their counts sum to all that is inconclusive or unreadable."""

    @property
    def flagged_contents(self) -> int:
        """Different flagged adapters."""
        return sum(len(table.rows) for table in self.flagged) + self.more_flagged


def quantile(ordered: Sequence[float], level: float) -> float:
    """The value below which a share of sorted values lies, interpolated linearly."""
    position = level * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


@dataclass
class _Copies:
    """Where else one content lies."""

    places: list[Place] = field(default_factory=list)
    more: int = 0

    def add(self, place: Place) -> None:
        if len(self.places) < COPIES_SHOWN:
            self.places.append(place)
        else:
            self.more += 1


class _Best:
    """The first entries in an order, of any number that is seen."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: list[tuple[tuple[float, float, str], Entry]] = []
        self.seen = 0

    def add(self, entry: Entry) -> None:
        """Takes one in, by its p-value and then by its highest dose."""
        result = entry.result
        assert result.p_value is not None, "only what has a p-value is ranked"
        highest = max(result.dose.values(), default=0.0)
        self._kept.append(((result.p_value, -highest, result.target), entry))
        self.seen += 1
        if len(self._kept) > 2 * self._most:
            self._kept = self._first()

    def _first(self) -> list[tuple[tuple[float, float, str], Entry]]:
        return nsmallest(self._most, self._kept, key=lambda item: item[0])

    def entries(self) -> list[Entry]:
        """The first of them, in order."""
        return [entry for _, entry in self._first()]


class _Survey:
    """What is gathered while results pass by, each seen once and not kept."""

    def __init__(self, signatures: Sequence[SignatureSummary], shown: int) -> None:
        self._by_id = {signature.id: signature for signature in signatures}
        self._seen: set[str] = set()
        self._units: dict[str, DoseUnit | None] = {}
        self._doses: dict[str, list[float]] = {}
        self._extreme: Counter[str] = Counter()
        self._tested: Counter[str] = Counter()
        self._reasons: dict[tuple[str, str], tuple[int, str, Place]] = {}
        self._copies: dict[str, _Copies] = {}
        self.counts: Counter[str] = Counter()
        self.alpha: float | None = None
        self.flagged, self.rest = _Best(FLAGGED_SHOWN), _Best(shown)

    def add(self, entry: Entry) -> None:
        """Takes one adapter in; a copy counts for its verdict and for nothing else."""
        result = entry.result
        self.counts[result.verdict.value] += 1
        if result.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR):
            self._count_reason(entry)
        if entry.content:
            if entry.content in self._seen:
                self._copies.setdefault(entry.content, _Copies()).add(entry.place)
                return
            self._seen.add(entry.content)
        for pack, dose in result.dose.items():
            self._doses.setdefault(pack, []).append(dose)
        if result.decided_by is not None:
            self._units[result.decided_by] = result.dose_unit
        if result.p_value is not None and result.alpha is not None:
            self.alpha = result.alpha
            base = self._base(result)
            self._tested[base] += 1
            self._extreme[base] += result.p_value <= result.alpha
            (self.flagged if result.verdict is Verdict.FLAGGED else self.rest).add(entry)

    def _count_reason(self, entry: Entry) -> None:
        text, kind = _reason_and_kind(entry.result)
        place = (entry.result.verdict.value, kind)
        count, known, example = self._reasons.get(place, (0, text, entry.place))
        self._reasons[place] = (count + 1, text if text == known else kind, example)

    def _base(self, result: ScanResult) -> str:
        signature = self._by_id.get(result.decided_by or "")
        return signature.base_model if signature else result.base_model or "an unknown base"

    def tables(self, entries: Iterable[Entry]) -> list[Table]:
        """Adapters by base, in their order; with a column for each pack that judged one of them."""
        rows: dict[str, list[Ranked]] = {}
        for entry in entries:
            row = self._ranked(entry)
            rows.setdefault(row.base_model, []).append(row)
        return [
            Table(
                base, [pack for pack in self._doses if any(pack in r.doses for r in found)], found
            )
            for base, found in rows.items()
        ]

    def _ranked(self, entry: Entry) -> Ranked:
        result, copies = entry.result, self._copies.get(entry.content, _Copies())
        assert result.p_value is not None, "only what has a p-value is ranked"
        return Ranked(
            place=entry.place,
            verdict=result.verdict,
            doses=result.dose,
            p_value=result.p_value,
            q_value=result.q_value,
            base_model=self._base(result),
            copies=copies.places,
            more_copies=copies.more,
        )

    def rates(self) -> list[Rate]:
        """One for each base, the largest first."""
        return [Rate(base, self._extreme[base], n) for base, n in self._tested.most_common()]

    def comparisons(self) -> Iterator[CalibrationComparison]:
        """One for each pack that gave a dose and knows benign ones."""
        for pack, doses in self._doses.items():
            signature = self._by_id.get(pack)
            if signature is None or signature.calibration is None:
                continue
            if benign := signature.calibration.benign_doses:
                yield CalibrationComparison(
                    signature=signature,
                    doses=sorted(doses),
                    benign=benign,
                    references=signature.calibration.references,
                    unit=self._units.get(pack),
                )

    def unjudged(self) -> list[Unjudged]:
        """Every reason, the most frequent first."""
        found = [
            Unjudged(verdict, text, count, example)
            for (verdict, _), (count, text, example) in self._reasons.items()
        ]
        return sorted(found, key=lambda item: (-item.count, item.reason))


def survey(
    entries: Iterable[Entry],
    signatures: Sequence[SignatureSummary],
    lines: Sequence[str],
    shown: int = SHOWN,
) -> Population:
    """Gathers the page from results that are seen once and not kept.

    Args:
        entries: Every adapter.
        signatures: The packs that judged.
        lines: What was swept, one sentence each.
        shown: Adapters to rank beside the flagged ones.
    """
    found = _Survey(signatures, shown)
    for entry in entries:
        found.add(entry)
    flagged, ranked = found.flagged.entries(), found.rest.entries()
    return Population(
        tool=Tool(name="adapter-scanner", version=version()),
        lines=list(lines),
        summary=Summary(**{verdict.value: found.counts[verdict.value] for verdict in Verdict}),
        alpha=found.alpha,
        rates=found.rates(),
        flagged=found.tables(flagged),
        more_flagged=found.flagged.seen - len(flagged),
        ranked=found.tables(ranked),
        unranked=found.rest.seen - len(ranked),
        comparisons=list(found.comparisons()),
        unjudged=found.unjudged(),
    )


def _reason_and_kind(result: ScanResult) -> tuple[str, str]:
    """What stopped it, without its name; and the same without any number or digest."""
    text = result.reasons[0] if result.reasons else "no reason given"
    text = text.replace(result.target, "").lstrip("/: ") or text
    return text, _PARTICULAR.sub("…", text)
