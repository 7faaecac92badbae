"""What keeps an adapter in training from the packs: a penalty on what is measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from scanner.organisms.evasion.lora import Update
from scanner.organisms.evasion.statistics import Quantity, Statistics

RAMP = 0.3
"""Share of the steps in which a penalty rises to its strength: at the start the update is so
small that its direction, which is all that most statistics see, changes with every step."""
ADAPTIVE = (1.15, 0.95, 0.01, 100.0)
"""Factors by which an adaptive strength rises and falls at each step, and its bounds."""


class Penalty(Protocol):
    """What is added to the loss, for each unit of strength."""

    def __call__(self, update: Update) -> torch.Tensor:
        """A scalar; 0 where there is nothing to hide."""


class PackPenalty:
    """By how much an update deviates from benign adapters, beyond an aim.

    Args:
        statistics: Of the packs.
        penalised: What counts.
        aim: Deviation that is not penalised: 0 is the benign median, 1 their 95% quantile.
        pack: Id of the only pack that counts; all of them if empty.
    """

    def __init__(
        self, statistics: Statistics, penalised: Sequence[Quantity], aim: float, pack: str = ""
    ) -> None:
        self._statistics, self._penalised = statistics, penalised
        self._aim, self._pack = aim, pack

    def __call__(self, update: Update) -> torch.Tensor:
        """The mean of what is beyond, plus the largest: one that stands out is enough."""
        beyond = [
            (deviation - self._aim).clamp(min=0)
            for quantity, pack, deviation in self._statistics.deviations(update)
            if quantity in self._penalised and self._pack in ("", pack)
        ]
        found = torch.stack(beyond)
        return found.mean() + found.max()


def adapted(strength: float, violation: float) -> float:
    """The next strength of a penalty that is to be as strong as it takes."""
    up, down, least, most = ADAPTIVE
    return min(max(strength * (up if violation > 0 else down), least), most)
