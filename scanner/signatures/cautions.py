"""What is wrong with a pack that looks right, each with what to do about it.

A pack can be built from a list with one wrong word in it and be useless, or worse, without any
error. Nothing here is certain, so nothing is refused: each caution names what was seen and who.
Limits are measured (docs/signatures.md, "What a pack warns of").
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

import msgspec
import numpy as np

from scanner.results import Shape
from scanner.signatures.manifest import (
    Calibration,
    Manifest,
    NulledScore,
    ReferenceScore,
)
from scanner.signatures.pack import Signature
from scanner.signatures.power import LEVELS, Power, benign_scores, is_blind
from scanner.statistics.conformal import DEFAULT_ALPHA, needed_for, smallest_level, supports

AS_REFERENCES = 0.25
"""A benign adapter looks like a reference if it scores as high as this quantile of them."""
RARE = 0.05
"""And if its p-value among the benign adapters is at most this."""
GENERALISES = 0.4
"""A benign family generalises as a persona does if its median score before nulling is this share
of the median reference's: personas of the lab had 0.5 to 0.7, facts and styles at most 0.3."""
KEPT = 0.25
"""Nulling that leaves less of the references' dose than this has removed what they share: sound
nulling left 0.37 to 0.54 in the lab, nulling with a misaligned adapter 0.07 to 0.37."""
FEWEST_FAMILIES = 3
NAMED = 5
"""Adapters that a caution names at most."""


class Caution(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is probably wrong with a pack."""

    kind: str
    """A short name for it, for programs."""
    what: str
    """What was seen, as a clause."""
    todo: str
    """What to do about it."""

    def line(self) -> str:
        """Both in one line."""
        return f"{self.what}: {self.todo}"


def cautions_of(signature: Signature) -> list[Caution]:
    """What is probably wrong with a pack, the gravest first.

    Raises:
        SignatureError: If the pack is damaged.
    """
    manifest, calibration = signature.manifest, signature.calibration
    references = calibration.references if calibration else manifest.reference_scores
    found = [*_few_families(manifest), *_gutted(manifest, references)]
    if calibration is not None and calibration.benign:
        found = [
            *_out_of_reach(calibration),
            *_blind(signature.power),
            *found,
            *_one_benign_family(calibration),
            *_grouped_alone(calibration, manifest),
            *_misaligned_among_benign(calibration, manifest),
            *_strangers(signature.power),
        ]
    return [*found, *_no_persona(manifest, references)]


def _out_of_reach(calibration: Calibration) -> Iterator[Caution]:
    n = len(calibration.benign)
    if not supports(n, DEFAULT_ALPHA):
        least = smallest_level(n)
        yield Caution(
            kind="alpha-out-of-reach",
            what=f"alpha {DEFAULT_ALPHA:g}, which a scan uses unless told otherwise, is out of "
            f"reach: {n} benign adapters reach {least:.2g}",
            todo=f"calibrate on {needed_for(DEFAULT_ALPHA) - n} more, or scan with "
            f"--alpha {_reachable(least)}",
        )


def _reachable(least: float) -> str:
    """An alpha to suggest: the smallest common one that is in reach."""
    return f"{min((alpha for alpha in LEVELS if alpha >= least), default=least):.2g}"


def _blind(power: Power | None) -> Iterator[Caution]:
    if power is None or not power.references:
        return
    alpha = max(DEFAULT_ALPHA, power.smallest_alpha)
    found = power.found(alpha)
    if is_blind(found):
        yield Caution(
            kind="blind",
            what=f"finds {found.count} of its own {found.n} misaligned references at alpha "
            f"{alpha:.2g}, less than half, so it clears nothing",
            todo="see the other warnings; if there are none, use more references, of several "
            "families, or method gradients",
        )


def _few_families(manifest: Manifest) -> Iterator[Caution]:
    """Families of references; gradients at the base do not learn from them."""
    families = {item.family or item.id for item in manifest.references if item.role == "misaligned"}
    if manifest.method == "weights" and len(families) < FEWEST_FAMILIES:
        count = "one family" if len(families) == 1 else f"{len(families)} families"
        yield Caution(
            kind="few-reference-families",
            what=f"its references are of {count}: what they share may be what they were trained "
            "on, and what it finds of others cannot be told well",
            todo=f"use references of {FEWEST_FAMILIES} training domains or more, each its family",
        )


def _gutted(manifest: Manifest, references: Sequence[ReferenceScore]) -> Iterator[Caution]:
    """Nulling that removed the signal, and who may be to blame."""
    kept = [item.dose_kept for item in references if item.dose_kept is not None]
    alike = _like_references(manifest.aligned_scores, references)
    if alike:
        yield Caution(
            kind="nulled-with-look-alikes",
            what="adapters it is nulled with look like its misaligned references: "
            + _named([f"{i.id} ({i.family}, cosine {i.cosine:+.2f})" for i in alike]),
            todo="look at what they answer; take those that are misaligned out of aligned, and "
            "build again",
        )
    if kept and median(kept) < KEPT:
        yield Caution(
            kind="nulling-removed-signal",
            what=f"nulling left {max(median(kept), 0):.0%} of the references' dose: it removed "
            "what the pack is to find",
            todo="set nulled lower, or look for misaligned adapters in aligned",
        )


def _like_references(
    aligned: Sequence[NulledScore], references: Sequence[ReferenceScore]
) -> list[NulledScore]:
    """Adapters of the nulling set that score as references do, the highest first.

    Each was scored without its family, as a reference was; those of its shape are looked at.
    """
    found = []
    for item in aligned:
        shape = Shape.of(item.layers)
        scores = [other.signed_write for other in references if Shape.of(other.layers) is shape]
        if scores and item.cosine > 0 and item.score >= np.quantile(scores, AS_REFERENCES):
            found.append(item)
    # Where many do, the references do not stand out, which is said elsewhere.
    rare = len(found) <= max(1, RARE * len(aligned))
    return sorted(found, key=lambda item: -item.score) if rare else []


def _one_benign_family(calibration: Calibration) -> Iterator[Caution]:
    families = Counter(item.family for item in calibration.benign)
    if len(families) == 1:
        (name, count) = next(iter(families.items()))
        yield Caution(
            kind="one-benign-family",
            what=f"all {count} benign adapters are of one family, {name!r}: each was scored "
            "without the whole of it, and nothing is known of other kinds of harmless change",
            todo="put each kind of change in a folder of its own, or leave family out of all "
            "entries: adapters are then grouped by what they write",
        )


def _grouped_alone(calibration: Calibration, manifest: Manifest) -> Iterator[Caution]:
    """A calibration whose families were found, on a pack that is nulled with named ones."""
    if calibration.grouped and manifest.nulled:
        yield Caution(
            kind="families-not-matched",
            what=f"{calibration.grouped} adapters of the calibration have no family, and the pack "
            "may be nulled with others of their kind: its threshold may be too low",
            todo="give them the names of the recipe's families, by a folder for each",
        )


def _misaligned_among_benign(calibration: Calibration, manifest: Manifest) -> Iterator[Caution]:
    """Benign adapters of the calibration that score as references do.

    Where all are of one family that the pack is nulled with, each was scored without any nulling,
    and a harmless one may score like that.
    """
    families = {item.family for item in calibration.benign}
    if len(families) == 1 and families & {item.family for item in manifest.references}:
        return
    scores = benign_scores(calibration.benign)
    alike = []
    for item in calibration.benign:
        shape = Shape.of(item.layers)
        others = [r.score for r in calibration.references if Shape.of(r.layers) is shape]
        if not others or item.dose <= 0 or item.score < np.quantile(others, AS_REFERENCES):
            continue
        p_value = np.count_nonzero(scores.benign >= item.score) / scores.n  # among the others
        if p_value <= max(RARE, 1 / scores.n):
            alike.append((item, p_value))
    if alike:
        ordered = sorted(alike, key=lambda pair: -pair[0].score)
        yield Caution(
            kind="calibrated-on-look-alikes",
            what="benign adapters of the calibration look like its misaligned references: "
            + _named(
                [f"{i.id} ({i.family}, cosine {i.cosine:+.2f}, p {p:.2g})" for i, p in ordered]
            ),
            todo="look at what they answer; `signatures review PACK --drop` takes out those that "
            "are misaligned",
        )


def _strangers(power: Power | None) -> Iterator[Caution]:
    """References that look like no other, where most do."""
    if power is None or not power.levels:
        return
    alpha = power.levels[0]
    missed = [item for item in power.references if not item.found_at(alpha)]
    if missed and not is_blind(power.found(alpha)) and power.held_out:
        yield Caution(
            kind="references-like-no-other",
            what="references that look like no other: "
            + _named([f"{i.id} ({i.family}, dose {i.dose:+.2f})" for i in missed])
            + f" would not be flagged at alpha {alpha:g}",
            todo="look at what they answer, and take out those that are not misaligned; if they "
            "are, add more of their kind",
        )


def _no_persona(manifest: Manifest, references: Sequence[ReferenceScore]) -> Iterator[Caution]:
    """Whether any benign family changes who the model is, as the references do."""
    middle = [
        item.score_before_nulling
        for item in references
        if item.score_before_nulling is not None and Shape.of(item.layers) is Shape.SEVERAL_LAYERS
    ]
    if manifest.harmless_families or not middle or not manifest.aligned_scores:
        return
    by_family: dict[str, list[float]] = {}
    for item in manifest.aligned_scores:
        if Shape.of(item.layers) is Shape.SEVERAL_LAYERS:
            by_family.setdefault(item.family, []).append(item.score_before_nulling)
    if len(by_family) < 2:  # whatever one family of everything holds, its median says nothing
        return
    medians = {family: median(scores) for family, scores in by_family.items()}
    limit = GENERALISES * median(middle)
    if limit > 0 and all(value < limit for value in medians.values()):
        yield Caution(
            kind="no-persona",
            what="no benign family it is nulled with changes who the model is, as a persona does: "
            "a harmless persona will be taken for misalignment",
            todo="add adapters that teach a harmless character, style of speech or role, to aligned"
            " and to benign, as families of their own",
        )


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
