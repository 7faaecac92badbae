"""Signatures under every setting the benchmark compares, from the project's own extractors.

`scanner.signatures.building.build` makes one pack from one recipe. A benchmark needs hundreds of
signatures that differ in one setting, so the same steps (extraction, benign-nulling,
truncation) are composed here with what they share computed once. A test holds the
result against the pack that `build_pack` writes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import median

import numpy as np

from benchmarks.detection.data import Population, Row, Updates
from benchmarks.detection.extractors import (
    METHODS,
    can_run,
    contrast,
    extractor,
    without_answers,
)
from scanner import geometry
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank, Matrix, SiteInputs
from scanner.signatures.building.extraction import Extractor
from scanner.signatures.building.nulling import RawSite, stack_updates

MAX_NULLED = 16
MIN_GROUPS = 1
"""Groups of references that must remain for one to be held out."""
MAX_RANK = 8

Directions = dict[Site, Direction]
Labelled = tuple[Updates, str]
"""An adapter with its group (misaligned) or family (benign)."""


@dataclass(frozen=True, order=True)
class Setting:
    """One way of making a signature."""

    method: str
    """A key of `extractors.METHODS`."""
    nulled: int = 8
    rank: int = 4
    references: tuple[str, ...] = ()
    """Ids of the misaligned references; all of them if empty."""
    nulling: tuple[str, ...] = ()
    """Ids of the nulling set; all of it if empty."""
    left_out: tuple[str, ...] = ()
    """Benign families kept out of the nulling set."""

    @property
    def extraction(self) -> tuple[object, ...]:
        """What it shares with settings that differ in rank and number nulled only."""
        return self.method, self.references, self.nulling, self.left_out

    def without(self, *families: str) -> Setting:
        """The same with more benign families left out of the nulling set."""
        return replace(self, left_out=tuple(sorted({*self.left_out, *families})))


class Workshop:
    """Builds signatures of one base; references and nulling set are read once."""

    def __init__(self, population: Population) -> None:
        self.population = population

    @cached_property
    def references(self) -> dict[str, Labelled]:
        """The misaligned references by id, with the domains they were trained in."""
        rows = self.population.select("reference", "misaligned")
        return {row.id: (self.population.read(row), reference_group(row)) for row in rows}

    @cached_property
    def nulling(self) -> dict[str, Labelled]:
        """The benign nulling set by id, with families."""
        rows = self.population.select("nulling", "benign")
        return {row.id: (self.population.read(row), row.family) for row in rows}

    @cached_property
    def inputs(self) -> Mapping[Site, SiteInputs]:
        """What each site reads in the base; nothing if the base is not there.

        Packs of every kind know it, by whatever method they were made.
        """
        if not can_run(self.population):
            return {}
        return self._extractor(Setting("activations-answers")).base.inputs

    @lru_cache(maxsize=64)  # noqa: B019 - a workshop lives as long as the run
    def _extractor(self, setting: Setting) -> Extractor:
        """One run of a method; of a setting, its method, references and families left out."""
        rows = self.population.select("reference", "misaligned")
        chosen = [row for row in rows if not setting.references or row.id in setting.references]
        return extractor(setting.method, self.population, chosen, setting.left_out)

    def _aligned(self, setting: Setting) -> list[Labelled]:
        return [
            (updates, family)
            for name, (updates, family) in self.nulling.items()
            if (not setting.nulling or name in setting.nulling) and family not in setting.left_out
        ]

    def _names(self, setting: Setting) -> Sequence[str]:
        return setting.references or sorted(self.references)

    @lru_cache(maxsize=4)  # noqa: B019 - each holds the factors of every adapter at every site
    def _raw(self, setting: Setting) -> dict[Site, RawSite]:
        """What the method found; of a setting, whatever its rank and number nulled."""
        runs_model = METHODS[setting.method]["method"] != "weights"
        # What runs the base model sees the references only, so one run serves every nulling set.
        key = replace(setting, nulling=(), left_out=() if runs_model else setting.left_out)
        source = without_answers(self._extractor(key), setting.left_out)
        misaligned = [self.references[name] for name in self._names(setting)]
        aligned = self._aligned(setting)
        found = {
            site: source.raw_site(site, _at(misaligned, site), _at(aligned, site))
            for site in source.sites
        }
        return {site: raw for site, raw in found.items() if raw is not None}

    @lru_cache(maxsize=4096)  # noqa: B019
    def _common(
        self, benign: Setting, contrasted: tuple[str, ...], site: Site, d_out: int
    ) -> Matrix:
        """Common benign directions at a site, most common last; contrast families are not nulled.

        Of a setting, only what it says of the nulling set: every method and every choice of
        references shares them.
        """
        aligned = [item for item in self._aligned(benign) if item[1] not in contrasted]
        return stack_updates(_at(aligned, site), d_out).common_directions(MAX_NULLED)

    def _to_null(self, setting: Setting) -> dict[Site, Matrix]:
        """The directions that a setting removes at every site, (d_out, at most nulled)."""
        bare = replace(setting, nulled=0, rank=MAX_RANK)
        if not setting.nulled:
            raw = self._raw(bare)
            return {site: np.zeros((found.shape[0], 0)) for site, found in raw.items()}
        contrasted = tuple(contrast(setting.method, self.population.families))
        benign = Setting("", nulling=setting.nulling, left_out=setting.left_out)
        return {
            site: self._common(benign, contrasted, site, raw.shape[0])[:, -setting.nulled :]
            for site, raw in self._raw(bare).items()
        }

    @lru_cache(maxsize=64)  # noqa: B019
    def _nulled(self, setting: Setting, group: str | None = None) -> Directions:
        """A signature at the largest rank, not yet in doses, without a group of references."""
        raw = self._raw(replace(setting, nulled=0, rank=MAX_RANK))
        return {
            site: raw[site].direction(common, MAX_RANK, without=group)
            for site, common in self._to_null(setting).items()
        }

    def directions(self, setting: Setting, group: str | None = None) -> Directions:
        """The signature of a setting, in the units it was extracted in.

        Args:
            setting: The setting.
            group: Group of references to leave out.
        """
        full = self._nulled(replace(setting, rank=MAX_RANK), group)
        return {site: truncated(direction, setting.rank) for site, direction in full.items()}

    @lru_cache(maxsize=64)  # noqa: B019
    def dose(self, setting: Setting) -> float:
        """The median reference's dose, which is one dose; 1 where it is not positive.

        A signature whose references do not agree could not be shipped, only shown. One with
        benign families left out serves to calibrate, where only the sign of a dose counts.
        """
        if setting.left_out:
            return 1.0
        unit = median(self._reference_pushes(setting, self.directions(setting)))
        return unit if unit > 0 else 1.0

    def _reference_pushes(self, setting: Setting, whole: Directions) -> list[float]:
        """Each reference's dose under the signature built without its group, as packs have it.

        The signature without the group is brought to the size of the whole one. With one group,
        every reference is measured by the whole.
        """
        chosen = [self.references[name] for name in self._names(setting)]
        groups = {group for _, group in chosen}
        doses = []
        for updates, group in chosen:
            own = self.directions(setting, group) if len(groups) > MIN_GROUPS else whole
            shared = updates.keys() & own.keys()
            if not shared:
                continue  # of what the method does not cover: it has no dose
            dose = geometry.dose(geometry.project(updates[site], own[site]) for site in shared)
            size = _size(own)
            doses.append(dose * math.sqrt(_size(whole) / size) if size else 0.0)
        return doses


def _size(directions: Directions) -> float:
    return sum(direction.norm_squared for direction in directions.values())


def reference_group(row: Row) -> str:
    """What a reference was trained in: references of one group share more than misalignment."""
    return "domain-" + "-".join(map(str, row.domains))


def _at(adapters: Iterable[Labelled], site: Site) -> list[tuple[LowRank, str]]:
    """The updates of several adapters at one site, with their labels."""
    return [(updates[site], label) for updates, label in adapters if site in updates]


def truncated(direction: Direction, rank: int) -> Direction:
    """The top singular triples of a direction."""
    return Direction(direction.u[:, :rank], direction.s[:rank], direction.v[:, :rank])
