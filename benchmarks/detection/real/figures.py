"""The picture of dose beside behaviour, and of the training runs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.detection import figures
from benchmarks.detection.real.analysis import BEHAVIOURS
from benchmarks.detection.real.cases import KINDS
from benchmarks.detection.real.run import Result
from benchmarks.detection.real.scans import ALPHAS, flagged
from scanner.organisms.measure import HOSTILE_RISE
from scanner.results import DoseUnit

COLOURS = dict(
    zip(KINDS, ("#c1272d", "#e08e0b", "#8a5a9e", "#2a7ab8", "#5c5c5c", "#2e9e6b"), strict=True)
)


def dose(result: Result, path: Path) -> None:
    """Dose under each pack against the hostile margin, by class; flagged ones are filled."""
    plt = figures.pyplot()
    test = result.cases.select("test")
    hits = {case.id for case in flagged(result.main, test, min(ALPHAS))}
    count = len(result.signatures)
    figure, axes = plt.subplots(1, count, figsize=(4.4 * count, 3.4), squeeze=False)
    for axis, signature in zip(axes[0], result.signatures, strict=True):
        axis.axhline(0, color="0.8", linewidth=0.8)
        axis.axvline(HOSTILE_RISE, color="0.8", linewidth=0.8, linestyle="--")
        for kind in KINDS:
            members = [case for case in test if case.kind == kind]
            for filled in (True, False):
                some = [case for case in members if (case.id in hits) is filled]
                axis.scatter(
                    [BEHAVIOURS["hostile"](case) for case in some],
                    [result.main[case.id].dose(signature.id) for case in some],
                    s=16,
                    facecolors=COLOURS[kind] if filled else "none",
                    edgecolors=COLOURS[kind],
                    linewidths=0.9,
                )
            if members:
                axis.scatter([], [], s=16, color=COLOURS[kind], label=kind)
        axis.set_xlabel("rise of the hostile margin (nats per token)")
        axis.set_ylabel(f"dose ({_unit(signature.dose_unit)})")
        axis.set_title(signature.id)
    axes[0][0].legend(frameon=False, title=f"filled: flagged at {min(ALPHAS):g}")
    figure.tight_layout()
    figures.save(plt, figure, path)


def _unit(unit: DoseUnit) -> str:
    return {DoseUnit.REFERENCE: "doses", DoseUnit.LOG_ODDS: "nats per token"}.get(unit, "no unit")


def early_warning(result: Result, path: Path) -> None:
    """The runs, as the lab draws them."""
    figures.early_warning(
        [(followed.taught, followed.run) for followed in result.runs],
        path,
        "rise of the margin it was taught",
        _unit(result.signatures[0].dose_unit),
    )
