"""The record of a training: what a watching callback saw of its adapters, look by look."""

from __future__ import annotations

from scanner.results import Record, ScanResult, Verdict


class TrainingScan(Record, frozen=True, kw_only=True):
    """One adapter at one step of its training."""

    step: int
    adapter: str
    result: ScanResult
    steps: int
    """Steps of the training that this look at it stands for: those since the look before."""
    run_p_value: float | None = None
    """P-value of the whole run by then (`scanner.statistics.sequential`); null without a rule."""
    run_flagged: bool = False
    """Whether the run was flagged by then, by the rule or, without one, by this scan."""

    @property
    def flagged(self) -> bool:
        """Whether this scan by itself is flagged."""
        return self.result.verdict is Verdict.FLAGGED


class RunRuleSummary(Record, frozen=True, kw_only=True):
    """When a whole run counts as flagged (`scanner.statistics.sequential`)."""

    level: float
    """Looks with a p-value of at most this count."""
    share: float
    """The share of the run that they have to make up."""


class TrainingRun(Record, frozen=True, kw_only=True):
    """The record of a training: every look at every adapter, in order."""

    total_steps: int
    """Steps of the whole run; 0 if nothing was trained."""
    run_alpha: float | None
    """The chance that a benign run is ever flagged; null if each scan decides."""
    rules: dict[str, RunRuleSummary] = {}
    """By adapter; absent where there is no calibration for it."""
    scans: list[TrainingScan]
