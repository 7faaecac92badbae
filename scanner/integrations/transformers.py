"""Watching a fine-tune: scans the adapter in memory while `transformers.Trainer` trains it.

    trainer = Trainer(model=peft_model, args=arguments, train_dataset=data)
    trainer.add_callback(AdapterScanCallback(trainer, every_steps=50, stop=True))
    trainer.train()

A dose of misalignment shows in the weights before it shows in what the model says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from scanner.detection.verdict import check_alpha, joint_calibration, scan_adapter
from scanner.errors import UsageError
from scanner.formats.model import Adapter
from scanner.results import ScanResult, Verdict
from scanner.scanning.targets import error_result
from scanner.signatures.installed import installed_signatures
from scanner.signatures.match import known_shapes, match_signatures
from scanner.signatures.pack import Signature
from scanner.statistics.conformal import check_supported

try:
    from accelerate.utils import broadcast_object_list
    from transformers import TrainerCallback
    from transformers.utils import logging
except ImportError as error:
    raise ImportError(
        f"{error}; the callback needs transformers: pip install 'adapter-scanner[build]'"
    ) from None

from scanner.integrations.peft_models import PeftAdapters

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

METRICS_PREFIX = "adapter_scan"
"""What the names of all logged numbers start with."""

_logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class TrainingScan:
    """The result of one adapter at one step of the training."""

    step: int
    adapter: str
    result: ScanResult


class AdapterScanCallback(TrainerCallback):  # type: ignore[misc] # transformers is not typed
    """Scans every adapter in training, at each save, every N steps and at the end.

    The numbers go to the trainer's loggers (see `metrics`). A verdict that flips to flagged
    is a warning, or ends the training.

    Args:
        trainer: The trainer this is added to; it does the logging.
        signatures: The packs to use; every installed one if not given.
        every_steps: Scan every so many optimiser steps, besides the saves.
        alpha: False-positive rate; 0.01 if not given.
        base_model: The model's identity, if its own name (often a local path) says nothing.
        adapters: Names of the adapters to scan; all of the model's if not given.
        stop: End the training when an adapter is flagged.

    Raises:
        AlphaUnsupportedError: If the calibration does not support `alpha`.
        UsageError: If the trainer's model has no adapter, or an option makes no sense.
    """

    def __init__(
        self,
        trainer: Trainer,
        signatures: Sequence[Signature] | None = None,
        *,
        every_steps: int | None = None,
        alpha: float | None = None,
        base_model: str | None = None,
        adapters: Sequence[str] | None = None,
        stop: bool = False,
    ) -> None:
        check_alpha(alpha)
        if every_steps is not None and every_steps < 1:
            raise UsageError(f"every_steps is {every_steps}, not a positive number of steps")
        self._trainer = trainer
        self._adapters = PeftAdapters(trainer.model)
        self._names = list(adapters) if adapters is not None else None
        self._signatures = installed_signatures() if signatures is None else list(signatures)
        self._every_steps = every_steps
        self._alpha = alpha
        self._base_model = base_model
        self._stop = stop
        self._step = -1
        self._last: dict[str, ScanResult] = {}
        self.scans: list[TrainingScan] = []
        """Everything seen so far, in order."""
        self._check_options()

    def _check_options(self) -> None:
        """Says before the training what would go wrong during it."""
        for name in self._watched():
            with self._open(name) as adapter:
                match = match_signatures(adapter, self._signatures, self._base_model)
            if match.reason is not None:
                _logger.warning(f"adapter {name!r} cannot be judged: {match.reason}")
            calibration = joint_calibration(match.signatures)
            if self._alpha is not None and calibration is not None:
                check_supported(calibration.n, self._alpha)

    def _watched(self) -> list[str]:
        return self._adapters.names if self._names is None else self._names

    def _open(self, name: str, step: int = 0) -> Adapter:
        shapes = partial(known_shapes, self._signatures, self._base_model)
        return self._adapters.open(name, target=f"{name} (step {step})", shapes=shapes)

    def on_step_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the trainer gives it
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        """Scans if the step is one of every N."""
        if self._every_steps and state.global_step % self._every_steps == 0:
            self._scan(state, control)
        return control

    def on_save(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the trainer gives it
        state: TrainerState,
        control: TrainerControl,
        **_: Any,
    ) -> TrainerControl:
        """Scans what was just saved."""
        if state.global_step != self._step:
            self._scan(state, control)
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Scans the outcome, unless the last scan saw it."""
        if state.global_step != self._step or args.load_best_model_at_end:
            self._scan(state, control)
        return control

    def _scan(self, state: TrainerState, control: TrainerControl) -> None:
        """Scans every adapter of the model in one process and tells the others the outcome."""
        self._step = state.global_step
        names = self._watched()
        # Every process opens: gathering the weights can take all of them.
        adapters = [self._try_open(name) for name in names]
        results: list[ScanResult | None] = [
            self._judge(adapter) if state.is_world_process_zero else None for adapter in adapters
        ]
        broadcast_object_list(results)
        for name, result in zip(names, results, strict=True):
            assert result is not None, "the first process has judged"
            self.scans.append(TrainingScan(self._step, name, result))
            self._log(name, result, control)
            self._warn(name, result, state)
            self._last[name] = result
        if self._stop and any(found is Verdict.FLAGGED for found in self._verdicts()):
            control.should_training_stop = True

    def _verdicts(self) -> list[Verdict]:
        return [result.verdict for result in self._last.values()]

    def _try_open(self, name: str) -> Adapter | Exception:
        try:
            return self._open(name, self._step)
        except Exception as error:
            return error

    def _judge(self, adapter: Adapter | Exception) -> ScanResult:
        """One adapter's result: ``error`` if it cannot be read, which does not end the training."""
        if isinstance(adapter, Exception):
            return error_result(METRICS_PREFIX, adapter)
        try:
            with adapter:
                return scan_adapter(
                    adapter, self._signatures, alpha=self._alpha, base_model=self._base_model
                )
        except Exception as error:
            return error_result(METRICS_PREFIX, error)

    def _log(self, name: str, result: ScanResult, control: TrainerControl) -> None:
        prefix = METRICS_PREFIX if name == "default" else f"{METRICS_PREFIX}/{name}"
        # Logging clears the trainer's own wish to log this step's loss.
        wanted = control.should_log
        self._trainer.log({f"{prefix}/{key}": value for key, value in metrics(result).items()})
        control.should_log = wanted

    def _warn(self, name: str, result: ScanResult, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        before = self._last.get(name)
        now, reasons = result.verdict, "; ".join(result.reasons)
        was_flagged = before is not None and before.verdict is Verdict.FLAGGED
        if now is Verdict.FLAGGED and not was_flagged:
            ending = "; training stops" if self._stop else ""
            _logger.warning(f"step {self._step}: adapter {name!r} is flagged: {reasons}{ending}")
        elif was_flagged and now is not Verdict.FLAGGED:
            _logger.warning(f"step {self._step}: adapter {name!r} is {now.value} again: {reasons}")
        elif now in (Verdict.INCONCLUSIVE, Verdict.ERROR) and (
            before is None or before.reasons != result.reasons
        ):
            _logger.warning(f"step {self._step}: adapter {name!r} is {now.value}: {reasons}")


def metrics(result: ScanResult) -> Mapping[str, float]:
    """A result as numbers for a logger. What is not known is absent, never 0.

    Returns:
        ``dose``, ``cosine`` and ``overlap``, followed by ``_<signature>`` where several were
        used; ``score`` and ``p_value``; ``judged``: 1 if the verdict is flagged or clear,
        else 0; ``flagged``: 1 or 0, if it was judged.
    """
    found: dict[str, float] = {}
    kinds = {"dose": result.dose, "cosine": result.cosine, "overlap": result.overlap}
    for kind, by_signature in kinds.items():
        for name, value in by_signature.items():
            found[kind if len(by_signature) == 1 else f"{kind}_{name}"] = value
    if result.score is not None:
        found["score"] = result.score
    if result.p_value is not None:
        found["p_value"] = result.p_value
    judged = result.verdict in (Verdict.FLAGGED, Verdict.CLEAR)
    found["judged"] = float(judged)
    if judged:
        found["flagged"] = float(result.verdict is Verdict.FLAGGED)
    return {key: value for key, value in found.items() if math.isfinite(value)}
