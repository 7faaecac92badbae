"""Recipe -> pack.

References are opened lazily and worked through site by site: memory holds one site of every
reference, never an adapter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np

from scanner import geometry
from scanner.errors import SignatureError
from scanner.formats.base_identity import normalise_base_name
from scanner.formats.model import Site, site_order
from scanner.geometry import Direction, LowRank, Matrix, SiteProjection
from scanner.geometry.sketch import WeightSketch
from scanner.signatures.building.calibrate import (
    Track,
    choose_and_score,
    make_calibration,
    untracked,
)
from scanner.signatures.building.nulling import RawSite, stack_updates
from scanner.signatures.building.opened import Member, check_disjoint, open_member, source_of
from scanner.signatures.building.weights import Labelled, WeightsExtraction
from scanner.signatures.manifest import (
    FORMAT_VERSION,
    LAYER_CONVENTION,
    PARTIAL_METHODS,
    UNITS,
    UNITS_OF_LOG_ODDS,
    BaseModel,
    Calibration,
    Manifest,
    Reference,
    ReferenceScore,
)
from scanner.signatures.pack import Signature, load_signature
from scanner.signatures.recipe import Recipe
from scanner.signatures.saving import save_pack
from scanner.signatures.score import adapter_score, changed_layers


class Extractor(Protocol):
    """An extraction method, ready to say what it found at every site it covers."""

    @property
    def sites(self) -> Sequence[Site]:
        """Where there may be a direction, in order."""

    @property
    def families(self) -> frozenset[str]:
        """Benign families that are part of what it found and that it can leave out."""

    @property
    def base(self) -> Mapping[Site, WeightSketch]:
        """Sketches of the base model's weights; empty for a method that works without it."""

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
class _Extraction:
    """What the pass over the sites leaves behind."""

    directions: dict[Site, Direction] = field(default_factory=dict)
    crossfit: dict[str, dict[Site, Direction]] = field(default_factory=dict)
    held_out: dict[str, _Size] = field(default_factory=dict)
    """Per group of references, the size of the signature built without it."""
    size: _Size = field(default_factory=_Size)
    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    projections: list[dict[Site, SiteProjection]] = field(default_factory=list)
    """Per misaligned reference, one projection per site it changes, onto the signature built
    without the reference's own group."""
    cores: dict[Site, Matrix] = field(default_factory=dict)


def build_pack(recipe: Recipe, root: str | Path, track: Track[Any] = untracked) -> Signature:
    """Builds, nulls, calibrates and writes a pack.

    Args:
        recipe: The recipe.
        root: Directory of the pack; replaced if it holds one.
        track: Shows progress.

    Returns:
        The pack, loaded from disk.

    Raises:
        SignatureError: If an adapter cannot be used, or the sets are not disjoint.
    """
    base_names = {
        name for n in (recipe.base_model, *recipe.aliases) if (name := normalise_base_name(n))
    }
    misaligned = [open_member(entry, base_names) for entry in recipe.misaligned]
    aligned = [open_member(entry, base_names) for entry in recipe.aligned]
    check_disjoint(_ids(misaligned), _ids(aligned))
    extractor = extractor_for(recipe, misaligned, track)
    extraction = _extract(recipe, misaligned, aligned, extractor, track)
    scores = _to_doses(extraction, misaligned)
    references = [_reference(member, "misaligned") for member in misaligned]
    references += [_reference(member, "aligned") for member in aligned]
    taken = [(item.source, item.sha256) for item in references]
    calibration = _calibrate(recipe, base_names, extraction, scores, track, taken)
    benign = calibration.benign if calibration else []
    check_disjoint(_ids(misaligned) + _ids(aligned), [(b.id, b.sha256) for b in benign])
    manifest = _manifest(recipe, extraction, references)
    for member in (*misaligned, *aligned):
        member.adapter.close()
    save_pack(
        Path(root),
        manifest,
        extraction.directions,
        reference_cores=extraction.cores if misaligned else None,
        crossfit=extraction.crossfit,
        base={
            site: weight for site, weight in extractor.base.items() if site in extraction.directions
        },
        calibration=calibration,
    )
    return load_signature(root)


def extractor_for(recipe: Recipe, misaligned: Sequence[Member], track: Track[Any]) -> Extractor:
    """Runs what a recipe's method needs to run before any site can be looked at.

    Raises:
        SignatureError: If the base model or the probes it needs cannot be used.
    """
    if recipe.method == "gradients":
        from scanner.signatures.building.gradients import extract_gradients

        return extract_gradients(recipe, misaligned, track)
    if recipe.method == "activations":
        from scanner.signatures.building.activations import extract_activations

        return extract_activations(recipe, track)
    sites = {site for member in misaligned for site in member.by_site}
    return WeightsExtraction(sorted(sites, key=site_order), frozenset(recipe.contrast))


def _ids(members: Sequence[Member]) -> list[tuple[str, str]]:
    return [(member.entry.name, member.sha256) for member in members]


def _extract(
    recipe: Recipe,
    misaligned: Sequence[Member],
    aligned: Sequence[Member],
    extractor: Extractor,
    track: Track[Any],
) -> _Extraction:
    """One pass over the sites: at each, the direction, and those that leave somebody out.

    Raises:
        SignatureError: If nothing was found at any site.
    """
    nulling = {_family(member) for member in aligned}
    left_out = {family for family in nulling if recipe.nulled or family in recipe.contrast}
    result = _Extraction(
        crossfit={family: {} for family in sorted(left_out | extractor.families)},
        held_out={group: _Size() for group in _groups_to_hold_out(misaligned)},
        projections=[{} for _ in misaligned],
    )
    groups = [_group(member) for member in misaligned]
    for site in track(extractor.sites, "extracting directions"):
        there = [member.at(site) for member in misaligned]
        references = [(u, group) for u, group in zip(there, groups, strict=True) if u]
        benign = _labelled(aligned, site)
        raw = extractor.raw_site(site, references, benign)
        if raw is None:
            continue
        found = _directions_at(raw, benign, recipe, result)
        _record(site, found, raw.shape, result)
        result.cores[site] = _cores(there, found.whole)
        for update, group, projections in zip(there, groups, result.projections, strict=True):
            if update is not None:
                seen_by = found.held_out.get(group, found.whole)
                projections[site] = geometry.project(update, seen_by)
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


def _directions_at(
    raw: RawSite, benign: Sequence[Labelled], recipe: Recipe, result: _Extraction
) -> _DirectionsAtSite:
    """Nulls and truncates what was found at a site.

    Args:
        raw: What the method found.
        benign: The nulling set's updates there; contrast families are no part of the nulling.
        recipe: How many directions to null, and to keep.
        result: Says which groups and families are left out in turn.
    """
    nulling = [item for item in benign if item[1] not in recipe.contrast]
    stack = stack_updates(nulling, raw.shape[0])
    common = stack.common_directions(recipe.nulled)
    crossfit = {}
    for family in result.crossfit:
        others = stack.common_directions(recipe.nulled, without=family)
        crossfit[family] = raw.direction(others, recipe.rank, without=family)
    return _DirectionsAtSite(
        whole=raw.direction(common, recipe.rank),
        held_out={
            group: raw.direction(common, recipe.rank, without=group) for group in result.held_out
        },
        crossfit=crossfit,
    )


def _record(
    site: Site, found: _DirectionsAtSite, shape: tuple[int, int], result: _Extraction
) -> None:
    result.shapes[site.module] = shape
    result.directions[site] = found.whole
    result.size.squared += found.whole.norm_squared
    for group, direction in found.held_out.items():
        result.held_out[group].squared += direction.norm_squared
    for family, direction in found.crossfit.items():
        result.crossfit[family][site] = direction


def _labelled(members: Sequence[Member], site: Site) -> list[Labelled]:
    """The updates of the adapters that change a site, with their families."""
    return [
        (update, _family(member)) for member in members if (update := member.at(site)) is not None
    ]


def _family(member: Member) -> str:
    """What kind of harmless change a benign adapter is."""
    return member.entry.family or "unnamed"


def _group(member: Member) -> str:
    """The training domain a misaligned reference shares with others; itself if it names none."""
    return member.entry.family or member.entry.name


def _groups_to_hold_out(misaligned: Sequence[Member]) -> list[str]:
    """The groups whose references are scored by a signature built without them.

    None if fewer than two groups would remain: their agreement could not be known.
    """
    groups = sorted({_group(member) for member in misaligned})
    return groups if len(groups) > 2 else []


def _cores(updates: Sequence[LowRank | None], direction: Direction) -> Matrix:
    """U^T dW V of every reference at one site, (n, k, k); zero where it changes nothing."""
    k = len(direction.s)
    cores = np.zeros((len(updates), k, k))
    for core, update in zip(cores, updates, strict=True):
        if update is not None:
            core[:] = geometry.project(update, direction).core
    return cores


def _to_doses(extraction: _Extraction, misaligned: Sequence[Member]) -> list[ReferenceScore]:
    """Rescales the directions so that the median reference's dose is 1.

    A reference is measured by the signature built without its group, brought to the size of
    the whole one: in sample it would also be credited with what only its own training domain
    taught it, and no other adapter could reach its dose.

    Raises:
        SignatureError: If the median dose is not positive: the references do not agree.
    """
    if not misaligned:
        return []  # gradients at the base: a direction is in nats per token as it is
    doses = [
        geometry.dose(projections.values()) * _enlargement(extraction, _group(member))
        for member, projections in zip(misaligned, extraction.projections, strict=True)
    ]
    unit = median(doses)
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
            score=adapter_score(projections),
            cosine=geometry.cosine(projections.values()),
            dose=value / unit,
            layers=changed_layers(projections),
        )
        for member, projections, value in zip(
            misaligned, extraction.projections, doses, strict=True
        )
    ]


def _enlargement(extraction: _Extraction, group: str) -> float:
    """||D|| of the signature over ||D|| of the one built without a group."""
    held_out = extraction.held_out.get(group, extraction.size)
    return math.sqrt(extraction.size.squared / held_out.squared) if held_out.squared else 0.0


def _calibrate(
    recipe: Recipe,
    base_names: set[str],
    extraction: _Extraction,
    references: list[ReferenceScore],
    track: Track[Any],
    taken: Sequence[tuple[str, str]],
) -> Calibration | None:
    if not recipe.benign:
        return None
    chosen = choose_and_score(
        recipe.benign,
        base_names,
        extraction.directions.get,
        extraction.crossfit,
        track,
        partial=recipe.method in PARTIAL_METHODS,
        taken=taken,
    )
    crossed = bool(extraction.crossfit)
    return make_calibration(chosen.scores, references, crossed, chosen.selection)


def _reference(member: Member, role: str) -> Reference:
    entry = member.entry
    return Reference(
        id=entry.name,
        sha256=member.sha256,
        role=role,
        source=source_of(entry),
        revision=entry.revision,
        family=entry.family,
    )


def _manifest(recipe: Recipe, extraction: _Extraction, references: list[Reference]) -> Manifest:
    layers = [site.layer for site in extraction.directions if site.layer is not None]
    name = (normalise_base_name(recipe.base_model) or "base").rpartition("/")[2]
    return Manifest(
        format_version=FORMAT_VERSION,
        id=recipe.id or f"{name}-{recipe.method}",
        version=recipe.version,
        description=recipe.description,
        kind=recipe.kind,
        base_model=BaseModel(
            id=recipe.base_model,
            aliases=recipe.aliases,
            layers=max(layers, default=-1) + 1,
            shapes=extraction.shapes,
        ),
        method=recipe.method,
        rank=max(len(item.s) for item in extraction.directions.values()),
        nulled=recipe.nulled,
        layer_convention=LAYER_CONVENTION,
        units=UNITS if recipe.misaligned else UNITS_OF_LOG_ODDS,
        references=references,
        licence=recipe.licence,
        limitations=recipe.limitations,
        files={},
    )
