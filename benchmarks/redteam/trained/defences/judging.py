"""Defences, and what each says of an adapter: of an attacker's files, or of a benign one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.redteam.run import verdict_of
from scanner.detection import spread, support
from scanner.detection.evidence import Evidence
from scanner.detection.verdict import judge
from scanner.formats.model import Site
from scanner.geometry import Matrix
from scanner.results import Shape
from scanner.signatures.manifest import BenignScore
from scanner.signatures.pack import Signature
from scanner.signatures.power import is_blind, measure_power
from scanner.statistics.calibration import BenignScores
from scanner.statistics.conformal import DEFAULT_ALPHA, conformal_p_value

Rule = Literal["score", "larger", "dose", "each", "below"]
"""What decides beside support: the joint score, as shipped; the largest of the packs that ship and
each other pack, as if they were of different kinds; the doses in place of the scores; each pack by
itself at alpha over their number; or the joint score, and low scores and writes are outside."""


@dataclass(frozen=True)
class Defence:
    """Packs, and what is done with them."""

    name: str
    packs: tuple[str, ...]
    """Their names in the tables."""
    rule: Rule = "score"

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each pack, as `BenignScores` has it."""
        if self.rule != "larger":
            return ()
        return tuple("shipped" if pack in SHIPPED else pack for pack in self.packs)


WEIGHTS, GRADIENTS, SPECIFIC, ACTIVATIONS = "weights", "gradients", "specific", "activations"
SHIPPED = (WEIGHTS, GRADIENTS, SPECIFIC, ACTIVATIONS)
PRIVATE = ("private 1", "private 2", "private 3")
ON_PATH = "private on the path"
NULLED = tuple(f"{name}, nulled" for name in PRIVATE)
ON_PATH_NULLED = f"{ON_PATH}, nulled"
HARDENED = ("hardened weights", "hardened gradients")
DEFENCES = (
    Defence("the shipped packs", SHIPPED),
    Defence("weights alone", (WEIGHTS,)),
    Defence("gradients alone", (GRADIENTS,)),
    Defence("specific alone", (SPECIFIC,)),
    Defence("activations alone", (ACTIVATIONS,)),
    Defence("shipped and one private pack", (*SHIPPED, PRIVATE[0])),
    Defence("shipped and three private packs", (*SHIPPED, *PRIVATE)),
    Defence("one private pack alone", PRIVATE[:1]),
    Defence("three private packs alone", PRIVATE),
    Defence("shipped and a private pack on the path", (*SHIPPED, ON_PATH)),
    Defence("a private pack on the path alone", (ON_PATH,)),
    Defence("one nulled private pack alone", NULLED[:1]),
    Defence("three nulled private packs alone", NULLED),
    Defence("a nulled private pack on the path alone", (ON_PATH_NULLED,)),
    Defence("shipped and three nulled private packs", (*SHIPPED, *NULLED)),
    Defence("shipped and a nulled private pack on the path", (*SHIPPED, ON_PATH_NULLED)),
    Defence("shipped or one private pack, the larger", (*SHIPPED, PRIVATE[0]), "larger"),
    Defence("shipped or one nulled private pack, the larger", (*SHIPPED, NULLED[0]), "larger"),
    Defence(
        "shipped, private at the base or on the path, the largest",
        (*SHIPPED, PRIVATE[0], ON_PATH),
        "larger",
    ),
    Defence(
        "shipped, nulled private at the base or on the path, the largest",
        (*SHIPPED, NULLED[0], ON_PATH_NULLED),
        "larger",
    ),
    Defence("shipped, support from below", SHIPPED, "below"),
    Defence("shipped, the doses alone", SHIPPED, "dose"),
    Defence("shipped, each pack at its level", SHIPPED, "each"),
    Defence("shipped and private, support from below", (*SHIPPED, *PRIVATE), "below"),
    Defence("shipped and weights of evaders", (*SHIPPED, HARDENED[0])),
    Defence("shipped and gradients on the path to evaders", (*SHIPPED, HARDENED[1])),
)


@dataclass(frozen=True)
class Measured:
    """What one pack sees of one adapter."""

    score: float
    profile: support.Profile


Benign = Sequence[tuple[BenignScore, ...]]
"""Benign adapters under every pack of a defence."""


def verdict_on(defence: Defence, evidence: Evidence, packs: Mapping[str, Signature]) -> str:
    """What a defence says of an adapter from its files.

    Args:
        defence: The defence.
        evidence: What all packs see of the adapter.
        packs: Them, by their names in the tables.

    Returns:
        `clear`, `flagged`, `outside` (of the support), or `inconclusive`.
    """
    ids = {packs[name].id for name in defence.packs}
    own = tuple(
        item
        for item in evidence.signatures
        if item.signature.id in ids and math.isfinite(item.score)
    )
    if not own:
        return "inconclusive"  # none of its packs sees anything of it
    signatures = [item.signature for item in own]
    measured = [Measured(item.score, support.profile_of(item)) for item in own]
    benign = support.benign_in_common(signatures)
    if all(is_flagged(defence, measured, evidence.shape, benign)):
        return "flagged"
    part = dataclasses.replace(evidence, signatures=own)
    shipped, _why = verdict_of(judge(part.adapter, part, None, DEFAULT_ALPHA))
    if defence.rule == "score" or shipped in ("outside", "inconclusive"):
        return shipped
    # Of what another rule decides, support alone is as the scanner has it.
    return verdict_of_numbers(defence, signatures, measured, evidence.shape, benign)


def verdict_of_numbers(
    defence: Defence,
    signatures: Sequence[Signature],
    own: Sequence[Measured],
    shape: Shape,
    benign: Benign,
) -> str:
    """What a defence says of an adapter by what its packs see of it.

    Args:
        defence: The defence.
        signatures: The packs.
        own: The adapter under each.
        shape: Its shape.
        benign: What it is compared with.
    """
    low, sign = is_flagged(defence, own, shape, benign)
    if low and sign:
        return "flagged"
    alike = support.alike(list(benign), shape)
    if not support.judge(signatures, [item.profile for item in own], alike).inside:
        return "outside"
    if defence.rule == "below" and is_below(signatures, own, alike):
        return "outside"
    return "inconclusive" if low or are_blind(signatures, shape) else "clear"


def are_blind(signatures: Sequence[Signature], shape: Shape) -> bool:
    """Whether no pack finds half of its own references: such packs can clear nothing."""
    found = []
    for item in signatures:
        power = item.power
        if power is None and item.calibration is not None:
            power = measure_power(item.manifest, item.calibration)
        found.append(power is None or is_blind(power.found_like(shape, DEFAULT_ALPHA)))
    return all(found)


def is_flagged(
    defence: Defence, own: Sequence[Measured], shape: Shape, benign: Benign
) -> tuple[bool, bool]:
    """Whether the p-value is low enough, and whether the dose that decides is positive."""
    kept = range(len(own))
    if defence.rule == "each":
        found = [_compared([index], "score", own, shape, benign) for index in kept]
        level = DEFAULT_ALPHA / len(own)
        low = [sign for p_value, sign in found if p_value <= level]
        return bool(low), any(low)
    of = "dose" if defence.rule == "dose" else "score"
    p_value, sign = _compared(kept, of, own, shape, benign, defence.kinds)
    return p_value <= DEFAULT_ALPHA, sign


def _compared(
    columns: Sequence[int],
    of: str,
    own: Sequence[Measured],
    shape: Shape,
    benign: Benign,
    kinds: tuple[str, ...] = (),
) -> tuple[float, bool]:
    """The p-value by some packs' scores or doses, and the sign of the dose that decides."""
    doses = np.array([[item[column].dose for column in columns] for item in benign])
    scores = np.array([[item[column].score for column in columns] for item in benign])
    mine = np.array([own[column].profile.dose for column in columns])
    calibration = BenignScores(
        benign=doses if of == "dose" else scores,
        shapes=tuple(Shape.of(max(score.layers for score in item)) for item in benign),
        families=tuple(item[0].family for item in benign),
        kinds=kinds,
    )
    values = mine if of == "dose" else np.array([own[column].score for column in columns])
    compared = calibration.compare(values, shape, DEFAULT_ALPHA)
    return compared.p_value, bool(mine[compared.deciding] > 0)


def is_below(signatures: Sequence[Signature], own: Sequence[Measured], benign: Benign) -> bool:
    """Whether an adapter scores or writes less than all but a few benign ones under some pack.

    The lowest of its scores and unsigned writes, each in standard deviations of benign adapters,
    is judged by one conformal p-value at `support.LEVEL`.
    """
    columns = []
    for index, signature in enumerate(signatures):
        columns.append([own[index].score, *(item[index].score for item in benign)])
        sites = [own[index].profile.sites, *(item[index].sites for item in benign)]
        table = spread.SiteTable.of(sites)
        known = np.array([signature.direction_norm(Site.from_key(site)) for site in table.sites])
        *_, written = spread.write_statistics(table, known, signature.id)
        columns.append(written.values.tolist())
    return lowest_p_value(np.array(columns).T) <= support.LEVEL


def lowest_p_value(values: Matrix) -> float:
    """The conformal p-value of an adapter's lowest number.

    Args:
        values: (n + 1, k): k numbers of an adapter, first, and of n benign ones.
    """
    benign = values[1:]
    spreads = benign.std(axis=0, ddof=1)
    below = (benign.mean(axis=0) - values) / np.where(spreads > 0, spreads, 1.0)
    lowest = below.max(axis=1)
    return conformal_p_value(float(lowest[0]), lowest[1:])
