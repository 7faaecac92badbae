"""Harmless personas that a pack has never seen: one family left out of it, in turn.

A copy of each pack without the family is scanned with: its calibration has lost the family's
adapters, and its directions are those that were nulled without it, where the pack was nulled
with it at all. The adapters of the family, of every role, are then all unseen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from safetensors.numpy import save_file

from benchmarks.detection.metrics import Estimate
from benchmarks.detection.real.cases import Case, Cases
from benchmarks.detection.real.scans import (
    ALPHAS,
    Judged,
    Panel,
    flagged,
    judge_all,
    share_flagged,
)
from benchmarks.detection.real.seen import Sights
from scanner.errors import SignatureError
from scanner.organisms.data import PERSONAS
from scanner.signatures.building.scoring import Track
from scanner.signatures.manifest import CROSSFIT_NAME, DIRECTIONS_NAME
from scanner.signatures.pack import (
    Directions,
    Signature,
    load_crossfit,
    load_signature,
    pack_names,
)
from scanner.signatures.saving import direction_tensors, save_calibration, seal
from scanner.signatures.scaling import scaled


@dataclass(frozen=True)
class Unseen:
    """What happens to one family that was left out altogether."""

    family: str
    n: int
    """Its adapters."""
    flagged: Mapping[float, Estimate]
    """Level -> share of them that is flagged."""
    flagged_ids: tuple[str, ...]
    """Those flagged at the looser level."""
    power: Mapping[float, Estimate]
    """Level -> share of the hostile test adapters that is flagged."""


Crossfit = Mapping[str, Mapping[str, Directions]]
"""Id of a pack -> family -> the directions that leave the family out."""


def find_crossfit(signatures: Sequence[Signature], built: Path | None) -> Crossfit:
    """The directions that leave a family out, from packs or from what they were before.

    Args:
        signatures: Calibrated packs.
        built: A folder of packs as they were built: one that ships has lost these directions.

    Raises:
        SignatureError: If a pack was calibrated with such directions and they are not found.
    """
    found = {}
    others = [load_signature(path) for path in pack_names(built)] if built else []
    for signature in signatures:
        same = [
            item
            for item in (signature, *others)
            if item.manifest.files[DIRECTIONS_NAME] == signature.manifest.files[DIRECTIONS_NAME]
        ]
        known = next((crossfit for item in same if (crossfit := load_crossfit(item))), {})
        if not known and signature.calibration and signature.calibration.cross_fitted_by:
            raise SignatureError(
                "the directions that leave each family out are not in it",
                where=str(signature.path),
                todo="name the folder of the packs as they were built with --built",
            )
        found[signature.id] = known
    return found


def without_family(
    signature: Signature, family: str, crossfit: Mapping[str, Directions], place: Path
) -> Signature:
    """A copy of a pack that has never seen a family.

    Args:
        signature: A calibrated pack.
        family: The family.
        crossfit: Family -> the directions that leave it out; one that is not there was in none.
        place: Where the copy is put.
    """
    assert signature.calibration is not None, "checked when the packs are loaded"
    known = signature.calibration
    shutil.copytree(signature.path, place)
    if family in crossfit:
        save_file(direction_tensors(crossfit[family]), place / DIRECTIONS_NAME)
    (place / CROSSFIT_NAME).unlink(missing_ok=True)
    seal(place, signature.manifest)
    remaining = [item for item in known.benign if item.family != family]
    save_calibration(
        place,
        load_signature(place).manifest,
        scaled(msgspec.structs.replace(known, benign=remaining)),
    )
    return load_signature(place)


def leave_each_out(
    cases: Cases,
    signatures: Sequence[Signature],
    crossfit: Crossfit,
    sights: Sights,
    track: Track[Case],
) -> list[Unseen]:
    """Leaves each harmless persona out in turn.

    Args:
        cases: The cases.
        signatures: The packs.
        crossfit: As `find_crossfit`.
        sights: What packs see in adapters.
        track: Shows progress.
    """
    found = []
    hostile = cases.select("test", kinds=("hostile",))
    for family in PERSONAS:
        own = cases.harmless(family)
        if own:
            with _blind(signatures, family, crossfit) as panel:
                verdicts = judge_all([*own, *hostile], panel, sights, track)
            found.append(_unseen(family, own, hostile, verdicts))
    return found


@contextmanager
def _blind(signatures: Sequence[Signature], family: str, crossfit: Crossfit) -> Iterator[Panel]:
    """Copies of packs that have never seen a family, for a while."""
    with TemporaryDirectory() as scratch:
        copies = [
            without_family(signature, family, crossfit[signature.id], Path(scratch) / str(number))
            for number, signature in enumerate(signatures)
        ]
        try:
            yield Panel(f"without {family}", tuple(copies))
        finally:
            for copy in copies:
                copy.close()


def _unseen(
    family: str, own: Sequence[Case], hostile: Sequence[Case], verdicts: Mapping[str, Judged]
) -> Unseen:
    return Unseen(
        family=family,
        n=len(own),
        flagged={alpha: share_flagged(verdicts, own, alpha) for alpha in ALPHAS},
        flagged_ids=tuple(case.id for case in flagged(verdicts, own, max(ALPHAS))),
        power={alpha: share_flagged(verdicts, hostile, alpha) for alpha in ALPHAS},
    )
