"""Scores benign adapters under a signature, cross-fitted by family.

A benign adapter of family f is scored with the signature nulled *without* family f, so the
threshold also holds for kinds of harmless change the signature has never seen. Families
that were not among the nulling set are scored with the signature itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from scanner import geometry
from scanner.errors import SignatureError
from scanner.formats.model import Adapter, Site
from scanner.geometry import Direction, SiteProjection
from scanner.signatures.building.opened import Member, check_disjoint, open_member, source_of
from scanner.signatures.manifest import (
    CALIBRATION_FORMAT_VERSION,
    PARTIAL_METHODS,
    BenignScore,
    Calibration,
    ReferenceScore,
    Selection,
)
from scanner.signatures.match import names_of
from scanner.signatures.pack import Directions, Signature, load_crossfit, load_signature
from scanner.signatures.recipe import AdapterEntry, Benign, BenignQuery
from scanner.signatures.saving import save_calibration
from scanner.signatures.score import STATISTIC, adapter_score, changed_layers, site_numbers

Item = TypeVar("Item")
Track = Callable[[Sequence[Item], str], Iterable[Item]]
"""Wraps a sequence to show progress under a description."""


def untracked(items: Sequence[Item], description: str) -> Iterable[Item]:  # noqa: ARG001
    """A `Track` that shows nothing."""
    return items


def project_adapter(
    adapter: Adapter, direction_at: Callable[[Site], Direction | None], partial: bool = False
) -> dict[Site, SiteProjection]:
    """Projects a benign adapter onto a signature.

    Args:
        adapter: The adapter.
        direction_at: The signature.
        partial: Whether sites without a direction are left aside.

    Returns:
        The projection at every site; empty if the signature is partial and sees nothing.

    Raises:
        SignatureError: If the adapter changes nothing, holds NaN, or changes a site without
            a direction and the signature is not partial: its score would not be comparable.
    """
    projections: dict[Site, SiteProjection] = {}
    for update in adapter.updates:
        direction = direction_at(update.site)
        if direction is None and not partial:
            raise SignatureError(
                f"changes {update.site.key}, where the signature has no direction",
                where=adapter.target,
            )
        if direction is not None:
            projections[update.site] = geometry.project(update.prepared(), direction)
    if projections and not math.isfinite(adapter_score(projections)):
        raise SignatureError("is untrained or holds NaN or Inf", where=adapter.target)
    return projections


def score_benign(
    entries: Sequence[AdapterEntry],
    base_names: set[str],
    directions: Callable[[Site], Direction | None],
    crossfit: Mapping[str, Directions],
    track: Track[AdapterEntry] = untracked,
    *,
    partial: bool = False,
) -> list[BenignScore]:
    """Scores a calibration set, one adapter open at a time.

    Args:
        entries: The adapters.
        base_names: Normalised names of the base model.
        directions: The signature.
        crossfit: Family -> the signature nulled without it.
        track: Shows progress.
        partial: Whether the signature covers some modules only. Adapters that change none
            of them have no score, and are left out.

    Raises:
        SignatureError: If an adapter cannot be scored, or stands in the set twice.
    """
    scores: list[BenignScore] = []
    seen: dict[str, str] = {}
    for entry in track(entries, "scoring benign adapters"):
        member = open_member(entry, base_names)
        with member.adapter:
            if member.sha256 in seen:
                raise SignatureError(
                    f"the same weights as {seen[member.sha256]}", where=entry.adapter
                )
            seen[member.sha256] = entry.name
            if score := score_member(member, directions, crossfit, partial=partial):
                scores.append(score)
    return scores


def score_member(
    member: Member,
    directions: Callable[[Site], Direction | None],
    crossfit: Mapping[str, Directions],
    *,
    partial: bool = False,
) -> BenignScore | None:
    """Scores one adapter, under the signature nulled without its family if there is one.

    Args:
        member: The adapter.
        directions: As `score_benign`.
        crossfit: As `score_benign`.
        partial: As `score_benign`.

    Returns:
        The score; None if the signature is partial and sees nothing of the adapter.

    Raises:
        SignatureError: If it cannot be scored.
    """
    adapter, entry = member.adapter, member.entry
    family = entry.family or "unnamed"
    own = crossfit.get(family)
    projections = project_adapter(adapter, own.get if own else directions, partial)
    if not projections:
        return None
    return BenignScore(
        id=entry.name,
        sha256=member.sha256,
        family=family,
        score=adapter_score(projections),
        cosine=geometry.cosine(projections.values()),
        dose=geometry.dose(projections.values()),
        norm=math.sqrt(sum(item.norm_squared for item in projections.values())),
        rank=max(update.rank for update in adapter.updates),
        layers=changed_layers(projections),
        modules=sorted({update.module for update in adapter.updates}),
        source=source_of(entry),
        revision=entry.revision,
        sites=site_numbers(projections, digits=4),
    )


class Chosen(NamedTuple):
    """A calibration set, scored."""

    scores: list[BenignScore]
    selection: Selection | None = None
    """How it was found, if nobody named its adapters one by one."""


def choose_and_score(
    benign: Benign,
    base_names: set[str],
    directions: Callable[[Site], Direction | None],
    crossfit: Mapping[str, Directions],
    track: Track[AdapterEntry] = untracked,
    *,
    partial: bool = False,
    taken: Sequence[tuple[str, str]] = (),
) -> Chosen:
    """Scores a calibration set that is listed, or one that is still to be found on the hub.

    Args:
        benign: The set.
        base_names: As `score_benign`.
        directions: As `score_benign`.
        crossfit: As `score_benign`.
        track: As `score_benign`.
        partial: As `score_benign`.
        taken: Source and sha256 of what the signature was built from; a query leaves them out.

    Raises:
        SignatureError: As `score_benign`, or if the hub cannot be asked.
    """
    if isinstance(benign, BenignQuery):
        from scanner.signatures.building.benign_query import score_query

        def score(member: Member) -> BenignScore | None:
            return score_member(member, directions, crossfit, partial=partial)

        return Chosen(*score_query(benign.hub, base_names, score, track, taken))
    return Chosen(score_benign(benign, base_names, directions, crossfit, track, partial=partial))


def make_calibration(
    benign: list[BenignScore],
    references: list[ReferenceScore],
    cross_fitted: bool,
    selection: Selection | None = None,
) -> Calibration:
    """A calibration record from scores."""
    return Calibration(
        format_version=CALIBRATION_FORMAT_VERSION,
        statistic=STATISTIC,
        cross_fitted_by="family" if cross_fitted else None,
        benign=benign,
        references=references,
        selection=selection,
    )


def calibrate_pack(
    path: str | Path, benign: Benign, track: Track[AdapterEntry] = untracked
) -> Signature:
    """Calibrates a pack on benign adapters, replacing the calibration it had.

    Args:
        path: The pack.
        benign: The benign adapters, with families, or where on the hub to find them.
        track: Shows progress.

    Returns:
        The pack, loaded again.

    Raises:
        SignatureError: If the pack or an adapter is unusable, or an adapter went into the pack.
    """
    signature = load_signature(path)
    manifest, old = signature.manifest, signature.calibration
    crossfit = load_crossfit(signature)
    if old and old.cross_fitted_by and not crossfit:
        raise SignatureError(
            "was calibrated by directions that leave families out, and does not hold them any more",
            where=str(path),
            todo="make or build it again with the new benign adapters",
        )

    if not all(signature.direction(site).signed for site in signature.sites):
        raise SignatureError(
            "its directions have no sign, so there is no score to calibrate",
            where=str(path),
            todo="import it with --inputs",
        )

    def direction(site: Site) -> Direction | None:
        return signature.direction(site) if site in signature.sites else None

    chosen = choose_and_score(
        benign,
        names_of(manifest.base_model),
        direction,
        crossfit,
        track,
        partial=manifest.method in PARTIAL_METHODS,
        taken=[(item.source, item.sha256) for item in manifest.references],
    )
    check_disjoint(
        [(item.id, item.sha256) for item in manifest.references],
        [(item.id, item.sha256) for item in chosen.scores],
    )
    calibration = make_calibration(
        chosen.scores, old.references if old else [], bool(crossfit), chosen.selection
    )
    signature.close()
    save_calibration(Path(path), manifest, calibration)
    return load_signature(path)
