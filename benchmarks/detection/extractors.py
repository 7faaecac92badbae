"""The project's extraction methods, by the names the benchmark uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.detection.data import HARMLESS_PREFIX, Population, Row
from scanner.formats.base_identity import normalise_base_name
from scanner.signatures.building.build import extractor_for
from scanner.signatures.building.extraction import Extractor
from scanner.signatures.building.opened import open_member
from scanner.signatures.building.scoring import untracked
from scanner.signatures.recipe import AdapterEntry, Recipe

PROBES = "probes.jsonl"
BASE = "base"

METHODS: Mapping[str, Mapping[str, object]] = {
    "weights-contrast": {"method": "weights"},
    "weights-plain": {"method": "weights"},
    "gradients-base": {"method": "gradients", "path_steps": 0},
    "gradients-path": {"method": "gradients", "path_steps": 4},
    "activations": {"method": "activations"},
}
"""Name in the tables -> fields of the recipe; `gradients-path` is integrated along the path."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "weights": ("weights-contrast", "weights-plain"),
    "gradients": ("gradients-path", "gradients-base"),
    "activations": ("activations",),
}
"""Kind of signature -> the methods that make one."""
CONTRASTED = frozenset({"weights-contrast"})
"""Methods whose recipe names the harmless personas of the nulling set as its contrast."""


def contrast(method: str, families: Iterable[str]) -> list[str]:
    """The benign families that a method subtracts instead of nulling."""
    return sorted(f for f in families if method in CONTRASTED and f.startswith(HARMLESS_PREFIX))


def base_directory(population: Population) -> Path | None:
    """Where the base model of a population is, if the lab has kept it there."""
    path = population.directory / BASE
    return path if (path / "config.json").is_file() else None


def can_run(population: Population) -> bool:
    """Whether the lab has kept base model and probes."""
    return base_directory(population) is not None and (population.directory / PROBES).is_file()


def available(population: Population) -> list[str]:
    """Methods that the lab's files allow: without base model and probes, `weights` alone."""
    runs = can_run(population)
    return [name for name, fields in METHODS.items() if runs or fields["method"] == "weights"]


def extractor(
    method: str, population: Population, references: Sequence[Row], left_out: Sequence[str] = ()
) -> Extractor:
    """Runs what a method needs to run before any site can be looked at.

    Args:
        method: A key of `METHODS`.
        population: The base.
        references: The misaligned references.
        left_out: Benign families that are not there to be contrasted with.
    """
    base = base_directory(population)
    families = set(population.families) - set(left_out)
    recipe = msgspec.convert(
        {
            **METHODS[method],
            "base_model": population.base_model,
            "base_path": str(base) if base else None,
            "probes": str(population.directory / PROBES),
            "misaligned": [],
            "nulled": 0,
            "contrast": contrast(method, families),
        },
        Recipe,
    )
    names = {name} if (name := normalise_base_name(population.base_model)) else set()
    members = [
        open_member(AdapterEntry(adapter=str(population.directory / row.path), id=row.id), names)
        for row in references
    ]
    try:
        return extractor_for(recipe, members, untracked)
    finally:
        for member in members:
            member.adapter.close()
