"""Extraction: one pass over the sites, from what a method finds there to nulled directions.

Memory holds one site of every reference, never an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

import msgspec
import numpy as np

from scanner import geometry
from scanner.errors import SignatureError
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank, Matrix, SiteProjection
from scanner.geometry.sketch import UPDATE_SIZE, sketch_update
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.benign_query import Track
from scanner.signatures.building.nulling import BenignStack, RawSite
from scanner.signatures.building.nulling_set import NullingSet, Shapes
from scanner.signatures.building.opened import Member
from scanner.signatures.building.weights import Labelled
from scanner.signatures.manifest import NulledScore, ReferenceScore
from scanner.signatures.numbers import SiteNumbers
from scanner.signatures.recipe import Recipe
from scanner.signatures.score import (
    changed_layers,
    signed_write_score,
    site_numbers,
    update_norm,
)


class Extractor(Protocol):
    """An extraction method, ready to say what it found at every site it covers."""

    @property
    def sites(self) -> Sequence[Site]:
        """Where there may be a direction, in order."""

    @property
    def families(self) -> frozenset[str]:
        """Benign families that are part of what it found and that it can leave out."""

    @property
    def groups(self) -> frozenset[str]:
        """Groups of references that it can leave out; none where no reference has a say."""

    @property
    def base(self) -> BaseFacts:
        """What is kept of the base model; nothing for a method that works without it."""

    def raw_site(
        self, site: Site, misaligned: Sequence[Labelled], aligned: Sequence[Labelled]
    ) -> RawSite | None:
        """What was found at a site; None if nothing.

        Args:
            site: One of `sites`.
            misaligned: The references' updates there, with their groups.
            aligned: The nulling set's updates there, with their families.
        """


@dataclass
class _Size:
    """||D||^2 over the sites, as they come."""

    squared: float = 0.0


@dataclass
class Extraction:
    """What the pass over the sites leaves behind."""

    directions: dict[Site, Direction] = field(default_factory=dict)
    crossfit: dict[str, dict[Site, Direction]] = field(default_factory=dict)
    held_out: dict[str, _Size] = field(default_factory=dict)
    """Per group of references, the size of the signature built without it."""
    size: _Size = field(default_factory=_Size)
    knows_none: bool = False
    """Whether the directions come from the base model alone, so that every reference is a
    stranger to them."""
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    projections: list[dict[Site, SiteProjection]] = field(default_factory=list)
    """Per misaligned reference, one projection per site it changes, onto the signature built
    without the reference's own group."""
    before_nulling: list[dict[Site, SiteProjection]] = field(default_factory=list)
    """The same onto that signature as it was before it was nulled."""
    aligned: list[dict[Site, SiteProjection]] = field(default_factory=list)
    """Per adapter of the nulling set that is at hand, one projection per site it changes, onto the
    signature nulled without its family."""
    aligned_before: list[dict[Site, SiteProjection]] = field(default_factory=list)
    """The same onto the signature as it was before it was nulled."""
    sketches: dict[Site, Matrix] = field(default_factory=dict)
    """Per site, the sketch of every misaligned reference's update, (n, m, m)."""


def shapes_of(extractor: Extractor, misaligned: Sequence[Member]) -> Shapes:
    """(d_out, d_in) of every site that the method covers."""
    found: dict[str, tuple[int, int]] = {}
    for site in extractor.sites:
        if site.module not in found:
            there = [(u, item.group) for item in misaligned if (u := item.at(site)) is not None]
            raw = extractor.raw_site(site, there, [])
            if raw is not None:
                found[site.module] = raw.shape
    return {site: found[site.module] for site in extractor.sites if site.module in found}


def extract(
    recipe: Recipe,
    misaligned: Sequence[Member],
    nulling: NullingSet,
    extractor: Extractor,
    track: Track,
) -> Extraction:
    """One pass over the sites: at each, the direction, and those that leave somebody out.

    Raises:
        SignatureError: If nothing was found at any site.
    """
    nulled = set(nulling.families)
    left_out = {family for family in nulled if recipe.nulled or family in recipe.contrast}
    result = Extraction(
        crossfit={family: {} for family in sorted(left_out | extractor.families)},
        held_out={group: _Size() for group in sorted(extractor.groups)},
        projections=[{} for _ in misaligned],
        before_nulling=[{} for _ in misaligned],
        aligned=[{} for _ in nulling.references],
        aligned_before=[{} for _ in nulling.references],
        knows_none=(recipe.method == "activations" and recipe.difference == "answers")
        or (recipe.method == "gradients" and not recipe.path_steps),
    )
    groups = [member.group for member in misaligned]
    families = [item.family or "unnamed" for item in nulling.references]
    for site in track(extractor.sites, "extracting directions"):
        there = [member.at(site) for member in misaligned]
        references = [(u, group) for u, group in zip(there, groups, strict=True) if u]
        raw = extractor.raw_site(site, references, nulling.labelled(site))
        if raw is None:
            continue
        stack = nulling.stack(site, raw.shape, recipe.contrast)
        found = _directions_at(raw, stack, recipe, result)
        _record(site, found, raw.shape, result)
        result.sketches[site] = _sketches(there, raw.shape[0])
        inputs = extractor.base.inputs.get(site)
        for number, (update, group) in enumerate(zip(there, groups, strict=True)):
            if update is not None:
                seen_by = found.held_out.get(group, found.whole)
                before = found.held_out_before.get(group, found.whole_before)
                result.projections[number][site] = geometry.project(update, seen_by, inputs)
                result.before_nulling[number][site] = geometry.project(update, before, inputs)
        for number, update in nulling.numbered(site):
            seen_by = found.crossfit.get(families[number], found.whole)
            result.aligned[number][site] = geometry.project(update, seen_by, inputs)
            result.aligned_before[number][site] = geometry.project(
                update, found.whole_before, inputs
            )
    if not result.directions:
        fault = "every misaligned reference is untrained" if misaligned else "no gradient anywhere"
        raise SignatureError(fault, where=recipe.base_model)
    return result


@dataclass(frozen=True)
class _DirectionsAtSite:
    """The direction at one site, and what it would be without somebody."""

    whole: Direction
    held_out: dict[str, Direction]
    """Without one group of references, which is then scored by it."""
    crossfit: dict[str, Direction]
    """Nulled without one family of benign adapters, which is then scored by it."""
    whole_before: Direction
    """`whole` as it was before it was nulled."""
    held_out_before: dict[str, Direction]


def _directions_at(
    raw: RawSite, stack: BenignStack, recipe: Recipe, result: Extraction
) -> _DirectionsAtSite:
    """Nulls and truncates what was found at a site.

    Args:
        raw: What the method found.
        stack: What the nulling set does there.
        recipe: How many directions to null, and to keep.
        result: Says which groups and families are left out in turn.
    """
    common = stack.common_directions(recipe.nulled)
    crossfit = {}
    for family in result.crossfit:
        others = stack.common_directions(recipe.nulled, without=family)
        crossfit[family] = raw.direction(others, recipe.rank, without=family)
    nothing = common[:, :0]
    return _DirectionsAtSite(
        whole_before=raw.direction(nothing, recipe.rank),
        held_out_before={
            group: raw.direction(nothing, recipe.rank, without=group) for group in result.held_out
        },
        whole=raw.direction(common, recipe.rank),
        held_out={
            group: raw.direction(common, recipe.rank, without=group) for group in result.held_out
        },
        crossfit=crossfit,
    )


def _record(
    site: Site, found: _DirectionsAtSite, shape: tuple[int, int], result: Extraction
) -> None:
    result.shapes[site.module] = shape
    result.directions[site] = found.whole
    result.size.squared += found.whole.norm_squared
    for group, direction in found.held_out.items():
        result.held_out[group].squared += direction.norm_squared
    for family, direction in found.crossfit.items():
        result.crossfit[family][site] = direction


def groups_to_hold_out(misaligned: Sequence[Member]) -> frozenset[str]:
    """The groups whose references are scored by a signature built without them.

    None if there is one group: nothing would be left. With two, one is left, whose agreement with
    others is not known: those held out are found less often than strangers will be.
    """
    groups = frozenset(member.group for member in misaligned)
    return groups if len(groups) > 1 else frozenset()


def _sketches(updates: Sequence[LowRank | None], d_out: int) -> Matrix:
    """The sketch of every reference at one site, (n, m, m); zero where it changes nothing."""
    found = np.zeros((len(updates), UPDATE_SIZE, UPDATE_SIZE))
    for sketch, update in zip(found, updates, strict=True):
        if update is not None:
            sketch[:] = sketch_update(update, d_out)
    return found


def to_doses(extraction: Extraction, misaligned: Sequence[Member]) -> list[ReferenceScore]:
    """Rescales the directions so that the median reference's dose is 1.

    A reference is measured by the signature built without its group, brought to the size of
    the whole one: in sample it would also be credited with what only its own training domain
    taught it, and no other adapter could reach its dose. One that changes no site with a direction,
    as may be of a method that covers some modules only, has no dose and no score.

    Raises:
        SignatureError: If the median dose is not positive: the references do not agree.
    """
    if not misaligned:
        return []  # gradients at the base: a direction is in nats per token as it is
    seen = [
        (member, projections, before)
        for member, projections, before in zip(
            misaligned, extraction.projections, extraction.before_nulling, strict=True
        )
        if changed_layers(projections)
    ]
    doses = [
        geometry.dose(projections.values()) * _enlargement(extraction, member.group)
        for member, projections, _ in seen
    ]
    unit = median(doses) if doses else 0.0
    if unit <= 0:
        raise SignatureError(
            "the median reference's dose is not positive: the references do not go this way",
            todo="check the references, and which answers of the probes are the aligned ones",
        )
    for directions in (extraction.directions, *extraction.crossfit.values()):
        for site, direction in directions.items():
            directions[site] = Direction(direction.u, direction.s / unit, direction.v)
    return [
        ReferenceScore(
            id=member.entry.name,
            score=signed_write,
            signed_write=signed_write,
            cosine=geometry.cosine(projections.values()),
            dose=value / unit,
            norm=update_norm(projections),
            layers=changed_layers(projections),
            held_out=extraction.knows_none or member.group in extraction.held_out,
            score_before_nulling=signed_write_score(before),
            dose_kept=_share_kept(projections, before),
            sites=_with_doses(
                site_numbers(projections, digits=4), _enlargement(extraction, member.group) / unit
            ),
        )
        for (member, projections, before), value, signed_write in zip(
            seen,
            doses,
            [signed_write_score(projections) for _, projections, _ in seen],
            strict=True,
        )
    ]


def _share_kept(
    nulled: Mapping[Site, SiteProjection], before: Mapping[Site, SiteProjection]
) -> float | None:
    """The share of an adapter's dose that nulling left; None if there was none to begin with."""
    whole = geometry.dose(before.values())
    return geometry.dose(nulled.values()) / whole if whole > 0 else None


def score_aligned(extraction: Extraction, nulling: NullingSet) -> list[NulledScore]:
    """What each adapter of the nulling set scores, by the signature nulled without its family.

    Args:
        extraction: The directions, in doses.
        nulling: The set; of one that is not at hand any more nothing can be said.
    """
    return [
        NulledScore(
            id=reference.id,
            family=reference.family or "unnamed",
            score=signed_write_score(projections),
            cosine=geometry.cosine(projections.values()),
            layers=changed_layers(projections),
            score_before_nulling=signed_write_score(before),
        )
        for reference, projections, before in zip(
            nulling.references, extraction.aligned, extraction.aligned_before, strict=True
        )
        if changed_layers(projections)
    ]


def _with_doses(sites: dict[str, SiteNumbers], factor: float) -> dict[str, SiteNumbers]:
    """What a reference does at each site, with its doses times a factor."""
    return {
        key: msgspec.structs.replace(
            numbers,
            dose=None if numbers.dose is None else numbers.dose * factor,
            steady=None if numbers.steady is None else numbers.steady * factor,
        )
        for key, numbers in sites.items()
    }


def _enlargement(extraction: Extraction, group: str) -> float:
    """||D|| of the signature over ||D|| of the one built without a group."""
    held_out = extraction.held_out.get(group, extraction.size)
    return math.sqrt(extraction.size.squared / held_out.squared) if held_out.squared else 0.0
