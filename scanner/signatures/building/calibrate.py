"""A calibration set -> the calibration of a pack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scanner.errors import SignatureError, option
from scanner.signatures.building.benign_query import Decisions, Purpose, search_hub
from scanner.signatures.building.grouping import grouped
from scanner.signatures.building.opened import Member, check_disjoint
from scanner.signatures.building.scoring import Scorer, Track, scorer_of, untracked
from scanner.signatures.building.work import SCORED, Work, digest_of, opened_work
from scanner.signatures.manifest import (
    CALIBRATION_FORMAT_VERSION,
    NULLING_NAME,
    BenignScore,
    Calibration,
    Manifest,
    Record,
    ReferenceScore,
    Selection,
)
from scanner.signatures.match import names_of
from scanner.signatures.pack import Directions, Signature, load_crossfit, load_signature
from scanner.signatures.recipe import Benign, BenignQuery, HubQuery
from scanner.signatures.saving import save_calibration
from scanner.signatures.scaling import scaled
from scanner.signatures.score import STATISTIC
from scanner.system.journal import Journal


class Chosen(NamedTuple):
    """A calibration set, scored."""

    scores: list[BenignScore]
    selection: Selection | None = None
    """How it was found, if nobody named its adapters one by one."""


def choose_and_score(
    benign: Benign,
    scorer: Scorer,
    purpose: Purpose,
    track: Track[Any] = untracked,
    work: Work | None = None,
) -> Chosen:
    """Scores a calibration set that is listed, or one that is still to be found on the hub.

    Args:
        benign: The set.
        scorer: The signature.
        purpose: The base model's names, and what a query leaves out.
        track: Shows progress.
        work: Where the scores of a query are kept for a run that goes on with this one.

    Raises:
        SignatureError: As `Scorer.score_all`, or if the hub cannot be asked.
    """
    if isinstance(benign, BenignQuery):
        return _find_and_score(benign.hub, scorer, purpose, track, work)
    return Chosen(scorer.score_all(benign, purpose.base_names, track))


class _Decision(Record, frozen=True, kw_only=True):
    """What became of one candidate, as a line of a journal."""

    candidate: str
    left_out: str | None = None
    """Why, if it is not used."""
    score: BenignScore | None = None


def _find_and_score(
    query: HubQuery, scorer: Scorer, purpose: Purpose, track: Track[Any], work: Work | None
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
        score = scorer.score(member)
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
    """A calibration record from what each adapter scored by itself."""
    return scaled(
        Calibration(
            format_version=CALIBRATION_FORMAT_VERSION,
            statistic=STATISTIC,
            cross_fitted_by="family" if cross_fitted else None,
            benign=benign,
            references=references,
            selection=selection,
        )
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
    ungrouped = 0
    if not isinstance(benign, BenignQuery):
        names, nulled = names_of(manifest.base_model), _nulled_families(manifest)
        benign, ungrouped = grouped(benign, names, track, {*crossfit, *nulled})
    _check_families(manifest, crossfit, benign)

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
            scorer_of(signature, crossfit),
            purpose,
            track,
            kept,
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
            grouped=ungrouped,
        )
        signature.close()
        without = msgspec.structs.replace(manifest, reference_scores=[])
        save_calibration(Path(path), without, calibration)
        if kept is not None:
            kept.finish()
    return load_signature(path)


def _nulled_families(manifest: Manifest) -> set[str]:
    return {item.family or "unnamed" for item in manifest.references if item.role == "aligned"}


def _check_families(manifest: Manifest, crossfit: Mapping[str, Directions], benign: Benign) -> None:
    """Refuses adapters of a family that the signature was nulled with and cannot do without.

    Raises:
        SignatureError: With the first of them.
    """
    if isinstance(benign, BenignQuery) or not manifest.nulled:
        return
    nulled = _nulled_families(manifest)
    for entry in benign:
        family = entry.family or "unnamed"
        if family in nulled and family not in crossfit:
            raise SignatureError(
                f"is of family {family!r}, which the signature is nulled with; the pack keeps no"
                " directions without it",
                where=entry.adapter,
                todo="calibrate on other families",
            )
