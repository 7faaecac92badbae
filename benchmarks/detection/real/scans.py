"""Cases under packs: the verdicts of `scanner.scan`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.detection.metrics import Array, Estimate, proportion
from benchmarks.detection.real.cases import Case
from benchmarks.detection.real.seen import Sights
from scanner.detection import verdict
from scanner.errors import AlphaUnsupportedError
from scanner.results import ScanResult, Verdict
from scanner.signatures.building.scoring import Track
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
    """All packs together, which is what a scan uses, then each by itself."""
    names = short_names([signature.id for signature in signatures])
    alone = [Panel(names[signature.id], (signature,)) for signature in signatures]
    return alone if len(alone) == 1 else [Panel(JOINT, tuple(signatures)), *alone]


def short_names(ids: Sequence[str]) -> dict[str, str]:
    """Ids of packs by what sets them apart: without the words that all of them begin with."""
    words = [name.split("-") for name in ids]
    shared = 0
    while len(ids) > 1 and all(
        len(own) > shared + 1 and own[shared] == words[0][shared] for own in words
    ):
        shared += 1
    return {name: "-".join(own[shared:]) for name, own in zip(ids, words, strict=True)}


def judge(case: Case, panel: Panel, sights: Sights) -> Judged:
    """Scans one adapter with a set of packs, at every level that their calibration supports.

    These are the steps of `scanner.scan`; tests hold the results against it.

    Raises:
        AlphaUnsupportedError: If the calibration supports no level.
    """
    sight = sights.of(case, panel.signatures)
    results: dict[float, ScanResult] = {}
    refused: AlphaUnsupportedError | None = None
    for alpha in ALPHAS:
        try:
            results[alpha] = verdict.judge(sight.adapter, sight.evidence, sight.reason, alpha)
        except AlphaUnsupportedError as error:
            refused = error
    if refused and not results:
        raise refused
    return Judged(results)


def judge_all(
    cases: Sequence[Case], panel: Panel, sights: Sights, track: Track[Case]
) -> dict[str, Judged]:
    """Scans every case with a set of packs; by the case's id."""
    shown: Iterable[Case] = track(cases, f"scanning, {panel.name}")
    return {case.id: judge(case, panel, sights) for case in shown}


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
