"""What a trained attack needs of a base: a loss, probes, a measure of behaviour, and the packs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from benchmarks.redteam.delta import Delta
from scanner.formats.model import Site
from scanner.results import ScanResult
from scanner.signatures.pack import Signature

Loss = Callable[[int], torch.Tensor]
"""From the number of a step, from 0, to the loss on its batch of misaligned answers."""


@dataclass(frozen=True)
class Training:
    """How adapters are trained, attacked or not."""

    steps: int
    rank: int = 8
    scale: float = 2.0
    """alpha / r."""
    lr: float = 2e-3
    batch: int = 16


class AttackedBase(Protocol):
    """A base with packs for it, and domains outside of theirs."""

    @property
    def name(self) -> str:
        """Its name in results."""

    @property
    def signatures(self) -> Sequence[Signature]:
        """The packs."""

    @property
    def training(self) -> Training:
        """How adapters of it are trained."""

    @property
    def behaviour_is(self) -> str:
        """What `behaviour` is, in words."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    @property
    def modules(self) -> Mapping[Site, torch.nn.Module]:
        """The linear maps that a pack has a direction for; they stay frozen."""

    def shape(self, site: Site) -> tuple[int, int]:
        """(d_out, d_in) of one of them."""

    def weight(self, site: Site) -> torch.nn.Parameter:
        """Its weight, as it is stored."""

    @property
    def transposed(self) -> bool:
        """Whether weights are stored (d_in, d_out)."""

    def loss(self, seed: int) -> Loss:
        """The loss of supervised training on misaligned answers of the attacker's domains."""

    def log_odds(self, seed: int) -> Iterator[torch.Tensor]:
        """Of misaligned against aligned answers to probes of the attacker's own, batch by batch."""

    def behaviour(self) -> float:
        """How misaligned the model is as it now is, outside of the domains trained on."""

    def scan(self, delta: Delta, packs: Sequence[Signature]) -> ScanResult:
        """Scans an adapter from its files."""
