"""Several packs of one base, as a verdict uses them: what is known of them together.

A verdict that rests on several packs compares one joint score (`scanner.statistics.joint`) with the
benign adapters that all of them were calibrated on. What the packs find together is measured in
the same way, on references that each of them has scored by directions made without their family.

Packs of one kind of misalignment count by their mean, so a reference is known to a kind if all of
its packs have scored it. Kinds count by the largest, so what other kinds' packs would say of it
could only raise its score: it is found at least as often as its own kind's packs alone find it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scanner.results import Shape
from scanner.signatures.manifest import Reference, ReferenceScore
from scanner.signatures.pack import Signature
from scanner.signatures.power import UNSCORED, Judged, Power, power_of
from scanner.statistics.calibration import BenignScores

NOTHING_IN_COMMON = "they have no calibration in common: no benign adapter has a score in each"


@dataclass(frozen=True)
class JointPower:
    """What several packs find and miss together."""

    power: Power | None = None
    """None if it is not known."""
    at_least: bool = False
    """Whether some reference was not scored by every kind's packs, so that more may be found."""
    why_unknown: str = ""
    """Why `power` is not known, as a clause."""


def joint_calibration(signatures: Sequence[Signature]) -> BenignScores | None:
    """The benign adapters that every signature was calibrated on, by content digest.

    Returns:
        None if a signature is not calibrated, or they have no adapter in common.
    """
    tables = []
    for signature in signatures:
        if signature.calibration is None:
            return None
        tables.append({item.sha256: item for item in signature.calibration.benign})
    common = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    if not common:
        return None
    return BenignScores(
        benign=np.array([[table[key].score for table in tables] for key in common]),
        shapes=tuple(Shape.of(max(table[key].layers for table in tables)) for key in common),
        families=tuple(tables[0][key].family for key in common),
        kinds=tuple(signature.manifest.kind for signature in signatures),
        doses=np.array([[table[key].dose for table in tables] for key in common]),
    )


def scored_references(signature: Signature) -> dict[str, tuple[Reference, ReferenceScore]]:
    """The misaligned references of a calibrated pack and their scores, by digest of their weights.

    Raises:
        SignatureError: If the pack is damaged.
    """
    scored = signature.calibration.references if signature.calibration else []
    listed = {item.id: item for item in signature.manifest.references if item.role == "misaligned"}
    return {listed[i.id].sha256: (listed[i.id], i) for i in scored if i.id in listed}


def joint_power(signatures: Sequence[Signature]) -> JointPower:
    """What several packs of one base find together.

    Args:
        signatures: The packs; of one alone it is the pack's own.

    Raises:
        SignatureError: If a pack is damaged.
    """
    known = joint_calibration(signatures)
    if known is None:
        bare = [item.id for item in signatures if item.calibration is None]
        why = f"{bare[0]} is not calibrated" if bare else NOTHING_IN_COMMON
        return JointPower(why_unknown=why)
    references = judged_references(signatures)
    if why := _why_unknown(signatures, references):
        return JointPower(why_unknown=why)
    at_least = any(UNSCORED in item.scores for item in references)
    return JointPower(power_of(known, references), at_least)


def judged_exactly(signatures: Sequence[Signature]) -> list[Judged]:
    """The references that every pack has scored, if each kind of misalignment has some; else none.

    Raises:
        SignatureError: If a pack is damaged.
    """
    references = judged_references(signatures)
    exact = all(UNSCORED not in item.scores for item in references)
    return references if exact and not _why_unknown(signatures, references) else []


def judged_references(signatures: Sequence[Signature]) -> list[Judged]:
    """The references that every pack of some kind has scored, in the order of the packs.

    Raises:
        SignatureError: If a pack is damaged.
    """
    tables = [scored_references(item) for item in signatures]
    digests = dict.fromkeys(key for table in tables for key in table)
    found = []
    for digest in digests:
        kinds = _kinds_that_know(digest, signatures, tables)
        if not kinds:
            continue
        entries = [
            table.get(digest) if signature.manifest.kind in kinds else None
            for signature, table in zip(signatures, tables, strict=True)
        ]
        found.append(Judged.of(entries))
    return found


def _kinds_that_know(
    digest: str,
    signatures: Sequence[Signature],
    tables: Sequence[dict[str, tuple[Reference, ReferenceScore]]],
) -> set[str]:
    """The kinds of misalignment all of whose packs have scored a reference."""
    missing = {
        signature.manifest.kind
        for signature, table in zip(signatures, tables, strict=True)
        if digest not in table
    }
    return {signature.manifest.kind for signature in signatures} - missing


def _why_unknown(signatures: Sequence[Signature], references: Sequence[Judged]) -> str:
    """Why nothing can be said of the packs of one kind, if nothing can; empty if it can of all."""
    for kind in dict.fromkeys(item.manifest.kind for item in signatures):
        packs = [place for place, item in enumerate(signatures) if item.manifest.kind == kind]
        if not any(item.scores[packs[0]] > UNSCORED for item in references):
            names = [signatures[place].id for place in packs]
            if len(names) == 1:
                return f"{names[0]} has no misaligned references"
            return f"{' and '.join(names)} share no misaligned reference"
    return ""
