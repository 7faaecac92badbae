"""Cases under packs: the verdicts of `scanner.scan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.detection.metrics import Array, Estimate, proportion
from benchmarks.detection.real.cases import Case
from scanner.detection import verdict
from scanner.detection.evidence import Evidence, gather
from scanner.errors import AlphaUnsupportedError
from scanner.formats.model import Adapter
from scanner.results import ScanResult, Verdict
from scanner.scanning.opening import open_adapter
from scanner.signatures.building.calibrate import Track
from scanner.signatures.match import match_signatures
from scanner.signatures.pack import Signature

ALPHAS = (0.01, 0.05)
JOINT = "all packs"


@dataclass(frozen=True)
class Panel:
    """Packs that are scanned with together."""

    name: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Judged:
    """What scans say of one adapter."""

    results: Mapping[float, ScanResult]
    """By alpha; those that the calibration does not support are not there."""

    @property
    def any(self) -> ScanResult:
        """One of the scans: score, p-value and doses do not depend on alpha."""
        return next(iter(self.results.values()))

    @property
    def score(self) -> float:
        """What the verdict is based on; NaN if the adapter could not be judged."""
        return _number(self.any.score)

    @property
    def p_value(self) -> float:
        """NaN if the adapter could not be judged."""
        return _number(self.any.p_value)

    def dose(self, signature: str) -> float:
        """The dose under one pack; NaN if the pack sees nothing of it."""
        return self.any.dose.get(signature, math.nan)

    def verdict(self, alpha: float) -> Verdict | None:
        """The verdict at a level; None if the calibration does not support it."""
        return self.results[alpha].verdict if alpha in self.results else None


Verdicts = Mapping[str, Judged]
"""Id of the case -> what scans say."""


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def panels(signatures: Sequence[Signature]) -> list[Panel]:
    """All packs together, which is what a scan uses, then each by itself.

    A pack is called by its kind, if it has one of its own.
    """
    kinds = [signature.manifest.kind for signature in signatures]
    alone = [
        Panel(kind if kind and kinds.count(kind) == 1 else signature.id, (signature,))
        for kind, signature in zip(kinds, signatures, strict=True)
    ]
    return alone if len(alone) == 1 else [Panel(JOINT, tuple(signatures)), *alone]


def judge(case: Case, panels: Sequence[Panel]) -> dict[str, Judged]:
    """Scans one adapter with sets of packs, at every level that their calibration supports.

    These are the steps of `scanner.scan`, with what the packs see in the adapter gathered once
    for all sets and levels; a test holds the results against it.

    Args:
        case: The adapter.
        panels: Sets of packs, the first of which holds all others'.

    Returns:
        By name of the set.

    Raises:
        AlphaUnsupportedError: If a calibration supports no level.
    """
    with open_adapter(case.path) as adapter:
        return {
            panel.name: Judged(_at_levels(adapter, evidence, reason))
            for panel, evidence, reason in _gathered(adapter, panels)
        }


def _gathered(
    adapter: Adapter, panels: Sequence[Panel]
) -> Iterator[tuple[Panel, Evidence | None, str | None]]:
    """What every set of packs sees, and why no pack matches, if none does."""
    matched = match_signatures(adapter, panels[0].signatures, None)
    if not adapter.updates:
        yield from ((panel, None, matched.reason) for panel in panels)
        return
    whole = gather(adapter, matched.signatures, jobs=1)
    alike = len({signature.sites for signature in panels[0].signatures}) == 1
    for panel in panels:
        own = match_signatures(adapter, panel.signatures, None)
        if alike:
            ids = {signature.id for signature in own.signatures}
            seen = tuple(item for item in whole.signatures if item.signature.id in ids)
            yield panel, replace(whole, signatures=seen), own.reason
        else:
            yield panel, gather(adapter, own.signatures, jobs=1), own.reason


def _at_levels(adapter: Adapter, evidence: Evidence, reason: str | None) -> dict[float, ScanResult]:
    results: dict[float, ScanResult] = {}
    refused: AlphaUnsupportedError | None = None
    for alpha in ALPHAS:
        try:
            results[alpha] = verdict.judge(adapter, evidence, reason, alpha)
        except AlphaUnsupportedError as error:
            refused = error
    if refused and not results:
        raise refused
    return results


def judge_all(
    cases: Sequence[Case], panels: Sequence[Panel], track: Track[Case], what: str
) -> dict[str, dict[str, Judged]]:
    """Scans every case with sets of packs.

    Args:
        cases: The cases.
        panels: As `judge`.
        track: Shows progress.
        what: What is shown beside it.

    Returns:
        By name of the set and id of the case.
    """
    shown: Iterable[Case] = track(cases, what)
    judged = {case.id: judge(case, panels) for case in shown}
    return {
        panel.name: {identity: found[panel.name] for identity, found in judged.items()}
        for panel in panels
    }


def scores(verdicts: Verdicts, cases: Sequence[Case]) -> Array:
    """The scores of some cases, (n,)."""
    return np.array([verdicts[case.id].score for case in cases], dtype=np.float64)


def flagged(verdicts: Verdicts, cases: Sequence[Case], alpha: float) -> list[Case]:
    """The cases that a scan at a level flags."""
    return [c for c in cases if verdicts[c.id].verdict(alpha) is Verdict.FLAGGED]


def share_flagged(verdicts: Verdicts, cases: Sequence[Case], alpha: float) -> Estimate:
    """Share of cases that a scan flags, with its exact interval.

    NaN if there is no case, or the calibration is too small for the level.
    """
    if any(verdicts[case.id].verdict(alpha) is None for case in cases):
        return Estimate(math.nan)
    return proportion(len(flagged(verdicts, cases, alpha)), len(cases))
