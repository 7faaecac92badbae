"""Results -> figures, as SVG that is the same for the same results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.detection.data import column
from benchmarks.detection.early_warning import Run
from benchmarks.detection.evaluation import Ranking
from benchmarks.detection.metrics import Array

if TYPE_CHECKING:
    from benchmarks.detection.run import BaseResult

STYLE: dict[str, Any] = {
    "svg.hashsalt": "adapter-scanner",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
}


def pyplot() -> Any:
    """The interface of matplotlib, set to the style of the benchmark's figures."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot

    interface: Any = matplotlib.pyplot
    interface.rcParams.update(STYLE)
    return interface


def save(plt: Any, figure: Any, path: Path) -> None:
    """Writes a figure as SVG, without the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def roc_points(ranking: Ranking) -> tuple[Array, Array]:
    """False- and true-positive rates at every threshold, from (0, 0) to (1, 1)."""
    thresholds = np.unique(np.concatenate([ranking.misaligned, ranking.benign]))[::-1]
    above_n = np.searchsorted(np.sort(ranking.benign), thresholds, side="left")
    above_p = np.searchsorted(np.sort(ranking.misaligned), thresholds, side="left")
    fpr = 1 - above_n / len(ranking.benign)
    tpr = 1 - above_p / len(ranking.misaligned)
    return np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr])


def roc(results: Sequence[BaseResult], path: Path) -> None:
    """ROC curves, ours drawn strong and the baselines thin; one panel per base."""
    plt = pyplot()
    figure, axes = plt.subplots(
        1, len(results), figsize=(4.2 * len(results) + 2.4, 3.6), squeeze=False
    )
    for axis, result in zip(axes[0], results, strict=True):
        for group, width, style in ((result.theirs, 0.9, "--"), (result.ours, 1.8, "-")):
            for ranking in group:
                fpr, tpr = roc_points(ranking)
                axis.plot(
                    fpr, tpr, style, linewidth=width, label=ranking.name, drawstyle="steps-post"
                )
        axis.set_xscale("symlog", linthresh=0.01)
        axis.set_xlim(0, 1)
        axis.set_xticks([0, 0.01, 0.05, 0.1, 0.5, 1], ["0", ".01", ".05", ".1", ".5", "1"])
        axis.set_xlabel("false-positive rate (linear to 0.01, then logarithmic)")
        axis.set_ylabel("true-positive rate")
        axis.set_title(result.population.name)
    axes[0][-1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, fontsize=7)
    save(plt, figure, path)


def dose(results: Sequence[BaseResult], path: Path) -> None:
    """Push under the combined detector against measured misalignment, by class."""
    plt = pyplot()
    figure, axes = plt.subplots(1, len(results), figsize=(4.2 * len(results), 3.4), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        for name, rows in (
            ("benign", result.test.benign),
            ("latent", result.test.latent),
            ("misaligned", result.test.misaligned),
        ):
            dose = [result.dose[row.id] for row in rows]
            axis.scatter(column(rows, "outside_bad"), dose, s=8, alpha=0.6, label=name)
        axis.axhline(0, color="0.7", linewidth=0.8)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_xlabel("misaligned answers outside the domain")
        axis.set_ylabel("dose (doses)")
        axis.set_title(result.population.name)
    axes[0][0].legend(frameon=False)
    save(plt, figure, path)


def early_warning(
    runs: Sequence[tuple[str, Run]],
    path: Path,
    behaviour: str = "misaligned answers outside the domain",
    unit: str = "doses",
) -> None:
    """Behaviour and dose along every training run, with the step that is flagged.

    Args:
        runs: The base of each run, and the run.
        path: The file.
        behaviour: What is measured of behaviour.
        unit: What the dose is in.
    """
    if not runs:
        return
    plt = pyplot()
    columns = min(4, len(runs))
    lines = -(-len(runs) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(3.0 * columns, 2.3 * lines), squeeze=False, sharey=True
    )
    for axis in axes.flat[len(runs) :]:
        axis.set_visible(False)
    for axis, (base, run) in zip(axes.flat, runs, strict=False):
        axis.plot(run.steps, run.behaviour, label=behaviour)
        axis.plot(run.steps, run.dose, label=f"dose ({unit})")
        if run.flag_step is not None:
            axis.axvline(run.flag_step, color="0.4", linestyle=":", label="first flagged")
        axis.set_title(f"{base}: {run.name}")
        axis.set_xlabel("training step")
    axes[0][0].legend(frameon=False, fontsize=6)
    figure.tight_layout()
    save(plt, figure, path)
