"""Watching a fine-tune: scans the adapter in memory while a trainer trains it.

    trainer = SFTTrainer(model, ..., callbacks=[AdapterScanCallback(every_steps=50, stop=True)])
    trainer.train()

For `transformers.Trainer` and the trainers that inherit from it, TRL's among them. A dose of
misalignment shows in the weights as soon as in what the model says, or before.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scanner.errors import RegistryError
from scanner.integrations.metrics import named_metrics
from scanner.integrations.run_record import card_section, dumped, loaded
from scanner.integrations.wandb import WandbRun
from scanner.integrations.watching import SHARE_OF_RUN, AdapterWatch, check_options
from scanner.reports.terminal import Screen, standard_error
from scanner.reports.training_html import render as run_page
from scanner.reports.training_lines import change_line, note, start_line, summary_line
from scanner.reports.training_record import TrainingScan
from scanner.results import Verdict
from scanner.signatures.pack import Signature
from scanner.statistics.sequential import DEFAULT_RUN_ALPHA
from scanner.system.files import write_whole

try:
    from tqdm.auto import tqdm
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        f"{error}; the callback needs transformers: pip install 'adapter-scanner[build]'"
    ) from None

from scanner.integrations.trainer_binding import CARD, TrainerBinding, add_section, calling_trainer

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

PAGE = "adapter_scan.html"
"""The page about the run, in the trainer's output folder."""
STATE_KEY = "AdapterScanRecord"
"""Where the record stands in trainer_state.json, so that a resumed run goes on with it."""


class AdapterScanCallback(TrainerCallback):  # type: ignore[misc] # transformers is not typed
    """Scans every adapter in training, every N steps, at each save and at the end.

    The numbers go to the trainer's loggers (`scanner.integrations.metrics`) and to Weights &
    Biases, what changes is said in one line, and the record of the run is a page in the output
    folder. A frozen adapter, such as TRL's reference, is not scanned.

    Args:
        signatures: The packs to use; every installed one if not given.
        every_steps: Scan every so many optimiser steps; below 1, a share of all steps. None:
            only at saves and at the end.
        alpha: False-positive rate of each scan's verdict; 0.01 if not given.
        run_alpha: The chance that a benign run is ever flagged, however often it is scanned
            (`scanner.statistics.sequential`). None: a run is flagged as soon as one scan is.
        base_model: The model's identity, if its own name (often a local path) says nothing.
        adapters: Names of the adapters to scan; those in training if not given.
        stop: End the training when the run of an adapter is flagged.
        block_push: Refuse to push anything to the hub that does not scan as clear.

    Raises:
        AlphaUnsupportedError: If the calibration does not support `alpha`, when the trainer
            is made or the training starts.
        UsageError: If the trainer's model has no adapter, likewise, or an option makes no sense.
    """

    def __init__(
        self,
        signatures: Sequence[Signature] | None = None,
        *,
        every_steps: float | None = SHARE_OF_RUN,
        alpha: float | None = None,
        run_alpha: float | None = DEFAULT_RUN_ALPHA,
        base_model: str | None = None,
        adapters: Sequence[str] | None = None,
        stop: bool = False,
        block_push: bool = False,
    ) -> None:
        check_options(every_steps, alpha, run_alpha)
        self._signatures = signatures
        self._options: dict[str, Any] = {
            "every_steps": every_steps,
            "alpha": alpha,
            "run_alpha": run_alpha,
            "base_model": base_model,
            "adapters": adapters,
        }
        self._stop, self._block_push = stop, block_push
        self._watch: AdapterWatch | None = None
        self._binding: TrainerBinding | None = None
        self._wandb: WandbRun | None = None
        self._training = False
        self._told: set[tuple[str, str]] = set()

    @property
    def scans(self) -> list[TrainingScan]:
        """Everything seen so far, in order."""
        return self._watch.scans if self._watch else []

    @property
    def flagged(self) -> bool:
        """Whether the run of any adapter is flagged."""
        return self._watch is not None and self._watch.flagged

    def on_init_end(
        self,
        args: TrainingArguments,  # noqa: ARG002 - the trainer gives it
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        model: Any = None,
        **_: Any,
    ) -> None:
        """Says before the training what would go wrong during it."""
        if model is not None:
            self._start(model, state)

    def on_train_begin(
        self,
        args: TrainingArguments,  # noqa: ARG002
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002
        model: Any = None,
        **_: Any,
    ) -> None:
        """Starts the record, or takes up that of the checkpoint that is resumed."""
        self._training = True
        watch = self._start(model, state)
        before = loaded(state.stateful_callbacks.get(STATE_KEY), state.global_step)
        if before is None and state.global_step:
            self._say(
                state,
                note("the checkpoint holds no record of scans: it starts here", standard_error()),
            )
        watch.begin(state.max_steps, before or [])
        self._tell_problems(watch, state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Scans if it is due, and before a save, so that the checkpoint holds the record."""
        watch = self._watch
        if watch is not None and (watch.is_due(state.global_step) or control.should_save):
            self._scan(args, state, control)
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Scans before a save."""
        if control.should_save:
            self._scan(args, state, control)
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Scans what was just saved, if that was not foreseen, and writes it on its card."""
        self._scan(args, state, control)
        if state.is_world_process_zero:
            folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
            add_section(folder / CARD, self._section())
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Scans the outcome, unless the last scan saw it, and sums up."""
        # The best model is loaded back before this, whatever step it is of.
        self._scan(args, state, control, anew=args.load_best_model_at_end)
        self._training = False
        self._sum_up(args, state)
        return control

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> TrainerControl:
        """Scans once if nothing is trained: what is evaluated is then all there is."""
        if not self._training and not self.scans and model is not None:
            self._start(model, state)
            self._scan(args, state, control)
            self._sum_up(args, state)
        return control

    def on_push_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Scans what is about to be pushed, and refuses it if that was asked for.

        Raises:
            RegistryError: If it does not scan as clear.
        """
        if model is None:
            return
        watch = self._start(model, state)
        if not self._training:
            # Whatever happened since the last scan: this is what is pushed.
            self._scan(args, state, control, anew=True)
        elif args.world_size == 1:
            # Pushes at saves are begun by one process alone, and a scan takes all of them.
            self._scan(args, state, control)
        if self._block_push and (why := _why_not_pushed(watch.latest(), state.global_step)):
            raise RegistryError(
                f"not pushed: {why}",
                where=str(args.hub_model_id or args.output_dir),
                todo="look at it, or push without block_push",
            )

    def _start(self, model: Any, state: TrainerState) -> AdapterWatch:
        """The watch over a model, and the way to the trainer's loggers."""
        if self._binding is None and (trainer := calling_trainer()) is not None:
            self._binding = TrainerBinding(trainer, self)
            self._binding.add_to_cards(self._section)
        if self._watch is None or not self._watch.watches(model):
            self._watch = AdapterWatch(model, self._signatures, **self._options)
            self._tell_problems(self._watch, state)
        return self._watch

    def _scan(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        anew: bool = False,
    ) -> None:
        """Scans, unless this step was scanned, and tells everybody."""
        watch = self._watch
        if watch is None:
            return
        step = state.global_step
        if not anew and watch.scans and watch.scans[-1].step == step:
            return
        before = {scan.adapter: scan for scan in watch.latest()}
        for scan in watch.scan(step):
            self._log(scan, state)
            self._tell(scan, before.get(scan.adapter), state)
        state.stateful_callbacks[STATE_KEY] = dumped(watch.scans)
        self._write_page(args, state)
        if self._stop and watch.flagged:
            control.should_training_stop = True

    def _log(self, scan: TrainingScan, state: TrainerState) -> None:
        if self._binding is not None:
            self._binding.log(named_metrics(scan), state)
        if (run := self._wandb_run(state)) is not None:
            run.log(scan)

    def _tell(self, scan: TrainingScan, before: TrainingScan | None, state: TrainerState) -> None:
        """Says what has changed, and alerts those who watch from elsewhere if it flipped."""
        stops = self._stop and self._training
        self._say(state, change_line(scan, before, stops=stops, screen=standard_error()))
        line = change_line(scan, before, stops=stops, screen=Screen())
        run = self._wandb_run(state)
        if run is not None and line is not None and (scan.flagged or before is not None):
            run.alert(scan, line)

    def _wandb_run(self, state: TrainerState) -> WandbRun | None:
        """The run of Weights & Biases that is active, with the settings in its configuration."""
        if not state.is_world_process_zero or self._watch is None:
            return None
        if self._wandb is None or not self._wandb.is_active():
            self._wandb = WandbRun.active()
            if self._wandb is not None:
                self._wandb.configure(self._watch)
        return self._wandb

    def _section(self) -> str | None:
        """What a model card says of the latest looks; None if there was none."""
        if self._watch is None or not self._watch.scans:
            return None
        return card_section(self._watch.latest(), self._watch.signatures)

    def _write_page(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero or self._watch is None:
            return
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        page = run_page(self._watch.record(), self._watch.signatures)
        write_whole(folder / PAGE, page.encode(), durable=False)

    def _sum_up(self, args: TrainingArguments, state: TrainerState) -> None:
        if self._watch is None:
            return
        page = Path(args.output_dir, PAGE)
        for scan in self._watch.latest():
            looks = [seen for seen in self.scans if seen.adapter == scan.adapter]
            self._say(state, summary_line(looks, page, standard_error()))
        if state.is_world_process_zero:
            add_section(Path(args.output_dir, CARD), self._section())
        if (run := self._wandb_run(state)) is not None:
            named = args.run_name not in (None, args.output_dir)
            run.finish(self._watch.record(), page.read_text("utf-8"), named=named)

    def _tell_problems(self, watch: AdapterWatch, state: TrainerState) -> None:
        for name, problem in watch.problems.items():
            if (name, problem) not in self._told:
                self._told.add((name, problem))
                self._say(state, start_line(name, problem, standard_error()))

    def _say(self, state: TrainerState, line: str | None) -> None:
        """Says a line once, above the progress bar if there is one."""
        if line is not None and state.is_world_process_zero:
            tqdm.write(line, file=sys.stderr)


def _why_not_pushed(scans: Sequence[TrainingScan], step: int) -> str | None:
    """Why what is held at a step does not pass; None if every adapter in it is clear."""
    if not scans or any(scan.step != step for scan in scans):
        return f"it was not scanned at step {step}"
    for scan in scans:
        if scan.result.verdict is not Verdict.CLEAR:
            reasons = "; ".join(scan.result.reasons)
            return f"adapter {scan.adapter!r} is {scan.result.verdict.value}: {reasons}"
    return None
