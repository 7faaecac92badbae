"""Cases under packs: the verdicts of `scanner.scan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
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
from scanner.signatures.manifest import DIRECTIONS_NAME
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


class Scanner:
    """Scans cases with sets of packs, at every level that their calibrations support.

    These are the steps of `scanner.scan`, with what packs see in an adapter gathered once for
    all sets and levels, and for copies of a pack that differ in calibration alone; tests hold
    the results against those of `scanner.scan`.

    Args:
        signatures: Every pack.
    """

    def __init__(self, signatures: Sequence[Signature]) -> None:
        self._signatures = signatures
        self._seen: dict[str, tuple[Adapter, Evidence | None]] = {}

    def judge(self, case: Case, panel: Panel) -> Judged:
        """Scans one adapter.

        Raises:
            AlphaUnsupportedError: If the calibration supports no level.
        """
        if case.id not in self._seen:
            self._seen[case.id] = _gather(case, self._signatures)
        adapter, whole = self._seen[case.id]
        matched = match_signatures(adapter, panel.signatures, None)
        evidence = _of_copies(whole, matched.signatures) if whole else None
        if whole is not None and evidence is None:
            _, evidence = _gather(case, panel.signatures)
        return Judged(_at_levels(adapter, evidence, matched.reason))

    def judge_all(
        self, cases: Sequence[Case], panel: Panel, track: Track[Case]
    ) -> dict[str, Judged]:
        """Scans every case; by its id."""
        shown: Iterable[Case] = track(cases, f"scanning, {panel.name}")
        return {case.id: self.judge(case, panel) for case in shown}


def _gather(case: Case, signatures: Sequence[Signature]) -> tuple[Adapter, Evidence | None]:
    """What packs see in an adapter; None if it changes nothing."""
    with open_adapter(case.path) as adapter:
        matched = match_signatures(adapter, signatures, None).signatures
        return adapter, gather(adapter, matched, jobs=1) if adapter.updates else None


def _of_copies(whole: Evidence, signatures: Sequence[Signature]) -> Evidence | None:
    """What packs see that have the directions of some that were asked; None if one has others."""
    known = {_directions(item.signature): item for item in whole.signatures}
    alike = len({item.signature.sites for item in whole.signatures}) <= 1
    if not alike or any(_directions(signature) not in known for signature in signatures):
        return None
    seen = (replace(known[_directions(item)], signature=item) for item in signatures)
    return replace(whole, signatures=tuple(seen))


def _directions(signature: Signature) -> str:
    return signature.manifest.files[DIRECTIONS_NAME]


def _at_levels(
    adapter: Adapter, evidence: Evidence | None, reason: str | None
) -> dict[float, ScanResult]:
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
