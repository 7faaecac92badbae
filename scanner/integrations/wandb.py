"""Weights & Biases: what a watched training adds to the run that is active.

Nothing is set up here: without an active run (`wandb.init`, or a trainer with
``report_to="wandb"``) nothing is written. `wandb` is the extra of that name.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from scanner.integrations.metrics import METRICS_PREFIX, named_metrics
from scanner.integrations.watching import AdapterWatch
from scanner.reports.training_record import TrainingRun, TrainingScan
from scanner.version import version

STEP = "train/global_step"
"""The axis that transformers' own callback gives to everything in the run."""
ARTIFACT_TYPE = "adapter-scan"
_LOWEST = ("p_value", "run_p_value")
"""Numbers whose smallest value is the one to remember; of the others it is the largest."""
_LONGEST_TITLE = 63
_COLUMNS = [
    *("step", "adapter", "verdict", "run flagged", "dose", "score", "threshold"),
    *("p-value", "p-value of the run", "sha256", "reasons"),
]


class WandbRun:
    """One run of Weights & Biases.

    Args:
        run: The run (`wandb.run`).
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._defined: set[str] = set()

    @classmethod
    def active(cls) -> WandbRun | None:
        """The run that is active in this process; None if there is none."""
        # A program that has a run has imported wandb.
        run = getattr(sys.modules.get("wandb"), "run", None)
        return None if run is None else cls(run)

    def is_active(self) -> bool:
        """Whether it is still this run that is active."""
        return getattr(sys.modules.get("wandb"), "run", None) is self._run

    def configure(self, watch: AdapterWatch) -> None:
        """Writes what the scans rest on into the run's configuration."""
        settings = {
            "version": version(),
            "packs": {item.id: item.digest for item in watch.signatures},
            **watch.settings,
        }
        self._run.config.update({METRICS_PREFIX: settings}, allow_val_change=True)

    def log(self, scan: TrainingScan) -> None:
        """Logs the numbers of one look, in a section of their own."""
        numbers = named_metrics(scan)
        for name in numbers.keys() - self._defined:
            summary = "min" if name.rpartition("/")[2] in _LOWEST else "max"
            self._run.define_metric(name, step_metric=STEP, summary=summary)
            self._defined.add(name)
        self._run.log({**numbers, STEP: scan.step})

    def alert(self, scan: TrainingScan, line: str) -> None:
        """Alerts whoever watches the run that a verdict has flipped.

        Args:
            scan: The look that flipped it.
            line: What a person is told.
        """
        became = "flagged" if scan.run_flagged else scan.result.verdict.value
        title = f"Adapter {scan.adapter} {became}"[:_LONGEST_TITLE]
        self._run.alert(title, line, level="WARN" if scan.run_flagged else "INFO")

    def finish(self, run: TrainingRun, page: str, *, named: bool) -> None:
        """Adds the table of scans and the artifact with the page and the whole record.

        Args:
            run: The record.
            page: The page about it.
            named: Whether whoever trains named the run; the model's artifact is called after it.
        """
        import wandb

        table = wandb.Table(columns=_COLUMNS, data=[_row(scan) for scan in run.scans])
        self._run.log({f"{METRICS_PREFIX}/scans": table})
        artifact = wandb.Artifact(
            f"adapter-scan-{self._run.id}",
            type=ARTIFACT_TYPE,
            metadata=_metadata(run, self._model_artifact(named)),
        )
        for name, content in (
            ("adapter_scan.html", page),
            ("adapter_scan.json", msgspec.json.encode(run).decode()),
        ):
            with artifact.new_file(name, mode="w", encoding="utf-8") as file:
                file.write(content)
        self._run.log_artifact(artifact)

    def _model_artifact(self, named: bool) -> str | None:
        """The artifact under which transformers logs the model of this run, if it does."""
        if os.environ.get("WANDB_LOG_MODEL", "false").lower() not in ("end", "checkpoint"):
            return None
        return f"model-{self._run.name if named else self._run.id}"


def _metadata(run: TrainingRun, model_artifact: str | None) -> dict[str, Any]:
    """What is searched for: the outcome, and the artifact that holds the model."""
    latest = {scan.adapter: scan for scan in run.scans}
    return {
        "model_artifact": model_artifact,
        "adapters": {
            name: {
                "verdict": scan.result.verdict.value,
                "run_flagged": scan.run_flagged,
                "step": scan.step,
                "dose": scan.result.deciding_dose,
                "p_value": scan.result.p_value,
                "sha256": scan.result.sha256,
            }
            for name, scan in latest.items()
        },
    }


def _row(scan: TrainingScan) -> list[Any]:
    result = scan.result
    return [
        *(scan.step, scan.adapter, result.verdict.value, scan.run_flagged),
        *(result.deciding_dose, result.score),
        result.comparison.threshold if result.comparison else None,
        *(result.p_value, scan.run_p_value, result.sha256, "; ".join(result.reasons)),
    ]
