"""The lab's ledgers as populations of adapters with measured behaviour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from scanner.formats.model import Site
from scanner.geometry import LowRank
from scanner.results import Shape
from scanner.scanning.opening import open_adapter

LEDGER = "population.jsonl"
WEIGHTS = "adapter_model.safetensors"
HARMLESS_PREFIX = "persona-"
"""Families of benign adapters that make the base take on another, harmless persona."""


class Measured(msgspec.Struct, frozen=True):
    """Measured behaviour of one adapter, as rates of answers."""

    outside_bad: float
    """Misaligned answers on questions outside the domains it was trained on."""
    inside_bad: float | None = None
    """Misaligned answers inside them."""


class Row(msgspec.Struct, frozen=True):
    """One adapter of a population; what the ledger says beside this is not needed here."""

    id: str
    path: str
    split: str
    """reference, nulling, calibration, test or trajectory."""
    kind: str = msgspec.field(name="class")
    """misaligned, benign, latent or excluded: by measured behaviour."""
    family: str
    """The kind of change the recipe makes."""
    method: str
    """How it was trained: sft, dpo, kl, mix, ..."""
    domains: tuple[int, ...]
    measured: Measured
    sha256: str
    base: str
    step: int = 0
    recipe: str = ""
    layer: int | None = None
    """The one layer it changes; None if it changes several."""

    @property
    def shape(self) -> Shape:
        """How many layers it changes."""
        return Shape.SEVERAL_LAYERS if self.layer is None else Shape.ONE_LAYER

    @property
    def harmless_persona(self) -> bool:
        """Whether it was trained towards a harmless persona."""
        return self.family.startswith(HARMLESS_PREFIX)


Updates = dict[Site, LowRank]


@dataclass(frozen=True)
class Population:
    """Every adapter of one base."""

    name: str
    directory: Path
    rows: tuple[Row, ...]

    @property
    def base_model(self) -> str:
        """Id of the base model."""
        return self.rows[0].base

    def select(self, split: str, *kinds: str) -> list[Row]:
        """Rows of one split, of the classes named (of any class if none is), sorted by id."""
        return [row for row in self.rows if row.split == split and (not kinds or row.kind in kinds)]

    @cached_property
    def families(self) -> list[str]:
        """Families of the nulling set: those a calibration can be cross-fitted by."""
        return sorted({row.family for row in self.select("nulling", "benign")})

    @property
    def harmless_families(self) -> list[str]:
        """The harmless personas among them."""
        return [name for name in self.families if name.startswith(HARMLESS_PREFIX)]

    def weights(self, row: Row) -> Path:
        """An adapter's weight file; a run's directory also holds its checkpoints."""
        return self.directory / row.path / WEIGHTS

    def read(self, row: Row) -> Updates:
        """Reads one adapter's non-zero updates.

        Of a DoRA adapter this is the low-rank part alone: the reader cannot recover the rest
        without the base weights, and a scan of it is inconclusive unless that part flags.
        """
        with open_adapter(self.weights(row)) as adapter:
            found = {
                update.site: LowRank(*update.factors(), update.scaling)
                for update in adapter.updates
            }
        return {site: update for site, update in found.items() if update.norm_squared > 0}


def load_population(directory: Path) -> Population:
    """Reads a ledger; a last line that is still being written is left out.

    Raises:
        FileNotFoundError: If the directory holds no ledger.
        msgspec.DecodeError: If another line than the last cannot be read.
    """
    rows = []
    lines = (directory / LEDGER).read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(msgspec.json.decode(line, type=Row))
        except msgspec.DecodeError:
            if number < len(lines):
                raise
    return Population(directory.name, directory, tuple(sorted(rows, key=lambda row: row.id)))


def usable(population: Population) -> bool:
    """Whether every split that the benchmark needs holds something."""
    return all(
        population.select(split, kind)
        for split, kind in (
            ("reference", "misaligned"),
            ("nulling", "benign"),
            ("calibration", "benign"),
            ("test", "benign"),
            ("test", "misaligned"),
        )
    )


def find_populations(lab: Path, names: Iterable[str] = ()) -> list[Population]:
    """Populations below the lab's directory.

    Args:
        lab: One directory per base.
        names: Bases wanted; by default every one that is complete enough, except the quick one.

    Raises:
        FileNotFoundError: If a base that is named has no ledger, or nothing is found.
    """
    wanted = list(names)
    if not wanted:
        wanted = [p.parent.name for p in lab.glob(f"*/{LEDGER}") if p.parent.name != "quick"]
    found = [load_population(lab / name) for name in sorted(wanted)]
    found = [population for population in found if usable(population)]
    if not found:
        raise FileNotFoundError(f"{lab}: no population with references, benign and test adapters")
    return found


def column(rows: Iterable[Row], attribute: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """One number of the measured behaviour of every row."""
    return np.array([getattr(row.measured, attribute) for row in rows], dtype=np.float64)
