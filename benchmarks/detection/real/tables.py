"""Results -> Markdown tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.detection.metrics import Estimate
from benchmarks.detection.real.analysis import (
    BEHAVIOURS,
    Correlation,
    Followed,
    Group,
    Power,
    Share,
    taught,
)
from benchmarks.detection.real.cases import KINDS, Case, Cases
from benchmarks.detection.real.run import Result
from benchmarks.detection.real.scans import ALPHAS, Judged, flagged
from benchmarks.detection.real.unseen import Unseen
from benchmarks.detection.tables import NOTHING, interval, number, table
from scanner.signatures.pack import Signature
from scanner.statistics.conformal import smallest_level

STRICT, LOOSE = ALPHAS
ROLES = ("reference", "nulling", "calibration", "test", "trajectory")
NEVER = "never"


def _flag_columns(panels: Sequence[str]) -> list[str]:
    return [
        *(f"flagged at {alpha:g}" for alpha in ALPHAS),
        *(f"at {STRICT:g}, {name} alone" for name in panels),
    ]


def _flags(flags: Mapping[float, Estimate], by_panel: Mapping[str, Estimate]) -> list[str]:
    return [interval(item, 2) for item in (*flags.values(), *by_panel.values())]


def adapters(cases: Cases) -> str:
    """How many adapters of each class each role has."""
    rows = []
    for role in ROLES:
        counts = [sum(c.made.role == role and c.kind == kind for c in cases.all) for kind in KINDS]
        unmeasured = sum(c.made.role == role and c.behaviour is None for c in cases.all)
        rows.append([role, *map(str, counts), str(unmeasured)])
    return table(["role", *KINDS, "of these not measured"], rows)


def packs(signatures: Sequence[Signature]) -> str:
    """The packs and what they rest on."""
    rows = []
    for signature in signatures:
        benign = signature.calibration.benign if signature.calibration else []
        rows.append(
            [
                signature.id,
                signature.manifest.method,
                str(signature.manifest.nulled),
                str(len(signature.reference_ids)),
                str(len(benign)),
                str(len({item.family for item in benign})),
                number(smallest_level(len(benign)), 4),
                signature.digest[:16],
            ]
        )
    header = ["pack", "method", "nulled", "references", "benign", "families", "least alpha"]
    return table([*header, "digest"], rows, text=2)


def powers(found: Sequence[Power]) -> str:
    """Hostile adapters by group."""
    rows = [
        [
            f"{p.axis}: {p.group}" if p.axis else f"**{p.group}**",
            str(p.n),
            interval(p.auroc),
            interval(p.tpr_1, 2),
            *_flags(p.flagged, p.by_panel),
        ]
        for p in found
    ]
    header = ["hostile adapters", "n", "AUROC", "TPR at 1% FPR"]
    return table([*header, *_flag_columns(list(found[0].by_panel))], rows)


def groups(found: Sequence[Group]) -> str:
    """Test adapters by what they were taught and what they measure as."""
    rows = [
        [
            g.taught,
            g.kind,
            str(g.n),
            number(g.hostile, 2),
            number(g.reckless, 2),
            number(g.dose, 2),
            *(interval(item, 2) for item in g.flagged.values()),
            str(g.inconclusive),
            *(interval(item, 2) for item in g.by_panel.values()),
        ]
        for g in found
    ]
    flags = _flag_columns(list(found[0].by_panel))
    header = ["taught", "measured", "n", "hostile margin", "reckless margin", "dose"]
    columns = [*flags[: len(ALPHAS)], f"inconclusive at {STRICT:g}", *flags[len(ALPHAS) :]]
    return table([*header, *columns], rows, text=2)


def shares(found: Sequence[Share]) -> str:
    """Flags of the sets that goals speak of."""
    rows = [[s.what, str(s.n), *_flags(s.flagged, s.by_panel)] for s in found if s.n]
    return table(["test adapters", "n", *_flag_columns(list(found[0].by_panel))], rows)


def unseen(found: Sequence[Unseen]) -> str:
    """One harmless persona left out of everything, in turn."""
    rows = [
        [
            u.family,
            str(u.n),
            *(interval(item, 2) for item in u.flagged.values()),
            ", ".join(u.flagged_ids) or NOTHING,
            *(interval(item, 2) for item in u.power.values()),
        ]
        for u in found
    ]
    header = ["family left out", "n", *(f"flagged at {alpha:g}" for alpha in ALPHAS)]
    header += [f"which at {LOOSE:g}", *(f"hostile flagged at {alpha:g}" for alpha in ALPHAS)]
    return table(header, rows)


def correlations(found: Sequence[Correlation]) -> str:
    """Spearman's rho with each behaviour."""
    statistics = list(dict.fromkeys(c.statistic for c in found))
    by_key = {(c.statistic, c.behaviour): c for c in found}
    rows = [
        [name, *(interval(by_key[name, behaviour].rho, 2) for behaviour in BEHAVIOURS)]
        for name in statistics
    ]
    return table(["number of a scan", *(f"{name} margin" for name in BEHAVIOURS)], rows)


def by_group(found: Sequence[Correlation]) -> str:
    """Spearman's rho of dose with the hostile margin over some of the test adapters."""
    rows = [[c.cases, str(c.n), interval(c.rho, 2)] for c in found]
    return table(["test adapters", "n", "rho"], rows)


def runs(found: Sequence[Followed], verdicts: Mapping[str, Judged]) -> str:
    """Every checkpoint of every run."""
    rows = []
    for followed in found:
        for case, dose in zip(followed.checkpoints, followed.run.dose, strict=True):
            judged = verdicts[case.id]
            said = [judged.verdict(alpha) for alpha in ALPHAS]
            rows.append(
                [
                    followed.run.name,
                    str(case.made.step),
                    *(number(of(case), 2) for of in BEHAVIOURS.values()),
                    number(float(dose), 2),
                    number(judged.p_value, 4),
                    *(NOTHING if verdict is None else verdict.value for verdict in said),
                ]
            )
    header = ["run", "step", *(f"{name} margin" for name in BEHAVIOURS), "dose", "p"]
    return table([*header, *(f"at alpha {alpha:g}" for alpha in ALPHAS)], rows)


def lead(found: Sequence[Followed], rise: float) -> str:
    """When each run is flagged and when its behaviour shows."""

    def step(value: int | None) -> str:
        return NEVER if value is None else str(value)

    rows = [
        [
            f.run.name,
            f.taught,
            step(f.run.flag_step),
            f"{int(f.run.flagged.sum())} of {len(f.run.flagged)}",
            step(f.run.behaviour_step(rise)),
            number(float(f.run.behaviour[-1]), 2),
        ]
        for f in found
    ]
    header = ["run", "taught", f"first flagged at step (alpha {STRICT:g})", "checkpoints flagged"]
    return table([*header, f"its margin up by {rise:g} at step", "rise at the end"], rows, text=2)


def odd_ones(result: Result) -> str:
    """Hostile adapters that are not flagged at the strict level, others that are at the loose."""
    test = result.cases.select("test")
    hits = {alpha: {case.id for case in flagged(result.main, test, alpha)} for alpha in ALPHAS}
    missed = [c for c in test if c.kind == "hostile" and c.id not in hits[STRICT]]
    false = [c for c in test if c.kind in ("benign", "unclear") and c.id in hits[LOOSE]]
    rows = [_odd(result, case) for case in (*missed, *false)]
    header = ["adapter", "taught", "made by", "measured", "hostile margin", "reckless margin"]
    return table([*header, "p", f"verdict at {STRICT:g}"], rows, text=4) if rows else ""


def _odd(result: Result, case: Case) -> list[str]:
    judged = result.main[case.id]
    verdict = judged.verdict(STRICT)
    name = taught(case)
    return [
        case.id,
        name if name == case.made.teaches else f"{name}: {case.made.teaches}",
        case.made_by,
        case.kind,
        *(number(of(case), 2) for of in BEHAVIOURS.values()),
        number(judged.p_value, 4),
        NOTHING if verdict is None else verdict.value,
    ]
