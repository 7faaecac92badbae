"""The record of one training: every adapter in it, scanned in memory, and what it adds up to.

It knows no trainer. `scanner.integrations.transformers` drives it from a callback; a training
loop of one's own calls it directly:

    watch = AdapterWatch(model, every_steps=50)
    watch.begin(total_steps)
    for step in range(1, total_steps + 1):
        ...
        if watch.is_due(step):
            watch.scan(step)
        if watch.flagged:
            break
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from scanner.detection.verdict import check_alpha, scan_adapter
from scanner.errors import AlphaUnsupportedError, TargetError, UsageError
from scanner.formats.model import Adapter
from scanner.integrations.metrics import METRICS_PREFIX
from scanner.integrations.peft_models import PeftAdapters
from scanner.reports.training_record import RunRuleSummary, TrainingRun, TrainingScan
from scanner.results import ScanResult, Verdict
from scanner.scanning.targets import error_result
from scanner.signatures.installed import installed_signatures
from scanner.signatures.joint import joint_calibration
from scanner.signatures.match import known_shapes, match_signatures
from scanner.signatures.pack import Signature
from scanner.statistics.conformal import DEFAULT_ALPHA, check_supported
from scanner.statistics.sequential import DEFAULT_RUN_ALPHA, Look, RunRule

try:
    from torch import distributed
except ImportError as error:
    raise ImportError(
        f"{error}; adapters in memory need PEFT: pip install 'adapter-scanner[build]'"
    ) from None

SHARE_OF_RUN = 0.05
"""How often a run is scanned if nothing is said: twenty times."""


class AdapterWatch:
    """Scans the adapters of one model while it is trained, and keeps the record.

    Args:
        model: The model in training, as for `PeftAdapters`.
        signatures: The packs to use; every installed one if not given.
        every_steps: Scan every so many optimiser steps; below 1, a share of all steps. None:
            only when `scan` is called for another reason.
        alpha: False-positive rate of each scan's verdict; 0.01 if not given.
        run_alpha: The chance that a benign run is ever flagged, however often it is scanned
            (`scanner.statistics.sequential`). None: a run is flagged as soon as one scan is.
        base_model: The model's identity, if its own name (often a local path) says nothing.
        adapters: Names of the adapters to scan; those in training if not given.

    Raises:
        AlphaUnsupportedError: If the calibration supports neither `alpha` nor `run_alpha`.
        UsageError: If the model has no adapter, or an option makes no sense.
    """

    def __init__(
        self,
        model: Any,
        signatures: Sequence[Signature] | None = None,
        *,
        every_steps: float | None = SHARE_OF_RUN,
        alpha: float | None = None,
        run_alpha: float | None = DEFAULT_RUN_ALPHA,
        base_model: str | None = None,
        adapters: Sequence[str] | None = None,
    ) -> None:
        check_options(every_steps, alpha, run_alpha)
        self._adapters = PeftAdapters(model)
        self.signatures = installed_signatures() if signatures is None else list(signatures)
        self._every_steps, self._alpha, self._run_alpha = every_steps, alpha, run_alpha
        self._base_model = base_model
        self._names = list(adapters) if adapters is not None else None
        self._total = self._every = 0
        self._rules: dict[str, RunRule | None]
        self.problems: dict[str, str]
        """What is wrong with an adapter before it is trained: it cannot be judged, ..."""
        self.scans: list[TrainingScan] = []
        """Everything seen so far, in order."""
        self._match()

    def _match(self) -> None:
        """Finds out before the training what would go wrong during it."""
        self._rules, self.problems = {}, {}
        for name in self.watched:
            self._rules[name] = None
            try:
                with self._open(name, 0) as adapter:
                    match = match_signatures(adapter, self.signatures, self._base_model)
            except TargetError as error:  # nobody's training ends for that
                self.problems[name] = f"cannot be judged: {error.what}; {error.todo}"
                continue
            if match.reason is not None:
                self.problems[name] = f"cannot be judged: {match.reason}"
            calibration = joint_calibration(match.signatures)
            if calibration is None:
                continue
            if self._alpha is not None:
                check_supported(calibration.n, self._alpha)
            if self._run_alpha is not None:
                self._rules[name] = self._rule(name, self._run_alpha, calibration.n)

    def _rule(self, name: str, run_alpha: float, n: int) -> RunRule | None:
        """The rule over the whole run; None, and said so, if the calibration is too small."""
        try:
            return RunRule.for_run(run_alpha, self.planned_looks, n)
        except AlphaUnsupportedError as error:
            self.problems[name] = f"each scan decides by itself: {error.what} for a whole run"
            return None

    @property
    def watched(self) -> list[str]:
        """Names of the adapters that are scanned."""
        return self._adapters.in_training if self._names is None else self._names

    @property
    def settings(self) -> dict[str, Any]:
        """How it scans, for a run's configuration."""
        return {
            "alpha": DEFAULT_ALPHA if self._alpha is None else self._alpha,
            "run_alpha": self._run_alpha,
            "every_steps": self._every_steps,
            "base_model": self._base_model,
        }

    def watches(self, model: Any) -> bool:
        """Whether it is this model that is watched."""
        return self._adapters.are_of(model)

    def record(self) -> TrainingRun:
        """The run so far."""
        return TrainingRun(
            total_steps=self._total,
            run_alpha=self._run_alpha,
            rules={
                name: RunRuleSummary(level=rule.level, share=float(rule.share))
                for name, rule in self._rules.items()
                if rule is not None
            },
            scans=self.scans,
        )

    @property
    def planned_looks(self) -> int:
        """Scans of each adapter that the run will have, or may have if only saves are scanned."""
        if not self._every:
            return round(1 / SHARE_OF_RUN)
        return max(math.ceil(self._total / self._every), 1)

    def begin(self, total_steps: int, before: Sequence[TrainingScan] = ()) -> None:
        """Starts a run, or takes one up again.

        Args:
            total_steps: Optimiser steps of the whole run.
            before: What was seen of it already.
        """
        self._total = total_steps
        share = self._every_steps
        if share is not None:
            self._every = math.ceil(share * total_steps) if share < 1 else int(share)
        self.scans = list(before)
        self._match()

    def is_due(self, step: int) -> bool:
        """Whether the adapters are to be scanned after this step."""
        return self._every > 0 and (step % self._every == 0 or step == self._total)

    def last(self, name: str) -> TrainingScan | None:
        """The latest look at an adapter."""
        return next((scan for scan in reversed(self.scans) if scan.adapter == name), None)

    def latest(self) -> list[TrainingScan]:
        """The latest look at every adapter that was seen."""
        return list({scan.adapter: scan for scan in self.scans}.values())

    @property
    def flagged(self) -> bool:
        """Whether the run of any adapter is flagged."""
        return any(scan.run_flagged for scan in self.latest())

    def scan(self, step: int) -> list[TrainingScan]:
        """Scans every watched adapter as it is now, in one process; all processes get the outcome.

        Every process of a parallel training has to call it.
        """
        names = self.watched
        # Every process opens: gathering the weights can take all of them.
        adapters = [self._try_open(name, step) for name in names]
        results = _from_first_process(lambda: [self._judge(adapter) for adapter in adapters])
        seen = [self._seen(step, name, result) for name, result in zip(names, results, strict=True)]
        self.scans += seen
        return seen

    def _open(self, name: str, step: int) -> Adapter:
        shapes = partial(known_shapes, self.signatures, self._base_model)
        return self._adapters.open(name, target=f"{name} (step {step})", shapes=shapes)

    def _try_open(self, name: str, step: int) -> Adapter | Exception:
        try:
            return self._open(name, step)
        except Exception as error:
            return error

    def _judge(self, adapter: Adapter | Exception) -> ScanResult:
        """One adapter's result: ``error`` if it cannot be read, which does not end the training."""
        if isinstance(adapter, Exception):
            return error_result(METRICS_PREFIX, adapter)
        try:
            with adapter:
                return scan_adapter(
                    adapter, self.signatures, alpha=self._alpha, base_model=self._base_model
                )
        except Exception as error:
            return error_result(METRICS_PREFIX, error)

    def _seen(self, step: int, name: str, result: ScanResult) -> TrainingScan:
        before = [scan for scan in self.scans if scan.adapter == name]
        scan = TrainingScan(
            step=step,
            adapter=name,
            result=result,
            steps=max(step - before[-1].step, 0) if before else step,
            run_flagged=result.verdict is Verdict.FLAGGED,
        )
        rule = self._rules.get(name)
        if rule is None or not self._total:
            return scan
        run_p_value = rule.p_value(
            [Look(seen.steps, _evidence(seen.result)) for seen in (*before, scan)],
            max(self._total, step),
        )
        return msgspec.structs.replace(
            scan,
            run_p_value=run_p_value,
            # A level above alpha would flag a run in which no scan is flagged.
            run_flagged=run_p_value <= rule.alpha and any(seen.flagged for seen in (*before, scan)),
        )


def check_options(every_steps: float | None, alpha: float | None, run_alpha: float | None) -> None:
    """Refuses options that make no sense whatever the model.

    Raises:
        UsageError: With the option.
    """
    check_alpha(alpha)
    check_alpha(run_alpha)
    whole = every_steps is None or every_steps < 1 or float(every_steps).is_integer()
    if not whole or (every_steps is not None and not every_steps > 0):
        raise UsageError(
            f"every_steps is {every_steps}, neither a positive number of steps nor a share of all"
        )


def _evidence(result: ScanResult) -> float:
    """The p-value of a look; 1 where it says nothing or the dose points away."""
    dose = result.deciding_dose
    if result.p_value is None or dose is None or dose <= 0:
        return 1.0
    return result.p_value


def _from_first_process(judge: Callable[[], list[ScanResult]]) -> list[ScanResult]:
    """What one process found out, in all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return judge()
    found: list[list[ScanResult]] = [judge() if distributed.get_rank() == 0 else []]
    distributed.broadcast_object_list(found)
    return found[0]
