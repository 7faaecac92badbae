"""Recipe -> pack.

References are opened lazily and worked through site by site: memory holds one site of every
reference, never an adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from scanner.formats.base_identity import normalise_base_name
from scanner.formats.model import site_order
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.benign_query import Purpose
from scanner.signatures.building.calibrate import choose_and_score, make_calibration
from scanner.signatures.building.candidates import OwnerRange, split_owners
from scanner.signatures.building.extraction import (
    Extraction,
    Extractor,
    extract,
    groups_to_hold_out,
    score_aligned,
    shapes_of,
    to_doses,
)
from scanner.signatures.building.grouping import grouped
from scanner.signatures.building.nulling_set import (
    ListedNulling,
    NullingSet,
    Shapes,
    find_nulling,
)
from scanner.signatures.building.opened import (
    Member,
    as_reference,
    check_disjoint,
    open_member,
    open_references,
)
from scanner.signatures.building.scoring import Scorer, Track, untracked
from scanner.signatures.building.weights import WeightsExtraction
from scanner.signatures.building.work import Work, digest_of, opened_work
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
from scanner.signatures.recipe import BenignQuery, Recipe
from scanner.signatures.saving import save_pack

WITHOUT_REFERENCE = "Built without the reference"
"""How a limitation begins that names a reference which was not to be had."""


def build_pack(
    recipe: Recipe,
    root: str | Path,
    track: Track[Any] = untracked,
    work: Path | None = None,
    kept_gradients: Path | None = None,
) -> Signature:
    """Builds, nulls, calibrates and writes a pack.

    Args:
        recipe: The recipe.
        root: Directory of the pack; replaced if it holds one.
        track: Shows progress.
        work: A folder for what is made on the way. A build that was interrupted and is run again
            with the same recipe and folder goes on with the adapters that it had not yet looked
            at; the folder is emptied once the pack is written. Nothing is kept if None.
        kept_gradients: A folder where gradients stay that other signatures of the base need.

    Returns:
        The pack, loaded from disk.

    Raises:
        SignatureError: If an adapter cannot be used, the sets are not disjoint, or a hub does
            not have what is needed.
    """
    base_names = {
        name for n in (recipe.base_model, *recipe.aliases) if (name := normalise_base_name(n))
    }
    recipe, ungrouped = _with_families(recipe, base_names, track)
    misaligned, missing = open_references(recipe.misaligned, recipe.references_needed, base_names)
    references = [as_reference(member, "misaligned") for member in misaligned]
    with opened_work(work, digest_of(recipe, references)) as kept:
        groups = groups_to_hold_out(misaligned)
        extractor = extractor_for(recipe, misaligned, track, kept_gradients, groups)
        search = _Searching(recipe, base_names, track, kept)
        nulling = search.nulling_set(references, lambda: shapes_of(extractor, misaligned))
        check_disjoint(_digests(references), _digests(nulling.references))
        extraction = extract(recipe, misaligned, nulling, extractor, track)
        references += nulling.references
        scores = to_doses(extraction, misaligned)
        calibration = search.calibration(extraction, extractor.base, scores, references)
        benign = calibration.benign if calibration else []
        check_disjoint(_digests(references), [(b.id, b.sha256) for b in benign])
        for member in misaligned:
            member.adapter.close()
        nulling.close()
        manifest = msgspec.structs.replace(
            _manifest(recipe, extraction, references, missing),
            aligned_scores=score_aligned(extraction, nulling),
            harmless_families=sorted(extractor.families | set(recipe.contrast)),
            grouped=ungrouped,
        )
        if calibration is None:
            manifest = msgspec.structs.replace(manifest, reference_scores=scores)
        save_pack(
            Path(root),
            manifest,
            extraction.directions,
            reference_sketches=extraction.sketches if misaligned else None,
            crossfit=extraction.crossfit,
            base=extractor.base.at(frozenset(extraction.directions)),
            calibration=calibration,
            nulling=nulling.selection,
        )
        if kept is not None:
            kept.finish()
    return load_signature(root)


def _with_families(recipe: Recipe, base_names: set[str], track: Track[Any]) -> tuple[Recipe, int]:
    """The recipe with a family for every benign adapter that it lists, and how many had none.

    The nulling and the calibration set are grouped together: a family is left out of the one
    while its adapters in the other are scored.
    """
    sets = {
        name: listed
        for name, listed in (("aligned", recipe.aligned), ("benign", recipe.benign))
        if not isinstance(listed, BenignQuery)
    }
    entries, ungrouped = grouped([e for listed in sets.values() for e in listed], base_names, track)
    split = len(sets.get("aligned", []))
    parts = {"aligned": entries[:split], "benign": entries[split:]}
    return msgspec.structs.replace(recipe, **{name: parts[name] for name in sets}), ungrouped


def extractor_for(
    recipe: Recipe,
    misaligned: Sequence[Member],
    track: Track[Any],
    kept_gradients: Path | None = None,
    groups: frozenset[str] = frozenset(),
) -> Extractor:
    """Runs what a recipe's method needs to run before any site can be looked at.

    Args:
        recipe: The recipe.
        misaligned: Its references.
        track: Shows progress.
        kept_gradients: As `build_pack`.
        groups: Groups of references that are to be left out in turn.

    Raises:
        SignatureError: If the base model or the probes it needs cannot be used.
    """
    if recipe.method == "gradients":
        from scanner.signatures.building.gradients import extract_gradients

        return extract_gradients(recipe, misaligned, track, kept_gradients, groups)
    if recipe.method == "activations" and recipe.difference == "references":
        from scanner.signatures.building.shifts import extract_shifts

        return extract_shifts(recipe, misaligned, track, groups)
    if recipe.method == "activations":
        from scanner.signatures.building.activations import extract_activations

        return extract_activations(recipe, track)
    sites = {site for member in misaligned for site in member.by_site}
    return WeightsExtraction(
        sorted(sites, key=site_order), frozenset(recipe.contrast), _facts_of(recipe), groups
    )


def _facts_of(recipe: Recipe) -> BaseFacts:
    """What a recipe that needs no base model keeps of it all the same, if it names probes."""
    if not recipe.probes:
        return BaseFacts()
    from scanner.signatures.building.inputs import base_facts
    from scanner.signatures.building.network import batches_of, load_network, probes_of

    network = load_network(recipe)
    return base_facts(network, batches_of(probes_of(recipe, network), network.device))


@dataclass(frozen=True)
class _Searching:
    """The two sets of benign adapters of a recipe: opened, or found on a hub."""

    recipe: Recipe
    base_names: set[str]
    track: Track[Any]
    work: Work | None

    def nulling_set(
        self, references: Sequence[Reference], shapes: Callable[[], Shapes]
    ) -> NullingSet:
        """The adapters to null with.

        Args:
            references: The misaligned references.
            shapes: Says (d_out, d_in) of every site that the method covers.
        """
        aligned = self.recipe.aligned
        if not isinstance(aligned, BenignQuery):
            return ListedNulling([open_member(entry, self.base_names) for entry in aligned])
        purpose = self._purpose("aligned", "reading benign adapters to null with", references)
        return find_nulling(aligned.hub, purpose, shapes(), self.track, self.work)

    def calibration(
        self,
        extraction: Extraction,
        base: BaseFacts,
        scores: list[ReferenceScore],
        references: Sequence[Reference],
    ) -> Calibration | None:
        """Scores the calibration set, if the recipe has one.

        Args:
            extraction: The directions.
            base: What is known of the base model.
            scores: What the misaligned references scored.
            references: Everything that went into the directions.
        """
        if not self.recipe.benign:
            return None
        chosen = choose_and_score(
            self.recipe.benign,
            Scorer(
                extraction.directions.get,
                extraction.crossfit,
                base.inputs.get,
                self.recipe.method in PARTIAL_METHODS,
            ),
            self._purpose("benign", "scoring benign adapters", references),
            self.track,
            self.work,
        )
        crossed = bool(extraction.crossfit) or isinstance(self.recipe.aligned, BenignQuery)
        return make_calibration(chosen.scores, scores, crossed, chosen.selection)

    def _purpose(self, name: str, description: str, references: Sequence[Reference]) -> Purpose:
        owners: OwnerRange | None = None
        aligned, benign = self.recipe.aligned, self.recipe.benign
        if isinstance(aligned, BenignQuery) and isinstance(benign, BenignQuery):
            owners = split_owners(aligned.hub, benign.hub)[("aligned", "benign").index(name)]
        return Purpose(
            name=name,
            description=description,
            base_names=self.base_names,
            aliases=self.recipe.aliases,
            owners=owners,
            taken=[(item.source, item.sha256) for item in references],
        )


def _digests(references: Sequence[Reference]) -> list[tuple[str, str]]:
    return [(item.id, item.sha256) for item in references]


def _manifest(
    recipe: Recipe,
    extraction: Extraction,
    references: list[Reference],
    missing: Mapping[str, str],
) -> Manifest:
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
        limitations=[
            *recipe.limitations,
            *(f"{WITHOUT_REFERENCE} {name}: {why}." for name, why in missing.items()),
        ],
        files={},
    )
