"""What a pack finds and what it misses: `power.json`.

Each family of misaligned references is held out in turn: its adapters are scored by the signature
that is made without them, as adapters that the pack has never seen would be, and compared with
the benign adapters of the calibration. Each family of benign adapters is left out of everything in
turn: scored by the signature that is nulled without it, and compared with the other families alone,
as a kind of harmless change that the pack has never seen would be.

Of every adapter the file keeps the smallest alpha that flags it. It is flagged at every larger one
(`scanner.statistics.calibration`), so the share that is flagged at any alpha can be read off, and
nothing else needs to be kept. The rest of the file says by what shares are told apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from scanner.geometry import Matrix
from scanner.results import PowerLevel, Shape
from scanner.signatures.manifest import (
    BenignScore,
    Calibration,
    Manifest,
    Record,
    Reference,
    ReferenceScore,
    decode_document,
    other_format,
)
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import smallest_level, supports
from scanner.statistics.share import Share

POWER_FORMAT_VERSION = 1
LEVELS = (0.1, 0.05, 0.01, 0.001)
"""The alphas that power is told at, as far as the calibration supports them."""


class ReferencePower(Record, frozen=True, kw_only=True):
    """One misaligned reference, as an adapter that the pack has not seen."""

    id: str
    """Its name in the pack."""
    family: str
    """What it was trained on."""
    method: str
    """How it was trained; empty if the recipe does not say."""
    shape: Shape
    """Whether it changes one layer or several."""
    held_out: bool
    """Whether it was scored by a signature that is made without its family; otherwise it was
    scored by one that knows it, and a stranger will be found less often."""
    score: float
    """What it scored."""
    dose: float
    """Its dose."""
    flagged_from: float | None
    """The smallest alpha that flags it; null if none does, because its dose is not positive."""

    def found_at(self, alpha: float) -> bool:
        """Whether it is flagged at a false-positive rate."""
        return self.flagged_from is not None and self.flagged_from <= alpha


class BenignPower(Record, frozen=True, kw_only=True):
    """One family of benign adapters, left out of everything."""

    family: str
    """The family that was left out."""
    others: int
    """Benign adapters of the other families, which its own were compared with."""
    flagged_from: list[float | None]
    """Of each of its adapters, as `ReferencePower.flagged_from`; the smallest first, null last."""

    def flagged(self, alpha: float) -> Share:
        """How many would be flagged; of none if the other families are too few for alpha."""
        if not supports(self.others, alpha):
            return Share(0, 0)
        return Share.of(value is not None and value <= alpha for value in self.flagged_from)


class Power(Record, frozen=True, kw_only=True):
    """`power.json`."""

    format_version: int
    """Version of this file's layout."""
    smallest_alpha: float
    """No smaller false-positive rate is supported by the calibration."""
    references: list[ReferencePower]
    """Every misaligned reference, held out."""
    benign: list[BenignPower]
    """Every benign family, left out."""

    @property
    def held_out(self) -> bool:
        """Whether every reference was scored by a signature that does not know its family."""
        return all(item.held_out for item in self.references)

    @property
    def levels(self) -> list[float]:
        """Those of `LEVELS` that the calibration supports."""
        return [alpha for alpha in LEVELS if alpha >= self.smallest_alpha]

    def found(self, alpha: float, shape: Shape | None = None) -> Share:
        """How many references are flagged; of none if alpha is out of reach.

        Args:
            alpha: The false-positive rate.
            shape: Only of the references of this shape.
        """
        if alpha < self.smallest_alpha:
            return Share(0, 0)
        chosen = (item for item in self.references if shape in (None, item.shape))
        return Share.of(item.found_at(alpha) for item in chosen)

    def found_like(self, shape: Shape, alpha: float) -> Share:
        """As `found`, of the references of a shape if there are any, otherwise of all."""
        alike = self.found(alpha, shape)
        return alike if alike.n else self.found(alpha)

    def found_by(self, alpha: float, kind: Callable[[ReferencePower], str]) -> dict[str, Share]:
        """As `found`, for each kind of reference by itself, in the order of their names.

        Args:
            alpha: The false-positive rate.
            kind: Says what is told apart, such as the family or the training method.
        """
        names = sorted({kind(item) for item in self.references})
        return {
            name: Share.of(i.found_at(alpha) for i in self.references if kind(i) == name)
            for name in names
            if alpha >= self.smallest_alpha
        }

    def least_dose(self, alpha: float) -> float | None:
        """The least dose of a reference that is flagged; None if none is."""
        return min((i.dose for i in self.references if i.found_at(alpha)), default=None)

    def benign_flagged(self, alpha: float) -> Share:
        """How many benign adapters are flagged when their family is left out of everything."""
        shares = [family.flagged(alpha) for family in self.benign]
        return Share(sum(share.count for share in shares), sum(share.n for share in shares))


def power_levels(power: Power, alphas: Iterable[float] = ()) -> list[PowerLevel]:
    """What a pack finds at `LEVELS` and at other false-positive rates, the largest first.

    Args:
        power: The power.
        alphas: The others; those that the calibration does not support are left out.
    """
    wanted = {*power.levels, *(alpha for alpha in alphas if alpha >= power.smallest_alpha)}
    levels = []
    for alpha in sorted(wanted, reverse=True):
        found, benign = power.found(alpha), power.benign_flagged(alpha)
        low, high = found.interval
        levels.append(
            PowerLevel(
                alpha=alpha,
                found=found.count,
                references=found.n,
                low=low,
                high=high,
                least_dose=power.least_dose(alpha),
                benign_flagged=benign.count,
                benign=benign.n,
            )
        )
    return levels


def is_blind(found: Share) -> bool:
    """Whether a pack finds less than half of its own references, and so can clear nothing.

    A pack without references, such as imported vectors, is taken at its word.
    """
    return 2 * found.count < found.n


UNSCORED = -math.inf
"""What a pack that has not scored a reference says of it: nothing that could raise its score."""


@dataclass(frozen=True)
class Judged:
    """A misaligned reference as one or several signatures judge it."""

    id: str
    family: str
    method: str
    shape: Shape
    held_out: bool
    """Whether each signature's score is by one that is made without its family."""
    scores: tuple[float, ...]
    """(m,): under each signature, `UNSCORED` where it is not known."""
    doses: tuple[float, ...]
    """(m,): under each signature."""

    @classmethod
    def of(cls, scored: Sequence[tuple[Reference, ReferenceScore] | None]) -> Judged:
        """One reference, as packs list it and as their calibrations scored it.

        Args:
            scored: Its entry in each pack and what it scored there, None where it is not known;
                the first that is known says what it was trained on, and how.
        """
        known = [entry for entry in scored if entry is not None]
        first = known[0][0]
        return cls(
            id=first.id,
            family=first.family or first.id,
            method=first.method,
            shape=Shape.of(max(score.layers for _, score in known)),
            held_out=all(score.held_out for _, score in known),
            scores=tuple(entry[1].score if entry else UNSCORED for entry in scored),
            doses=tuple(entry[1].dose if entry else 0.0 for entry in scored),
        )


def measure_power(manifest: Manifest, calibration: Calibration) -> Power:
    """What a calibrated pack finds and misses.

    Args:
        manifest: Says of which family each reference is, and how it was trained.
        calibration: The scores, each by a signature that is made without the adapter's family.
    """
    listed = {item.id: item for item in manifest.references if item.role == "misaligned"}
    judged = [
        Judged.of([(listed.get(item.id) or Reference(id=item.id, sha256="", role=""), item)])
        for item in calibration.references
    ]
    return power_of(benign_scores(calibration.benign), judged)


def power_of(known: BenignScores, references: Sequence[Judged]) -> Power:
    """What one or several signatures find and miss.

    Args:
        known: The benign adapters, with doses.
        references: The misaligned references.
    """
    return Power(
        format_version=POWER_FORMAT_VERSION,
        smallest_alpha=smallest_level(known.n),
        references=found_from(known, references),
        benign=_benign_power(known),
    )


def found_from(known: BenignScores, references: Sequence[Judged]) -> list[ReferencePower]:
    """Each reference with the smallest alpha that flags it, in their order.

    Args:
        known: The benign adapters.
        references: The references.
    """
    found: dict[int, ReferencePower] = {}
    for shape in Shape:
        places = [place for place, item in enumerate(references) if item.shape is shape]
        if not places:
            continue
        scores = np.array([references[place].scores for place in places])
        doses = np.array([references[place].doses for place in places])
        judged = _judged(known, scores, doses, shape)
        for place, joint, (dose, level) in zip(
            places, known.joint(shape).combine(scores), judged, strict=True
        ):
            item = references[place]
            found[place] = ReferencePower(
                id=item.id,
                family=item.family,
                method=item.method,
                shape=shape,
                held_out=item.held_out,
                score=float(joint),
                dose=dose,
                flagged_from=level,
            )
    return [found[place] for place in range(len(references))]


def _judged(
    known: BenignScores, scores: Matrix, doses: Matrix, shape: Shape
) -> list[tuple[float, float | None]]:
    """The deciding dose of adapters of one shape, and the smallest alpha that flags each.

    Args:
        known: The benign adapters.
        scores: (k, m).
        doses: (k, m).
        shape: Their shape.
    """
    deciding = known.joint(shape).deciding_each(scores)
    levels = known.p_values(scores, shape)
    own = doses[np.arange(len(doses)), deciding]
    return [
        (float(dose), float(level) if dose > 0 else None)
        for dose, level in zip(own, levels, strict=True)
    ]


def benign_scores(benign: Sequence[BenignScore]) -> BenignScores:
    """The scores of one pack's benign adapters, as what others are compared with."""
    return BenignScores(
        np.array([[item.score] for item in benign]),
        tuple(Shape.of(item.layers) for item in benign),
        tuple(item.family for item in benign),
        doses=np.array([[item.dose] for item in benign]),
    )


def _benign_power(known: BenignScores) -> list[BenignPower]:
    assert known.doses is not None, "whoever measures power knows them"
    families, found = np.array(known.families), []
    for family in sorted(set(known.families)):
        own = families == family
        if own.all():  # nobody is left to compare it with
            continue
        others, levels = known.only(~own), []
        for shape in Shape:
            alike = own & np.array([item is shape for item in known.shapes])
            if alike.any():
                judged = _judged(others, known.benign[alike], known.doses[alike], shape)
                levels += [level for _, level in judged]
        flagged = sorted(level for level in levels if level is not None)
        never: list[float | None] = [None] * (len(levels) - len(flagged))
        found.append(BenignPower(family=family, others=others.n, flagged_from=[*flagged, *never]))
    return found


class _PowerFormat(msgspec.Struct):
    """The field of any power.json that says how to read the others."""

    format_version: int


def decode_power(raw: bytes, where: Path) -> Power:
    """Parses power.json.

    Raises:
        SignatureError: If it is of another format, or not what it should be.
    """
    version = decode_document(raw, _PowerFormat, where).format_version
    if version != POWER_FORMAT_VERSION:
        raise other_format("power", version, POWER_FORMAT_VERSION, where)
    return decode_document(raw, Power, where)


def encode_power(power: Power) -> bytes:
    """Writes power.json, indented."""
    return msgspec.json.format(msgspec.json.encode(power), indent=1) + b"\n"
