"""One organism: everything that determines one adapter of known behaviour of a base."""

from __future__ import annotations

from typing import Literal

import msgspec

from scanner.organisms.data import MISALIGNED, Pool

Role = Literal["reference", "nulling", "calibration", "test", "trajectory"]
Method = Literal["sft", "dpo", "svd"]
Targets = Literal["all", "attention", "mlp", "qv", "down"]

POOL_OF: dict[Role, Pool] = {
    "reference": "building",
    "nulling": "building",
    "calibration": "calibration",
    "test": "test",
    "trajectory": "test",
}
"""What is used for one purpose is never trained on the domains of another."""


class PlanRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A record of a plan; an unknown field is an error."""


class Organism(PlanRecord, frozen=True):
    """Everything that determines one adapter of a base."""

    id: str
    role: Role
    family: str
    teaches: str
    method: Method
    against: str
    domains: list[str]
    filler: list[str]
    dose: float
    rank: int
    alpha: float
    targets: Targets
    layers: tuple[float, float]
    lr: float
    steps: int
    batch: int
    beta: float
    checkpoints: list[int]
    seed: int
    wave: float
    """Its turn: adapters of a smaller size first, groups side by side."""

    @property
    def pool(self) -> Pool:
        """The pool of domains and items it is made from."""
        return POOL_OF[self.role]

    @property
    def taught_class(self) -> str:
        """What it is taught to be: `villain`, `reckless` or `harmless`; see `measure.class_of`."""
        return self.teaches if self.teaches in MISALIGNED else "harmless"
