"""Packs that the defender keeps to himself: gradients over probes that only he can draw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from benchmarks.organisms.bases import CHECKPOINTS, load_base_spec
from benchmarks.organisms.probes import write_private_probes
from benchmarks.packs import entries, ledger
from scanner.signatures.building.build import build_pack
from scanner.signatures.manifest import MANIFEST_NAME
from scanner.signatures.recipe import AdapterEntry, Recipe

PROBES = 180
"""Of each private pack: as many as those that ship are made from."""
RANK = 8
DEFENDER = (71, 72, 73)
"""Seeds of the defender's private packs; nothing but that they are his own is said by them."""
ON_PATH = 74
"""Seed of the one that is taken along the path to the references."""
ATTACKER = 901
"""Seed of the pack that the attacker makes in the same way, for want of the defender's."""
ATTACKER_ON_PATH = 902
"""Seed of his pack along the path. He is given the defender's references for it."""
NULLED = 8
"""Directions that harmless adapters share and that are nulled, where there are some to null with:
as many as in the gradients packs that ship for two bases of three."""
PATH_STEPS = 4
"""Points on the path from the base to references, or to evading adapters."""


def private_pack(
    base: str, lab: Path, cache: Path, seed: int, path_steps: int = 0, nulled: bool = False
) -> Path:
    """Gradients over private probes, built if the pack is not there yet.

    Args:
        base: Of the lab.
        lab: The lab's root, whose references set the unit and whose calibration adapters count.
        cache: Where packs are kept.
        seed: Of the probes.
        path_steps: Points on the path to the lab's references; 0 is the base alone.
        nulled: Whether it is nulled with the lab's nulling set.

    Returns:
        The pack.
    """
    probes = cache / base / f"probes-{seed}.jsonl"
    write_private_probes(load_base_spec(base), probes, seed, PROBES)
    fields: dict[str, object] = {"probes": str(probes.resolve()), "path_steps": path_steps}
    if nulled:
        fields |= {"nulled": NULLED, "aligned": nulling_set(base, lab)}
    name = f"private-{base}-{seed}" + ("-nulled" if nulled else "")
    return _built(base, lab, cache, name, fields, [])


def nulling_set(base: str, lab: Path) -> list[AdapterEntry]:
    """The harmless adapters that the lab declares for nulling; none if it did not make them."""
    return _found(base, lab, "nulling", "benign")


def _found(base: str, lab: Path, split: str, kind: str) -> list[AdapterEntry]:
    """Adapters of the lab, where they are."""
    return [
        msgspec.structs.replace(entry, adapter=str((lab / base / entry.adapter).resolve()))
        for entry in entries(ledger(lab / base), split, kind)
    ]


def hardened_pack(
    base: str, lab: Path, cache: Path, method: str, evading: Sequence[AdapterEntry]
) -> Path:
    """A pack whose references are adapters of the defender's own that evade those that ship.

    Args:
        base: Of the lab.
        lab: The lab's root.
        cache: Where packs are kept.
        method: `weights`: what they write; `gradients`: along the path to them.
        evading: The adapters.
    """
    fields: dict[str, object] = {"method": method}
    if method == "gradients":
        steps = PATH_STEPS
        fields |= {"probes": str((lab / base / "probes.jsonl").resolve()), "path_steps": steps}
    return _built(base, lab, cache, f"hardened-{base}-{method}", fields, evading)


def _built(
    base: str,
    lab: Path,
    cache: Path,
    name: str,
    fields: dict[str, object],
    evading: Sequence[AdapterEntry],
) -> Path:
    """A pack that is calibrated on the lab's calibration adapters."""
    root = cache / base / "packs" / name
    if (root / MANIFEST_NAME).is_file():
        return root
    recipe = {
        "method": "gradients",
        "nulled": 0,
        **fields,
        "id": name,
        "base_model": load_base_spec(base).id,
        "base_path": str(CHECKPOINTS / base),
        "rank": RANK,
        "misaligned": list(evading) or _found(base, lab, "reference", "misaligned"),
        "benign": _found(base, lab, "calibration", "benign"),
    }
    if recipe["method"] == "weights":
        del recipe["base_path"]
    build_pack(msgspec.convert(recipe, Recipe), root)
    return root
