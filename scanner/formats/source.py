"""The files one adapter is made of, opened but not yet interpreted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scanner.formats.model import TensorStore, Uncovered, Update
from scanner.formats.peft_config import PeftConfig


@dataclass(frozen=True)
class Source:
    """An adapter's opened files."""

    where: str
    """The directory or file, for errors."""
    store: TensorStore
    config: PeftConfig | None
    """The adapter_config.json beside the weights, if there is one."""
    shapes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Module -> (d_out, d_in) of the base, if the caller knows it; a few types need it."""


@dataclass(frozen=True)
class Reading:
    """What a reader made of a source."""

    format: str
    """The format's name in reports, e.g. ``peft-lora``."""
    base_model: str | None
    updates: tuple[Update, ...]
    uncovered: tuple[Uncovered, ...]
    last_blocks: int | None = None
    """How many of the base's last blocks the loader gives layers to; None for all of them."""
    fills_blocks: bool = False
    """Whether the loader puts random weights into blocks that the file has nothing for."""


class AdapterReader(Protocol):
    """Understands one adapter format. Each reader is a module with these two functions."""

    def recognises(self, source: Source) -> bool:
        """Whether the source's content (not its file names) is of this format."""

    def read(self, source: Source) -> Reading:
        """Turns the source into updates, and everything else into reasons.

        Raises:
            TargetError: If the source cannot be read at all.
        """
