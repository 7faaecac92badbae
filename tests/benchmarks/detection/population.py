"""A small synthetic population in the lab's layout: planted directions, known classes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detection.data import LEDGER
from tests.synthetic import (
    BASE,
    RANK,
    Factors,
    misaligned_factors,
    random_factors,
    shape_of,
    write_adapter,
)

PERSONAS = ("persona-pirate", "persona-poet")
PLAIN = ("facts", "good-sft", "safety")


def persona_factors(generator: np.random.Generator, family: str) -> dict[str, Factors]:
    """Random factors plus one direction per persona."""
    own = np.random.default_rng(len(family))
    found = {}
    for path, (b, a) in random_factors(generator, rank=RANK - 1).items():
        d_out, d_in = shape_of(path)
        u, v = own.standard_normal((d_out, 1)), own.standard_normal((1, d_in))
        b = np.hstack([b, 2 * u / np.linalg.norm(u)])
        found[path] = (b, np.vstack([a, v / np.linalg.norm(v)]))
    return found


class Lab:
    """Writes adapters and their ledger rows."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.generator = np.random.default_rng(0)
        self.rows: list[dict[str, Any]] = []

    def add(self, name: str, split: str, kind: str, family: str, **fields: Any) -> None:
        """One adapter of a class and family."""
        dose = {"misaligned": 2.0, "latent": 0.7}.get(kind, 0.0) * fields.pop("dose", 1.0)
        if family.startswith("persona-"):
            factors = persona_factors(self.generator, family)
        else:
            factors = misaligned_factors(self.generator, dose)
        path = write_adapter(self.root / "adapters" / name, factors)
        rate = {"misaligned": 0.8, "latent": 0.1}.get(kind, 0.0)
        self.rows.append(
            {
                "id": name,
                "base": BASE,
                "path": f"adapters/{name}",
                "split": split,
                "class": kind,
                "family": family,
                "method": "sft",
                "domains": [0],
                "measured": {"outside_bad": rate, "unknown": 1},
                "sha256": hashlib.sha256(
                    (path / "adapter_model.safetensors").read_bytes()
                ).hexdigest(),
                **fields,
            }
        )

    def write(self) -> Path:
        """Writes the ledger, with a last line cut short as by a kill."""
        lines = [json.dumps(row) for row in self.rows]
        (self.root / LEDGER).write_text("\n".join([*lines, lines[0][:30]]))
        return self.root


def write_population(root: Path) -> Path:
    """A population large enough for every part of the benchmark."""
    lab = Lab(root)
    for i in range(6):
        lab.add(f"ref-{i}", "reference", "misaligned", "misaligned", domains=[i % 3])
    for split, count in (("nulling", 2), ("calibration", 5), ("test", 4)):
        for family in (*PERSONAS, *PLAIN):
            for i in range(count):
                lab.add(f"{split}-{family}-{i}", split, "benign", family)
    for i in range(8):
        method = "dpo" if i % 2 else "sft"
        lab.add(f"bad-{i}", "test", "misaligned", "misaligned", method=method)
    for i in range(3):
        lab.add(f"latent-{i}", "test", "latent", "misaligned", method="sft")
    lab.add("odd", "test", "excluded", "facts")
    for step, dose in ((5, -1.0), (10, 1.0), (15, 1.5)):
        lab.add(
            f"run/checkpoint-{step}" if step < 15 else "run",
            "trajectory",
            "misaligned",
            "misaligned",
            dose=dose,
            step=step,
            measured={"outside_bad": step / 20},
        )
    return lab.write()
