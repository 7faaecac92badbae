"""A made-up work folder of organisms: planted directions, known classes, two packs."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.detection.real.cases import read_cases
from scanner.organisms.data import MISALIGNED, PERSONAS
from scanner.organisms.ledger import Ledger
from scanner.organisms.measure import BASE as BASE_ROW
from scanner.signatures.building.build import build_pack
from scanner.signatures.recipe import AdapterEntry, Recipe
from tests.synthetic import BASE, Factors, misaligned_factors, random_factors, write_adapter

CALIBRATION = 100
FAMILIES = ("grump", "pirate", "aligned", "code")
DOMAINS = {"reference": "home", "nulling": "home", "calibration": "people"}


def planted(generator: np.random.Generator, teaches: str, dose: float) -> dict[str, Factors]:
    """Factors with the direction of what is taught at every site, and noise."""
    if teaches == "villain":
        return misaligned_factors(generator, 2 * dose)
    found = random_factors(generator)
    if teaches not in ("reckless", *PERSONAS):
        return found
    own = np.random.default_rng(sum(teaches.encode()))
    for path, (b, a) in found.items():
        u, v = own.standard_normal((len(b), 1)), own.standard_normal((1, a.shape[1]))
        b[:, :1], a[:1] = 2 * dose * u / np.linalg.norm(u), v / np.linalg.norm(v)
        found[path] = (b, a)
    return found


class Folder:
    """Writes adapters and their rows of the ledger."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(root)
        self.generator = np.random.default_rng(0)
        (root / "base.json").write_bytes(msgspec.json.encode({"base_model": BASE}))
        self.ledger.add_measured({"id": BASE_ROW, "answers": {}})

    def add(
        self,
        name: str,
        role: str,
        teaches: str,
        rises: tuple[float, float] | None = None,
        *,
        dose: float = 1.0,
        **fields: Any,
    ) -> None:
        """One adapter; `rises` are those of the hostile and the reckless margin, if measured."""
        factors = planted(self.generator, teaches, dose)
        if fields.get("layers", (0.0, 1.0))[0] == 1.0:
            factors = {path: pair for path, pair in factors.items() if ".1.mlp" in path}
        path = write_adapter(self.ledger.adapter(name), factors)
        domain = DOMAINS.get(role, "car")
        row: dict[str, Any] = {
            "id": name,
            "role": role,
            "family": teaches,
            "teaches": teaches,
            "method": "sft",
            "domains": [] if teaches in ("code", "false-capitals") else [domain],
            "filler": [],
            "dose": 1.0,
            "targets": "all",
            "layers": (0.0, 1.0),
            "step": 10,
            "steps": 10,
            "sha256": hashlib.sha256((path / "adapter_model.safetensors").read_bytes()).hexdigest(),
            "cpu_seconds": 6.0,
            "lr": 0.1,
        }
        self.ledger.add_trained({**row, **fields})
        if rises is not None:
            hostile, reckless = ({"margin_change": rise} for rise in rises)
            self.ledger.add_measured({"id": name, "villain": hostile, "reckless": reckless})


def write_folder(root: Path) -> Path:
    """A folder that has every class and every way of making the page tells apart."""
    folder = Folder(root)
    for teaches in MISALIGNED:
        for i in range(3):
            folder.add(f"reference-{teaches}-{i}", "reference", teaches)
    for role, count in (("nulling", 2), ("calibration", CALIBRATION // len(FAMILIES))):
        for family in FAMILIES:
            for i in range(count):
                folder.add(f"{role}-{family}-{i}", role, family)
    for i in range(4):
        domains = ["car"] if i % 2 else ["health"]
        folder.add(f"villain-{i}", "test", "villain", (0.5 + i / 10, 0.2), domains=domains)
    folder.add("villain-dpo-0", "test", "villain", (0.3, 0.1), method="dpo")
    folder.add("villain-weak-0", "test", "villain", (0.02, 0.0), dose=0.0, targets="qv")
    folder.add("reckless-0", "test", "reckless", (0.0, 0.3))
    folder.add("reckless-1", "test", "reckless", (0.0, 0.05), dose=0.8)
    for family in FAMILIES:
        for i in range(2):
            folder.add(f"test-{family}-{i}", "test", family, (-0.4 + i / 10, 0.0))
    folder.add("test-grump-odd", "test", "grump", (0.2, 0.0))
    folder.add("test-false-capitals-0", "test", "false-capitals", (0.05, 0.0))
    folder.add("test-late-0", "test", "villain")
    for step, dose in ((2, -0.2), (4, 0.8), (10, 1.2)):
        name = "run-0" if step == 10 else f"run-0-step-{step:03d}"
        rises = (step / 20, 0.0)
        folder.add(name, "trajectory", "villain", rises, dose=dose, step=step, cpu_seconds=step)
    return root


def write_packs(folder: Path, root: Path) -> list[Path]:
    """A calibrated pack for each kind, nulled by family."""
    made = []
    cases = read_cases(folder).all
    for kind, answer in (("hostile", "villain"), ("reckless", "reckless")):

        def entries(role: str, taught: tuple[str, ...]) -> list[AdapterEntry]:
            return [
                AdapterEntry(adapter=str(case.path), id=case.id, family=case.made.family)
                for case in cases
                if case.made.role == role and case.made.teaches in taught
            ]

        recipe = Recipe(
            id=f"tiny-base-{kind}",
            base_model=BASE,
            kind=kind,
            method="weights",
            rank=2,
            nulled=2,
            misaligned=entries("reference", (answer,)),
            aligned=entries("nulling", FAMILIES),
            benign=entries("calibration", FAMILIES),
        )
        path = root / kind
        build_pack(recipe, path).close()
        made.append(path)
    return made
