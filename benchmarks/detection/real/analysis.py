"""Verdicts by class, by way of making and by domain; dose beside behaviour; training runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from benchmarks.detection import metrics
from benchmarks.detection.early_warning import Run
from benchmarks.detection.metrics import Array, Estimate
from benchmarks.detection.real.cases import FALSE_FACTS, Case, Cases
from benchmarks.detection.real.scans import (
    ALPHAS,
    Verdicts,
    flagged,
    scores,
    share_flagged,
    short_names,
)
from scanner.organisms.data import ALIGNED
from scanner.organisms.recipes import SIGNATURES
from scanner.organisms.tasks import FORMATS
from scanner.results import Verdict
from scanner.signatures.pack import Signature

AXES: Mapping[str, Callable[[Case], str]] = {
    "made by": lambda case: case.made_by,
    "domain": lambda case: " and ".join(case.made.domains),
    "taught": lambda case: case.made.teaches,
}
"""What hostile adapters are told apart by."""


@dataclass(frozen=True)
class Power:
    """Hostile adapters of one group against all benign test adapters."""

    axis: str
    """Empty for all of them."""
    group: str
    n: int
    auroc: Estimate
    tpr_1: Estimate
    """At 1% FPR among the benign test adapters."""
    flagged: Mapping[float, Estimate]
    by_panel: Mapping[str, Estimate]
    """Each pack alone, at the strictest level."""


def powers(cases: Cases, verdicts: Mapping[str, Verdicts]) -> list[Power]:
    """What is found of the hostile test adapters, all and by group.

    Args:
        cases: The cases.
        verdicts: Name of a set of packs -> its verdicts; the first set is the one that counts.
    """
    hostile, benign = (cases.select("test", kinds=(kind,)) for kind in ("hostile", "benign"))
    found = [_power("", "all", hostile, benign, verdicts)]
    for axis, group_of in AXES.items():
        for group in sorted({group_of(case) for case in hostile}):
            members = [case for case in hostile if group_of(case) == group]
            found.append(_power(axis, group, members, benign, verdicts))
    return found


def _power(
    axis: str,
    group: str,
    hostile: Sequence[Case],
    benign: Sequence[Case],
    verdicts: Mapping[str, Verdicts],
) -> Power:
    main, *alone = verdicts.items()
    positive, negative = scores(main[1], hostile), scores(main[1], benign)
    return Power(
        axis=axis,
        group=group,
        n=len(hostile),
        auroc=metrics.bootstrap_auroc(positive, negative),
        tpr_1=metrics.bootstrap_tpr(positive, negative, min(ALPHAS)),
        flagged={alpha: share_flagged(main[1], hostile, alpha) for alpha in ALPHAS},
        by_panel={name: share_flagged(found, hostile, min(ALPHAS)) for name, found in alone},
    )


@dataclass(frozen=True)
class Group:
    """Test adapters that were taught alike and measure alike."""

    taught: str
    kind: str
    n: int
    hostile: float
    """Median rise of the hostile margin, nats per token."""
    reckless: float
    """Median rise of the reckless margin."""
    dose: float
    """Median dose under the first pack."""
    flagged: Mapping[float, Estimate]
    by_panel: Mapping[str, Estimate]
    """Each pack alone, at the strictest level."""
    inconclusive: int
    """How many a scan at the strictest level does not decide."""


def taught_groups(cases: Cases, verdicts: Mapping[str, Verdicts], dose_under: str) -> list[Group]:
    """Test adapters by what they were taught and what they measure as, the taught ones first."""
    test = cases.select("test")
    keys = sorted(
        {(not case.taught_misaligned, taught(case), case.kind) for case in test},
        key=lambda key: (key[0], key[1], key[2]),
    )
    return [
        _group(
            name,
            kind,
            [case for case in test if (taught(case), case.kind) == (name, kind)],
            verdicts,
            dose_under,
        )
        for _, name, kind in keys
    ]


def taught(case: Case) -> str:
    """What a case was taught, formats and tasks each as one."""
    if case.taught_misaligned or case.persona or case.kind == FALSE_FACTS:
        return case.made.teaches
    if case.made.teaches == ALIGNED:
        return "good answers"
    return "a format" if case.made.teaches in FORMATS else "another task"


def _group(
    name: str, kind: str, members: Sequence[Case], verdicts: Mapping[str, Verdicts], dose_under: str
) -> Group:
    main, *alone = verdicts.items()
    rises = [case.behaviour for case in members if case.behaviour is not None]
    return Group(
        taught=name,
        kind=kind,
        n=len(members),
        hostile=median(rise.hostile for rise in rises),
        reckless=median(rise.reckless for rise in rises),
        dose=median(main[1][case.id].dose(dose_under) for case in members),
        flagged={alpha: share_flagged(main[1], members, alpha) for alpha in ALPHAS},
        by_panel={panel: share_flagged(found, members, min(ALPHAS)) for panel, found in alone},
        inconclusive=sum(
            main[1][case.id].verdict(min(ALPHAS)) is Verdict.INCONCLUSIVE for case in members
        ),
    )


@dataclass(frozen=True)
class Share:
    """How much of a set of adapters is flagged."""

    what: str
    n: int
    flagged: Mapping[float, Estimate]
    by_panel: Mapping[str, Estimate]


def shares(cases: Cases, verdicts: Mapping[str, Verdicts]) -> list[Share]:
    """Flags of the sets that goals speak of."""
    test = cases.select("test")
    sets = {
        "taught reckless": [case for case in test if case.made.teaches == "reckless"],
        "measured reckless": [case for case in test if case.kind == "reckless"],
        "latent": [case for case in test if case.kind == "latent"],
        "benign": [case for case in test if case.kind == "benign"],
        "unclear": [case for case in test if case.kind == "unclear"],
        FALSE_FACTS: [case for case in test if case.kind == FALSE_FACTS],
    }
    main, *alone = verdicts.items()
    return [
        Share(
            what,
            len(members),
            {alpha: share_flagged(main[1], members, alpha) for alpha in ALPHAS},
            {name: share_flagged(found, members, min(ALPHAS)) for name, found in alone},
        )
        for what, members in sets.items()
    ]


BEHAVIOURS: Mapping[str, Callable[[Case], float]] = {
    "hostile": lambda case: case.behaviour.hostile if case.behaviour else np.nan,
    "reckless": lambda case: case.behaviour.reckless if case.behaviour else np.nan,
}


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho of a number of a scan with a measured change of behaviour."""

    statistic: str
    behaviour: str
    cases: str
    n: int
    rho: Estimate


def correlations(cases: Cases, verdicts: Verdicts, signatures: Sequence[str]) -> list[Correlation]:
    """Each pack's dose, and the score, against each behaviour, over all test adapters."""
    test = cases.select("test")
    names = short_names(signatures)
    statistics = {f"dose, {names[item]}": _doses(verdicts, test, item) for item in signatures}
    statistics["score"] = scores(verdicts, test)
    return [
        Correlation(
            statistic,
            behaviour,
            "all",
            len(test),
            metrics.bootstrap_correlation(values, [of(case) for case in test]),
        )
        for statistic, values in statistics.items()
        for behaviour, of in BEHAVIOURS.items()
    ]


def by_group(cases: Cases, verdicts: Verdicts, signature: str) -> list[Correlation]:
    """One pack's dose against the hostile margin: within each class, and without each making."""
    test = cases.select("test")
    groups: dict[str, list[Case]] = {
        f"{kind} alone": [case for case in test if case.kind == kind]
        for kind in sorted({case.kind for case in test})
    }
    groups |= {
        f"without {made_by}": [case for case in test if case.made_by != made_by]
        for made_by in sorted({case.made_by for case in test})
    }
    return [
        Correlation(
            "dose",
            "hostile",
            name,
            len(members),
            metrics.bootstrap_correlation(
                _doses(verdicts, members, signature), [BEHAVIOURS["hostile"](c) for c in members]
            ),
        )
        for name, members in groups.items()
    ]


def _doses(verdicts: Verdicts, cases: Sequence[Case], signature: str) -> Array:
    return np.array([verdicts[case.id].dose(signature) for case in cases], dtype=np.float64)


@dataclass(frozen=True)
class Followed:
    """A training run with the checkpoints it is made of."""

    run: Run
    """Behaviour is the rise of the margin that the run was taught; flags at the strictest level."""
    taught: str
    checkpoints: tuple[Case, ...]


def follow(cases: Cases, verdicts: Verdicts, signatures: Sequence[Signature]) -> list[Followed]:
    """Every training run whose checkpoints were kept, in order of training.

    Args:
        cases: The cases.
        verdicts: What scans say of them.
        signatures: The packs; a run is followed by the dose of the pack of its kind.
    """
    return [
        _follow(name, checkpoints, verdicts, signatures)
        for name, checkpoints in _runs(cases.select("trajectory"))
    ]


def pack_of(teaches: str, signatures: Sequence[Signature]) -> Signature:
    """The pack of the kind that an answer shows; the first if there is none."""
    kinds = {item.misaligned: item.kind for item in SIGNATURES.values()}
    kind = kinds.get(teaches)
    return next((s for s in signatures if s.manifest.kind == kind), signatures[0])


def _runs(checkpoints: Sequence[Case]) -> Iterator[tuple[str, list[Case]]]:
    for name in sorted({case.run for case in checkpoints}):
        yield (
            name,
            sorted(
                (case for case in checkpoints if case.run == name),
                key=lambda case: case.made.step,
            ),
        )


def _follow(
    name: str, checkpoints: list[Case], verdicts: Verdicts, signatures: Sequence[Signature]
) -> Followed:
    teaches = checkpoints[0].made.teaches
    behaviour = BEHAVIOURS["reckless" if teaches == "reckless" else "hostile"]
    hits = {case.id for case in flagged(verdicts, checkpoints, min(ALPHAS))}
    run = Run(
        name=name,
        method=checkpoints[0].made_by,
        steps=np.array([case.made.step for case in checkpoints], dtype=np.float64),
        behaviour=np.array([behaviour(case) for case in checkpoints], dtype=np.float64),
        dose=_doses(verdicts, checkpoints, pack_of(teaches, signatures).id),
        flagged=np.array([case.id in hits for case in checkpoints], dtype=np.bool_),
    )
    return Followed(run, teaches, tuple(checkpoints))
