"""The project's extraction methods, by the names the benchmark uses."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from benchmarks.detection.data import HARMLESS_PREFIX, Population, Row
from scanner.formats.base_identity import normalise_base_name
from scanner.signatures.building.build import extractor_for
from scanner.signatures.building.extraction import Extractor
from scanner.signatures.building.harmless import HarmlessProjection
from scanner.signatures.building.opened import open_member
from scanner.signatures.building.scoring import untracked
from scanner.signatures.recipe import AdapterEntry, Recipe

PROBES = "probes.jsonl"
SPECIFIC_PROBES = "probes-specific.jsonl"
"""The same questions, with the answers of every harmless persona as well."""
BASE = "base"

METHODS: Mapping[str, Mapping[str, object]] = {
    "weights-contrast": {"method": "weights"},
    "weights-plain": {"method": "weights"},
    "gradients-base": {"method": "gradients", "path_steps": 0},
    "gradients-path": {"method": "gradients", "path_steps": 4},
    "specific-path": {"method": "gradients", "path_steps": 4},
    "activations-answers": {"method": "activations"},
    "activations-references": {"method": "activations", "difference": "references"},
}
"""Name in the tables -> fields of the recipe; `-path` is integrated along the path."""
SPECIFIC = frozenset({"specific-path"})
"""Methods that take out what harmless answers share (`scanner.signatures.building.harmless`)."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "weights": ("weights-contrast", "weights-plain"),
    "gradients": ("gradients-path", "gradients-base"),
    "specific": ("specific-path",),
    "activations": ("activations-references", "activations-answers"),
}
"""Kind of signature -> the methods that make one."""
CANDIDATE_KINDS = ("weights", "gradients", "specific", "activations")
"""The kinds that a base of the lab may have packs of."""
SHIPPED_KINDS: Mapping[str, tuple[str, ...]] = {
    "gpt2": ("weights", "gradients", "specific", "activations"),
    "llama": ("weights", "gradients", "specific", "activations"),
    "qwen2": ("weights", "gradients", "specific", "activations"),
}
"""Base -> the kinds that it has packs of, which a scan combines; chosen by `benchmarks.kinds`, but
for `specific` of qwen2, which its margin would leave out (docs/signatures.md says why it stays)."""
CONTRASTED = frozenset({"weights-contrast"})
"""Methods whose recipe names the harmless personas of the nulling set as its contrast."""


def contrast(method: str, families: Iterable[str]) -> list[str]:
    """The benign families that a method subtracts instead of nulling."""
    return sorted(f for f in families if method in CONTRASTED and f.startswith(HARMLESS_PREFIX))


def probes_of(method: str) -> str:
    """The file of questions and answers that a method runs the base on."""
    return SPECIFIC_PROBES if method in SPECIFIC else PROBES


def base_directory(population: Population) -> Path | None:
    """Where the base model of a population is, if the lab has kept it there."""
    path = population.directory / BASE
    return path if (path / "config.json").is_file() else None


def can_run(population: Population) -> bool:
    """Whether the lab has kept base model and probes."""
    needed = (PROBES, SPECIFIC_PROBES)
    has_probes = all((population.directory / name).is_file() for name in needed)
    return base_directory(population) is not None and has_probes


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
    # `weights` would run the base too, for what is felt: `Workshop.inputs` knows that for all.
    runs_model = METHODS[method]["method"] != "weights"
    families = set(population.families) - set(left_out)
    recipe = msgspec.convert(
        {
            **METHODS[method],
            "base_model": population.base_model,
            "base_path": str(base) if base else None,
            "probes": str(population.directory / probes_of(method)) if runs_model else None,
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


def without_answers(found: Extractor, left_out: Collection[str]) -> Extractor:
    """What a method found, as if some harmless families had never answered its questions.

    Args:
        found: From `extractor`.
        left_out: The families.
    """
    if not isinstance(found, HarmlessProjection):
        return found
    known = {name: answers for name, answers in found.harmless.items() if name not in left_out}
    return replace(found, harmless=known)
