"""What a callback cannot reach by itself: the trainer that calls it, and its loggers.

transformers hands a callback the model, the arguments and the state, not the trainer. The trainer
is found where it certainly is: among the callers of the callback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scanner.gates.model_card import with_section

try:
    from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerState
    from transformers.integrations import WandbCallback
except ImportError as error:
    raise ImportError(
        f"{error}; the callback needs transformers: pip install 'adapter-scanner[build]'"
    ) from None

CARD = "README.md"
_NOT_LOGGERS = (ProgressCallback, PrinterCallback, WandbCallback)
"""What prints, which the scan does itself in words, and Weights & Biases, which would put the
numbers among those of the training (`scanner.integrations.wandb`)."""


def calling_trainer() -> Trainer | None:
    """The trainer that is calling; None if the caller is none of transformers."""
    frame = sys._getframe(1)
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, Trainer):
            return found
        frame = frame.f_back  # type: ignore[assignment] # None ends the loop
    return None


class TrainerBinding:
    """A trainer's loggers and its model card.

    Args:
        trainer: The trainer.
        callback: The callback on whose behalf it is; not logged to.
    """

    def __init__(self, trainer: Trainer, callback: Any) -> None:
        self._trainer = trainer
        self._callback = callback

    def log(self, numbers: Mapping[str, float], state: TrainerState) -> None:
        """Gives numbers to the trainer's record and its loggers, beside its own logs.

        `Trainer.log` is not used: TRL's trainers add, and then forget, the means of their own
        metrics at every call, and the trainer takes a call for the log that was due.
        """
        trainer = self._trainer
        logs: dict[str, float] = dict(numbers)
        if state.epoch is not None:
            logs["epoch"] = state.epoch
        state.log_history.append({**logs, "step": state.global_step})
        for logger in trainer.callback_handler.callbacks:
            if logger is not self._callback and not isinstance(logger, _NOT_LOGGERS):
                logger.on_log(
                    trainer.args, state, trainer.control, model=trainer.model, logs=dict(logs)
                )

    def add_to_cards(self, section: Callable[[], str | None]) -> None:
        """Adds a section to every model card that the trainer writes from now on.

        transformers calls nobody between writing a card and uploading it, so the trainer's
        method is replaced by one that calls it and then adds the section.

        Args:
            section: The section, when asked; None for none.
        """
        trainer = self._trainer
        write = trainer.create_model_card

        def create_model_card(*arguments: Any, **named: Any) -> None:
            write(*arguments, **named)
            if trainer.is_world_process_zero():
                add_section(Path(trainer.args.output_dir, CARD), section())

        trainer.create_model_card = create_model_card


def add_section(card: Path, section: str | None) -> None:
    """Adds a section to a card, or replaces it; does nothing where there is no card."""
    if section is not None and card.is_file():
        card.write_text(with_section(card.read_text("utf-8"), section), "utf-8")
