"""Scores benign adapters under a signature, cross-fitted by family.

A benign adapter of family f is scored with the signature nulled *without* family f, so the
threshold also holds for kinds of harmless change the signature has never seen. Families
that were not among the nulling set are scored with the signature itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from scanner import geometry
from scanner.errors import SignatureError, option
from scanner.formats.model import Adapter, Site, Update
from scanner.geometry import Direction, SiteProjection
from scanner.signatures.building.benign_query import Decisions, Purpose, search_hub
from scanner.signatures.building.opened import Member, check_disjoint, open_member, source_of
from scanner.signatures.building.work import SCORED, Work, digest_of, opened_work
from scanner.signatures.manifest import (
    CALIBRATION_FORMAT_VERSION,
    NULLING_NAME,
    PARTIAL_METHODS,
    BenignScore,
    Calibration,
    Manifest,
    Record,
    ReferenceScore,
    Selection,
)
from scanner.signatures.match import names_of
from scanner.signatures.pack import Directions, Signature, load_crossfit, load_signature
from scanner.signatures.recipe import AdapterEntry, Benign, BenignQuery, HubQuery
from scanner.signatures.saving import save_calibration
from scanner.signatures.score import STATISTIC, adapter_score, changed_layers, site_numbers
from scanner.system.journal import Journal

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
        if direction is not None and direction.signed:
            _check_fits(adapter, update, direction)
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


def _check_fits(adapter: Adapter, update: Update, direction: Direction) -> None:
    """Refuses an update of another shape than the weight that the direction is of.

    Raises:
        SignatureError: If it is one: the adapter is of another base than it names.
    """
    shape = (len(direction.u), len(direction.v))
    if (update.d_out, update.d_in) != shape:
        raise SignatureError(
            f"{update.site.key} is {update.d_out} x {update.d_in}, "
            f"the signature's base has {shape[0]} x {shape[1]}",
            where=adapter.target,
            todo="it is an adapter of another base than it names",
        )


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
    directions: Callable[[Site], Direction | None],
    crossfit: Mapping[str, Directions],
    purpose: Purpose,
    track: Track[Any] = untracked,
    *,
    partial: bool = False,
    work: Work | None = None,
) -> Chosen:
    """Scores a calibration set that is listed, or one that is still to be found on the hub.

    Args:
        benign: The set.
        directions: As `score_benign`.
        crossfit: As `score_benign`.
        purpose: The base model's names, and what a query leaves out.
        track: As `score_benign`.
        partial: As `score_benign`.
        work: Where the scores of a query are kept for a run that goes on with this one.

    Raises:
        SignatureError: As `score_benign`, or if the hub cannot be asked.
    """
    if isinstance(benign, BenignQuery):
        return _find_and_score(benign.hub, directions, crossfit, purpose, track, partial, work)
    names = purpose.base_names
    return Chosen(score_benign(benign, names, directions, crossfit, track, partial=partial))


class _Decision(Record, frozen=True, kw_only=True):
    """What became of one candidate, as a line of a journal."""

    candidate: str
    left_out: str | None = None
    """Why, if it is not used."""
    score: BenignScore | None = None


def _find_and_score(
    query: HubQuery,
    directions: Callable[[Site], Direction | None],
    crossfit: Mapping[str, Directions],
    purpose: Purpose,
    track: Track[Any],
    partial: bool,
    work: Work | None,
) -> Chosen:
    # Scores belong to the directions they were computed with.
    about = digest_of(work.about, purpose.taken) if work else ""
    journal = Journal(work.path(SCORED) if work else None, about, _Decision)
    scores: list[BenignScore] = []
    decisions = Decisions()
    for kept in journal.kept:
        if kept.score is not None:
            scores.append(kept.score)
            decisions.used[kept.candidate] = kept.score.sha256
        elif kept.left_out is not None:
            decisions.left_out[kept.candidate] = kept.left_out

    def use(candidate: str, member: Member) -> str | None:
        score = score_member(member, directions, crossfit, partial=partial)
        if score is None:
            return "changes nothing the signature has a direction for"
        journal.add(_Decision(candidate=candidate, score=score))
        scores.append(score)
        return None

    def leave_out(candidate: str, reason: str) -> None:
        journal.add(_Decision(candidate=candidate, left_out=reason))

    selection = search_hub(query, purpose, decisions, use, track, leave_out=leave_out, work=work)
    return Chosen(scores, selection)


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
    path: str | Path, benign: Benign, track: Track[Any] = untracked, work: Path | None = None
) -> Signature:
    """Calibrates a pack on benign adapters, replacing the calibration it had.

    Adapters that were dropped from the calibration it had stay out of a set that is found on the
    hub, and stay on the record; one that is listed by name is calibrated on again.

    Args:
        path: The pack.
        benign: The benign adapters, with families, or where on the hub to find them.
        track: Shows progress.
        work: As `build_pack`, for adapters that are to be found on the hub.

    Returns:
        The pack, loaded again.

    Raises:
        SignatureError: If the pack or an adapter is unusable, or an adapter went into the pack.
    """
    signature = load_signature(path)
    manifest, old = signature.manifest, signature.calibration
    crossfit = load_crossfit(signature)
    found_nulling = NULLING_NAME in manifest.files  # of owners that no calibration set has
    if old and old.cross_fitted_by and not (crossfit or found_nulling):
        raise SignatureError(
            "was calibrated by directions that leave families out, and does not hold them any more",
            where=str(path),
            todo="make or build it again with the new benign adapters",
        )

    if not all(signature.direction(site).signed for site in signature.sites):
        raise SignatureError(
            "its directions have no sign, so there is no score to calibrate",
            where=str(path),
            todo=f"import it with {option('inputs')}",
        )
    _check_families(manifest, crossfit, benign)

    def direction(site: Site) -> Direction | None:
        return signature.direction(site) if site in signature.sites else None

    dropped = old.dropped if old else []
    purpose = Purpose(
        name="benign",
        description="scoring benign adapters",
        base_names=names_of(manifest.base_model),
        aliases=manifest.base_model.aliases,
        taken=[(item.source, item.sha256) for item in manifest.references],
        dropped={item.adapter.sha256: item.reason for item in dropped},
    )
    with opened_work(work, digest_of(signature.digest, benign)) as kept:
        chosen = choose_and_score(
            benign,
            direction,
            crossfit,
            purpose,
            track,
            partial=manifest.method in PARTIAL_METHODS,
            work=kept,
        )
        check_disjoint(
            [(item.id, item.sha256) for item in manifest.references],
            [(item.id, item.sha256) for item in chosen.scores],
        )
        back = {item.sha256 for item in chosen.scores}
        calibration = msgspec.structs.replace(
            make_calibration(
                chosen.scores,
                old.references if old else manifest.reference_scores,
                bool(crossfit) or found_nulling,
                chosen.selection,
            ),
            dropped=[item for item in dropped if item.adapter.sha256 not in back],
        )
        signature.close()
        without = msgspec.structs.replace(manifest, reference_scores=[])
        save_calibration(Path(path), without, calibration)
        if kept is not None:
            kept.finish()
    return load_signature(path)


def _check_families(manifest: Manifest, crossfit: Mapping[str, Directions], benign: Benign) -> None:
    """Refuses adapters of a family that the signature was nulled with and cannot do without.

    Raises:
        SignatureError: With the first of them.
    """
    if isinstance(benign, BenignQuery) or not manifest.nulled:
        return
    nulled = {item.family or "unnamed" for item in manifest.references if item.role == "aligned"}
    for entry in benign:
        family = entry.family or "unnamed"
        if family in nulled and family not in crossfit:
            raise SignatureError(
                f"is of family {family!r}, which the signature is nulled with; the pack keeps no"
                " directions without it",
                where=entry.adapter,
                todo="calibrate on other families",
            )
