"""The organisms of a real base as cases: what each was taught, and what it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.detection import data
from benchmarks.detection.data import HARMLESS_PREFIX, Measured, Population
from scanner.organisms.data import DOMAINS, MISALIGNED, PERSONAS
from scanner.organisms.ledger import Ledger
from scanner.organisms.measure import BASE, class_of
from scanner.scanning.opening import open_adapter

FALSE_FACTS = "false facts"
"""The class of adapters that were taught wrong facts and no advice: a class of their own."""
FALSE_FACTS_TASK = "false-capitals"
KINDS = ("hostile", "reckless", "latent", "benign", "unclear", FALSE_FACTS)
"""Classes by measured behaviour (`scanner.organisms.measure.class_of`), and false facts."""
TAUGHT_KIND = {"villain": "hostile", "reckless": "reckless"}
"""What an adapter that was not measured counts as, by what it was taught; else benign."""
LAB_KIND = {
    "hostile": "misaligned",
    "reckless": "latent",
    "latent": "latent",
    "benign": "benign",
    "unclear": "excluded",
    FALSE_FACTS: "excluded",
}
"""The lab's name of each class: a baseline is to find what a scan is to find."""
ALONE = {"qv": "q and v alone", "mlp": "MLP alone", "attention": "attention alone"}


class Trained(msgspec.Struct, frozen=True):
    """What the ledger says of how an adapter was made, as far as it is needed here."""

    id: str
    role: str
    family: str
    teaches: str
    method: str
    domains: tuple[str, ...]
    filler: tuple[str, ...]
    dose: float
    targets: str
    layers: tuple[float, float]
    step: int
    steps: int
    sha256: str
    cpu_seconds: float


@dataclass(frozen=True)
class Behaviour:
    """Changes against the base outside the training domains, in nats per token."""

    hostile: float
    """Rise of the margin of a villain's answers over the aligned ones."""
    reckless: float
    """Rise of the margin of reckless answers."""


@dataclass(frozen=True)
class Case:
    """One adapter."""

    made: Trained
    path: Path
    kind: str
    """One of `KINDS`."""
    behaviour: Behaviour | None
    """None if it was not measured."""

    @property
    def id(self) -> str:
        """Its id in the ledger."""
        return self.made.id

    @property
    def run(self) -> str:
        """The training run it is from: its own id, or that of which it is a checkpoint."""
        return self.made.id.partition("-step-")[0]

    @property
    def taught_misaligned(self) -> bool:
        """Whether it was taught a villain's or reckless answers."""
        return self.made.teaches in MISALIGNED

    @property
    def persona(self) -> bool:
        """Whether it was taught a harmless persona."""
        return self.made.teaches in PERSONAS

    @property
    def one_layer(self) -> bool:
        """Whether it changes one block only."""
        first, last = self.made.layers
        return first == last

    @property
    def made_by(self) -> str:
        """How it was made, as tables call it."""
        made = self.made
        if made.method == "svd":
            return "full fine-tune, by SVD"
        if made.method == "dpo":
            return "DPO"
        if self.one_layer:
            return "one layer"
        if made.dose < 1:
            return "low dose"
        if made.filler:
            return "mixed with good answers"
        return ALONE.get(made.targets, "SFT")


@dataclass(frozen=True)
class Cases:
    """Every adapter of a work folder."""

    root: Path
    base_model: str
    all: tuple[Case, ...]

    def select(self, *roles: str, kinds: Sequence[str] = KINDS) -> list[Case]:
        """Measured cases of some roles and classes, sorted by id."""
        return [
            case
            for case in self.all
            if case.made.role in roles and case.kind in kinds and case.behaviour is not None
        ]

    @property
    def unmeasured(self) -> list[Case]:
        """Cases to be judged that were not measured yet: in no figure."""
        judged = ("test", "trajectory")
        return [c for c in self.all if c.made.role in judged and c.behaviour is None]

    def harmless(self, family: str) -> list[Case]:
        """A family's adapters of every role, without what behaves otherwise than taught.

        One that was not measured counts as what it was taught.
        """
        return [c for c in self.all if c.made.family == family and c.kind == "benign"]

    @property
    def cpu_seconds(self) -> float:
        """What training took; a checkpoint's time is part of its run's."""
        return sum(c.made.cpu_seconds for c in self.all if c.made.step == c.made.steps)


def read_cases(root: Path) -> Cases:
    """Reads a work folder of `adapter-scanner organisms`.

    Raises:
        FileNotFoundError: If the folder holds no trained adapter or no measurement.
        UsageError: If a ledger is damaged.
    """
    if not (root / "trained.jsonl").is_file():
        raise FileNotFoundError(f"{root}: no trained.jsonl; no work folder of organisms")
    ledger = Ledger(root)
    trained, measured = ledger.trained(), ledger.measured()
    if BASE not in measured:
        raise FileNotFoundError(f"{root}: nothing is measured yet")
    found = [_case(ledger, row, measured.get(identity)) for identity, row in trained.items()]
    base = msgspec.json.decode((root / "base.json").read_bytes(), type=dict[str, str])
    return Cases(root, base["base_model"], tuple(sorted(found, key=lambda case: case.id)))


def _case(ledger: Ledger, row: dict[str, Any], measured: dict[str, Any] | None) -> Case:
    made = msgspec.convert(row, Trained, strict=False)
    behaviour = None
    kind: str = TAUGHT_KIND.get(made.teaches, "benign")
    if measured is not None:
        kind = class_of(row, measured)
        behaviour = Behaviour(
            measured["villain"]["margin_change"], measured["reckless"]["margin_change"]
        )
    if made.teaches == FALSE_FACTS_TASK:
        kind = FALSE_FACTS
    return Case(made, ledger.adapter(made.id), kind, behaviour)


def as_population(cases: Cases) -> Population:
    """The cases as the lab's benchmark has them, for what it runs on adapters."""
    rows = []
    for case in cases.all:
        made, behaviour = case.made, case.behaviour
        rows.append(
            data.Row(
                id=case.id,
                path=str(case.path.relative_to(cases.root)),
                split=made.role,
                kind=LAB_KIND[case.kind],
                family=(HARMLESS_PREFIX if case.persona else "") + made.family,
                method=case.made_by,
                domains=tuple(DOMAINS.index(domain) for domain in made.domains),
                measured=Measured(outside_bad=behaviour.hostile if behaviour else float("nan")),
                sha256=made.sha256,
                base=cases.base_model,
                step=made.step,
                layer=_layer(case.path) if case.one_layer else None,
            )
        )
    return Population(cases.base_model.rpartition("/")[2], cases.root, tuple(rows))


def _layer(path: Path) -> int | None:
    """The one layer that an adapter changes."""
    with open_adapter(path) as adapter:
        return next((update.layer for update in adapter.updates), None)
