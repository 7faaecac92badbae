"""One run: every case scanned with every set of packs, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.detection import evaluation
from benchmarks.detection.baselines.sample import Scores
from benchmarks.detection.evaluation import Ranking
from benchmarks.detection.metrics import Array
from benchmarks.detection.real import analysis, others
from benchmarks.detection.real.analysis import Correlation, Followed, Group, Power, Share
from benchmarks.detection.real.cases import Case, Cases
from benchmarks.detection.real.scans import (
    Judged,
    Panel,
    Verdicts,
    judge_all,
    panels,
    scores,
    short_names,
)
from benchmarks.detection.real.seen import Sights
from benchmarks.detection.real.unseen import Crossfit, Unseen, leave_each_out
from scanner.signatures.building.scoring import Track
from scanner.signatures.pack import Signature


@dataclass(frozen=True)
class Result:
    """Everything measured on one base."""

    cases: Cases
    panels: tuple[Panel, ...]
    """All packs together first."""
    verdicts: Mapping[str, Verdicts]
    """Name of the panel -> verdicts on test adapters and checkpoints."""
    powers: tuple[Power, ...]
    groups: tuple[Group, ...]
    shares: Mapping[str, Share]
    unseen: tuple[Unseen, ...]
    correlations: tuple[Correlation, ...]
    by_group: tuple[Correlation, ...]
    runs: tuple[Followed, ...]
    ours: tuple[Ranking, ...]
    """The verdict's score, then other numbers that a scan gives."""
    theirs: tuple[Ranking, ...]

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The packs."""
        return self.panels[0].signatures

    @property
    def main(self) -> Verdicts:
        """What a scan with all packs says."""
        return self.verdicts[self.panels[0].name]

    @property
    def first_pack(self) -> str:
        """Id of the pack whose dose is held against the hostile margin."""
        return self.signatures[0].id


def evaluate(
    cases: Cases,
    signatures: Sequence[Signature],
    crossfit: Crossfit,
    sights: Sights,
    track: Track[Case],
    theirs: Sequence[Scores] = (),
) -> Result:
    """Scans everything and evaluates it; nothing is chosen from it.

    Args:
        cases: The cases.
        signatures: The packs of one base, the one for hostile answers first.
        crossfit: The directions of each that leave a family out (`unseen.find_crossfit`).
        sights: What packs see in adapters.
        track: Shows progress.
        theirs: What the methods of others say of the adapters (`others.scores`).
    """
    known = panels(signatures)
    judged = cases.select("test", "trajectory")
    verdicts = {panel.name: judge_all(judged, panel, sights, track) for panel in known}
    main = verdicts[known[0].name]
    ids = [signature.id for signature in signatures]
    return Result(
        cases=cases,
        panels=tuple(known),
        verdicts=verdicts,
        powers=tuple(analysis.powers(cases, verdicts)),
        groups=tuple(analysis.taught_groups(cases, verdicts, ids[0])),
        shares={share.what: share for share in analysis.shares(cases, verdicts)},
        unseen=tuple(leave_each_out(cases, signatures, crossfit, sights, track)),
        correlations=tuple(analysis.correlations(cases, main, ids)),
        by_group=tuple(analysis.by_group(cases, main, ids[0])),
        runs=tuple(analysis.follow(cases, main, signatures)),
        ours=tuple(_ours(cases, verdicts, signatures)),
        theirs=tuple(others.rank(cases, theirs)),
    )


def _ours(
    cases: Cases, verdicts: Mapping[str, Verdicts], signatures: Sequence[Signature]
) -> list[Ranking]:
    """The scores of the panels, then each pack's dose, cosine, overlap and nearest reference."""
    test, judged = others.test_set(cases), cases.select("test")
    main = next(iter(verdicts.values()))
    columns: dict[str, Array] = {
        f"score, {name}": scores(found, judged) for name, found in verdicts.items()
    }
    names = short_names([signature.id for signature in signatures])
    for signature in signatures:
        for statistic in ("dose", "cosine", "overlap"):
            columns[f"{statistic}, {names[signature.id]}"] = np.array(
                [_value(main[case.id], statistic, signature.id) for case in judged]
            )
    alone = {panel.name: panel.signatures[0] for panel in panels(signatures)[-len(signatures) :]}
    for name, signature in alone.items():
        if signature.reference_ids:
            columns[f"cosine with the nearest reference, {name}"] = np.array(
                [_nearest(verdicts[name][case.id]) for case in judged]
            )
    return [
        evaluation.rank(
            test,
            name,
            {case.id: float(value) for case, value in zip(judged, values, strict=True)},
        )
        for name, values in columns.items()
    ]


def _value(judged: Judged, statistic: str, signature: str) -> float:
    numbers: Mapping[str, float] = getattr(judged.any, statistic)
    return numbers.get(signature, np.nan)


def _nearest(judged: Judged) -> float:
    nearest = judged.any.nearest_reference
    return nearest.cosine if nearest else np.nan
