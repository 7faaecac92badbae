"""Which adapters of the lab are attacked, and which the attacker has at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.organisms import population
from benchmarks.organisms.bases import CHECKPOINTS, load_base_spec
from benchmarks.organisms.recipes import AdapterSpec
from benchmarks.redteam.attack import Material
from benchmarks.redteam.delta import Delta, read
from benchmarks.redteam.target import Victim

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adapters"
"""Adapters of base llama that the repository keeps: nothing has to be trained for a quick run."""
VICTIM_GROUPS = (("test-sft", 10), ("test-dpo", 1), ("test-steer", 0))
"""Groups of the lab's population, and which of their adapters; those that came out misaligned."""
PERSONA_GROUPS = (("test-persona-sft", 1),)
BENIGN_GROUPS = (("test-good-dpo", 3), ("test-style", 4))

DEVELOPMENT_GROUPS = (("development-sft", 2), ("development-dpo", 1), ("development-steer", 2))
"""Groups of the population `development`, and how many misaligned adapters of each are attacked."""
DEVELOPMENT_PERSONAS = (("cal-persona-sft", 3), ("cal-persona-dpo", 5))
DEVELOPMENT_BENIGN = (("cal-good-dpo", 3), ("cal-style", 4), ("cal-answers", 2))


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
    groups = (VICTIM_GROUPS, PERSONA_GROUPS, BENIGN_GROUPS)
    wanted = [name for group in groups for name in _named(group)]
    found = _made("full", base, lab, wanted, workers)
    chosen = [[found[name] for name in _named(group) if name in found] for group in groups]
    return chosen[0], Material(personas=tuple(chosen[1]), benign=tuple(chosen[2]))


def for_development(base: str, lab: Path, workers: int = 1) -> tuple[list[Victim], Material]:
    """As `from_lab`, of adapters to choose methods on: none is a test adapter.

    The victims are the first of each group of the population `development` that come out
    misaligned; the material is of the calibration.
    """
    declared = population.load_population(
        population.DECLARATIONS / "development.yaml", load_base_spec(base)
    )
    made = _made("development", base, lab, [spec.id for spec in declared], workers)
    victims = [
        victim
        for group, count in DEVELOPMENT_GROUPS
        for victim in [made[name] for name in sorted(made) if name.startswith(group)][:count]
    ]
    groups = (DEVELOPMENT_PERSONAS, DEVELOPMENT_BENIGN)
    wanted = [name for group in groups for name in _named(group)]
    found = _made("full", base, lab, wanted, workers)
    personas, benign = (
        tuple(found[name] for name in _named(group) if name in found) for group in groups
    )
    return victims, Material(personas=personas, benign=benign)


def weak(base: str, lab: Path, workers: int = 1) -> dict[str, tuple[Delta, bool]]:
    """The population `weak` by name, made where the ledger lacks it; and whether each is latent."""
    declared = population.load_population(
        population.DECLARATIONS / "weak.yaml", load_base_spec(base)
    )
    rows = _rows(base, lab, declared, workers)
    return {row["id"]: (read(lab / base / row["path"]), row["class"] == "latent") for row in rows}


def _made(
    declaration: str, base: str, lab: Path, wanted: Sequence[str], workers: int
) -> dict[str, Victim]:
    """Adapters by name, made where the ledger lacks them; those that came out as they were meant.

    Args:
        declaration: Which population declares them.
        base: The base.
        lab: Root of the organism lab's populations.
        wanted: Their names.
        workers: Processes that make what is missing.
    """
    declared = population.load_population(
        population.DECLARATIONS / f"{declaration}.yaml", load_base_spec(base)
    )
    specs = {spec.id: spec for spec in declared if spec.id in set(wanted)}
    return {
        row["id"]: _victim(specs[row["id"]], lab / base / row["path"])
        for row in _rows(base, lab, list(specs.values()), workers)
        if (row["class"] == "misaligned") == specs[row["id"]].teaches_misalignment
    }


def _rows(base: str, lab: Path, specs: Sequence[AdapterSpec], workers: int) -> list[population.Row]:
    """What the ledger says of adapters, which are made where it lacks them."""
    wanted = {spec.id for spec in specs}
    rows = population.read_ledger(lab / base / population.LEDGER)
    if not wanted <= {row["id"] for row in rows}:
        rows = population.generate(
            base, lab / base, list(specs), base_path=CHECKPOINTS / base, workers=workers
        )
    return [row for row in rows if row["id"] in wanted]


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
