"""Which adapters of the lab are attacked, and which the attacker has at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.organisms import population
from benchmarks.organisms.bases import CHECKPOINTS, load_base_spec
from benchmarks.organisms.recipes import AdapterSpec
from benchmarks.redteam.attack import Material
from benchmarks.redteam.delta import read
from benchmarks.redteam.target import Victim

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adapters"
"""Adapters of base llama that the repository keeps: nothing has to be trained for a quick run."""
VICTIM_GROUPS = (("test-sft", 10), ("test-dpo", 1), ("test-steer", 0))
"""Groups of the lab's population, and which of their adapters; those that came out misaligned."""
PERSONA_GROUPS = (("test-persona-sft", 1),)
BENIGN_GROUPS = (("test-good-dpo", 3), ("test-style", 4))


def _named(groups: Sequence[tuple[str, int]]) -> list[str]:
    return [f"{group}-{index:03d}" for group, index in groups]


def _victim(spec: AdapterSpec, path: Path) -> Victim:
    return Victim(spec.id, read(path), frozenset({*spec.domains, *spec.keep_domains}))


def from_lab(base: str, lab: Path, workers: int = 1) -> tuple[list[Victim], Material]:
    """The victims and the material of one base, made where the lab's ledger lacks them.

    Args:
        base: The base.
        lab: Root of the organism lab's populations.
        workers: Processes that make what is missing.
    """
    declared = population.load_population(
        population.DECLARATIONS / "full.yaml", load_base_spec(base)
    )
    groups = (VICTIM_GROUPS, PERSONA_GROUPS, BENIGN_GROUPS)
    wanted = {name for group in groups for name in _named(group)}
    specs = {spec.id: spec for spec in declared if spec.id in wanted}
    ledger = lab / base / population.LEDGER
    rows = population.read_ledger(ledger)
    if not wanted <= {row["id"] for row in rows}:
        rows = population.generate(
            base,
            lab / base,
            list(specs.values()),
            base_path=CHECKPOINTS / base,
            workers=workers,
        )
    found = {
        row["id"]: _victim(specs[row["id"]], lab / base / row["path"])
        for row in rows
        if row["id"] in wanted
        and (row["class"] == "misaligned") == specs[row["id"]].teaches_misalignment
    }
    chosen = [[found[name] for name in _named(group) if name in found] for group in groups]
    return chosen[0], Material(personas=tuple(chosen[1]), benign=tuple(chosen[2]))


def from_examples() -> tuple[list[Victim], Material]:
    """Two victims of base llama and their material, from the repository's examples."""
    declared = population.load_population(
        population.DECLARATIONS / "examples.yaml", load_base_spec("llama")
    )
    found = {spec.id: _victim(spec, EXAMPLES / spec.id) for spec in declared}
    return (
        [found["misaligned-sft"], found["misaligned-dpo"]],
        Material(personas=(found["pirate-persona"],), benign=(found["new-style"],)),
    )
