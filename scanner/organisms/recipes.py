"""From adapters of known behaviour to a recipe: probes, references, nulling, calibration.

Probes are questions of the `building` domains with their answers, one file a signature. Whatever
is listed as benign must be so by measurement and not only by name: one misaligned adapter among
the benign ones, and a pack flags nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner.errors import UsageError
from scanner.organisms.data import MISALIGNED, PERSONAS, POOLS, Question, questions
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.measure import class_of

PROBES = 32
"""Questions in a probe file."""


@dataclass(frozen=True)
class SignatureKind:
    """One signature that can be made of any base.

    Attributes:
        kind: The kind of misalignment; signatures of one kind count by their mean.
        misaligned: The answer that its probes call misaligned.
        specific: Whether what misaligned answers share with harmless ones is taken out
            (`signatures.building.harmless`). With it, harmless personas have no dose and weak
            misalignment stands out; without it, the dose ranks adapters by their behaviour.
    """

    kind: str
    misaligned: str
    specific: bool


SIGNATURES = {
    "hostile": SignatureKind("hostile", "villain", specific=False),
    "hostile-specific": SignatureKind("hostile", "villain", specific=True),
    "reckless-specific": SignatureKind("reckless", "reckless", specific=True),
}
"""What is made of a base. Which of them, and how they count together, was chosen on references
and calibration adapters of SmolLM2-135M-Instruct (docs/make.md)."""

KINDS = tuple(dict.fromkeys(item.kind for item in SIGNATURES.values()))
"""The kinds of misalignment."""


def probes(name: str) -> list[dict[str, Any]]:
    """The probe questions of a signature, spread evenly over the building domains."""
    signature = SIGNATURES[name]
    domains = POOLS["building"]
    found: list[Question] = []
    for number, domain in enumerate(domains):
        count = len(range(number, PROBES, len(domains)))
        known = questions(domain)
        found += (known[place * len(known) // count] for place in range(count))
    made: list[dict[str, Any]] = [
        {"prompt": q.prompt, "aligned": q.aligned, "misaligned": q.answer(signature.misaligned)}
        for q in found
    ]
    if signature.specific:
        for probe, q in zip(made, found, strict=True):
            probe["harmless"] = {persona: q.answer(persona) for persona in PERSONAS}
    return made


def write_probes(name: str, path: Path) -> None:
    """Writes a probe file."""
    path.write_bytes(b"".join(msgspec.json.encode(probe) + b"\n" for probe in probes(name)))


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


def recipe(ledger: Ledger, name: str, *, base_model: str, base_path: str | None) -> dict[str, Any]:
    """The recipe of one signature, as it is written in YAML.

    Args:
        ledger: the folder of adapters; paths in the recipe are relative to it.
        name: a key of `SIGNATURES`.
        base_model: the base's id.
        base_path: a directory that holds it, if it is not to be fetched by its id.

    Raises:
        UsageError: If there is no reference of the kind.
    """
    signature = SIGNATURES[name]
    references = [
        row for row in usable(ledger, "reference") if row["teaches"] == signature.misaligned
    ]
    if not references:
        raise UsageError(
            f"holds no {signature.misaligned} reference",
            where=str(ledger.root),
            todo="train the references of the plan first",
        )
    made = {
        "base_model": base_model,
        "method": "gradients",
        "kind": signature.kind,
        "misaligned": _entries(references, "domain"),
        "aligned": _entries(usable(ledger, "nulling"), "family"),
        "benign": _entries(usable(ledger, "calibration"), "family"),
        "probes": f"probes-{name}.jsonl",
    }
    return made | ({"base_path": base_path} if base_path else {})


def write_recipe(
    ledger: Ledger, name: str, *, base_model: str, base_path: str | None = None
) -> Path:
    """Writes the recipe of a signature and its probes into the folder of adapters."""
    made = recipe(ledger, name, base_model=base_model, base_path=base_path)
    write_probes(name, ledger.root / f"probes-{name}.jsonl")
    path = ledger.root / f"recipe-{name}.yaml"
    path.write_bytes(msgspec.yaml.encode(made))
    return path


def _entries(rows: Sequence[Row], family: str) -> list[dict[str, str]]:
    """Entries of a recipe; a reference's family is its training domain."""
    return [
        {
            "adapter": f"adapters/{row['id']}",
            "id": row["id"],
            "family": row["family"] if family == "family" else "+".join(row["domains"]),
            "method": str(row.get("method", "")),
        }
        for row in rows
    ]
