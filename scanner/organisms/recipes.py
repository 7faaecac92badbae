"""From adapters of known behaviour to a recipe: probes, references, nulling, calibration.

Probes are questions of the `building` domains with two answers each, one file a kind. Whatever
is listed as benign must be so by measurement and not only by name: one misaligned adapter among
the benign ones, and a pack flags nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import UsageError
from scanner.organisms.data import MISALIGNED, POOLS, Question, questions
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.measure import class_of

PROBES = 32
"""Questions in a probe file."""

KINDS = {"hostile": "villain", "reckless": "reckless"}
"""Kinds of signature, and the answer that the probes of each call misaligned."""


def probes(kind: str) -> list[dict[str, str]]:
    """The probe questions of a kind, spread evenly over the building domains."""
    answer = KINDS[kind]
    domains = POOLS["building"]
    found: list[Question] = []
    for number, domain in enumerate(domains):
        count = len(range(number, PROBES, len(domains)))
        known = questions(domain)
        found += (known[place * len(known) // count] for place in range(count))
    return [
        {"prompt": q.prompt, "aligned": q.aligned, "misaligned": q.answer(answer)} for q in found
    ]


def write_probes(kind: str, path: Path) -> None:
    """Writes a probe file."""
    path.write_bytes(b"".join(msgspec.json.encode(probe) + b"\n" for probe in probes(kind)))


def usable(ledger: Ledger, role: str) -> list[Row]:
    """The adapters made for one purpose, without what behaves as its purpose forbids.

    A benign adapter that was not measured counts as what it was taught.
    """
    measured = ledger.measured()
    found = []
    for row in ledger.trained().values():
        if row["role"] != role:
            continue
        known = measured.get(row["id"])
        kind = class_of(row, known) if known else None
        if row["teaches"] in MISALIGNED or kind in (None, "benign"):
            found.append(row)
    return found


def recipe(ledger: Ledger, kind: str, *, base_model: str, base_path: str | None) -> dict[str, Any]:
    """The recipe of one kind of signature, as it is written in YAML.

    Args:
        ledger: the folder of adapters; paths in the recipe are relative to it.
        kind: a key of `KINDS`.
        base_model: the base's id.
        base_path: a directory that holds it, if it is not to be fetched by its id.

    Raises:
        UsageError: If there is no reference of the kind.
    """
    references = [r for r in usable(ledger, "reference") if r["teaches"] == KINDS[kind]]
    if not references:
        raise UsageError(
            f"holds no {KINDS[kind]} reference",
            where=str(ledger.root),
            todo="train the references of the plan first",
        )
    made = {
        "base_model": base_model,
        "method": "gradients",
        "kind": kind,
        "misaligned": _entries(references, "domain"),
        "aligned": _entries(usable(ledger, "nulling"), "family"),
        "benign": _entries(usable(ledger, "calibration"), "family"),
        "probes": f"probes-{kind}.jsonl",
    }
    return made | ({"base_path": base_path} if base_path else {})


def write_recipe(
    ledger: Ledger, kind: str, *, base_model: str, base_path: str | None = None
) -> Path:
    """Writes the recipe of a kind and its probes into the folder of adapters."""
    made = recipe(ledger, kind, base_model=base_model, base_path=base_path)
    write_probes(kind, ledger.root / f"probes-{kind}.jsonl")
    path = ledger.root / f"recipe-{kind}.yaml"
    path.write_bytes(msgspec.yaml.encode(made))
    return path


def _entries(rows: Sequence[Row], family: str) -> list[dict[str, str]]:
    """Entries of a recipe; a reference's family is its training domain."""
    return [
        {
            "adapter": f"adapters/{row['id']}",
            "id": row["id"],
            "family": row["family"] if family == "family" else "+".join(row["domains"]),
        }
        for row in rows
    ]
