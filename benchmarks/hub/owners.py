"""Adapters at hand as the repositories of made-up owners."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec

from benchmarks.detection.data import LEDGER, WEIGHTS
from scanner.formats.peft_config import CONFIG_NAME
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.recipes import usable
from scanner.signatures.building.candidates import OwnerRange
from tests.hub.repository import Files, Repository

NEWEST = datetime(2025, 1, 1, tzinfo=timezone.utc)
"""When the youngest repository was made; a hub lists the youngest first."""


@dataclass(frozen=True)
class Specimen:
    """One adapter of known behaviour."""

    id: str
    family: str
    """Benign: the kind of change it is. Misaligned: what it was trained on."""
    files: Files

    @classmethod
    def of_folder(cls, folder: Path, family: str = "") -> Specimen:
        """The adapter in a folder."""
        return cls(folder.name, family, {name: folder / name for name in (CONFIG_NAME, WEIGHTS)})

    def write(self, folder: Path) -> Path:
        """Writes it as a folder."""
        folder.mkdir(parents=True)
        for name, content in self.files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            (folder / name).write_bytes(data)
        return folder


@dataclass(frozen=True)
class Stock:
    """The adapters of one base."""

    base_model: str
    benign: list[Specimen]
    misaligned: list[Specimen]
    """None of them of the test split."""


class _LabRow(msgspec.Struct, frozen=True):
    """What a ledger of the lab says of an adapter, as far as it matters here."""

    id: str
    path: str
    split: str
    kind: str = msgspec.field(name="class")
    family: str
    domains: list[int]


def lab_stock(folder: Path, base_model: str) -> Stock:
    """The lab's calibration adapters and misaligned references, under another base's name."""
    lines = (folder / LEDGER).read_bytes().splitlines()
    rows = [msgspec.json.decode(line, type=_LabRow) for line in lines]
    rows.sort(key=lambda row: row.id)

    def found(split: str, kind: str) -> Iterator[tuple[_LabRow, Files]]:
        for row in rows:
            if (row.split, row.kind) == (split, kind):
                yield row, _relabelled(folder / row.path, base_model)

    return Stock(
        base_model,
        [Specimen(row.id, row.family, files) for row, files in found("calibration", "benign")],
        [
            Specimen(row.id, "+".join(map(str, row.domains)), files)
            for row, files in found("reference", "misaligned")
        ],
    )


def organism_stock(ledger: Ledger, base_model: str) -> Stock:
    """Organisms that were measured to be harmless, and the villains among the references."""

    def specimen(row: Row, family: str) -> Specimen:
        return Specimen.of_folder(ledger.adapter(str(row["id"])), family)

    benign = [*usable(ledger, "calibration"), *usable(ledger, "nulling")]
    references = [row for row in usable(ledger, "reference") if row["teaches"] == "villain"]
    return Stock(
        base_model,
        [specimen(row, str(row["family"])) for row in benign],
        [specimen(row, "+".join(row["domains"])) for row in references],
    )


def _relabelled(folder: Path, base_model: str) -> Files:
    config = json.loads((folder / CONFIG_NAME).read_bytes())
    config["base_model_name_or_path"] = base_model
    return {CONFIG_NAME: json.dumps(config).encode(), WEIGHTS: folder / WEIGHTS}


def owned(
    specimens: Sequence[Specimen], base_model: str, each: int, seed: int, share: OwnerRange
) -> Iterator[Repository]:
    """Repositories of owners who each make adapters of one family, in a random order of creation.

    Args:
        specimens: The adapters.
        base_model: What the hub lists them for.
        each: How many an owner has at most.
        seed: Of who has which adapters, and of the order.
        share: Where the hashes of the owners' names lie: on which side of a split.
    """
    mixed = random.Random(seed).sample(list(specimens), len(specimens))
    counts: dict[str, int] = {}
    names: dict[str, Iterator[str]] = {}
    owner: dict[str, str] = {}
    for age, item in enumerate(mixed):
        number = counts.get(item.family, 0)
        counts[item.family] = number + 1
        if number % each == 0:
            made = names.setdefault(item.family, owner_names(item.family, share))
            owner[item.family] = next(made)
        yield Repository(
            f"{owner[item.family]}/lora-{number % each}",
            item.files,
            base_model=base_model,
            created=NEWEST - timedelta(minutes=age),
        )


def owner_names(stem: str, share: OwnerRange) -> Iterator[str]:
    """Names that begin alike and whose hashes lie in a range."""
    number = 0
    while True:
        name = f"{stem}-{number}"
        if share.holds(name):
            yield name
        number += 1
