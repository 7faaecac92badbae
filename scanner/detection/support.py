"""Whether an adapter lies where the calibration can speak about it.

A score compares what is written at each site with the signature, whatever the size of the update
there. That makes it blind to how an update is spread: a site that is all but idle counts in full,
and what reads inputs that never occur dilutes the rest. So `clear` also asks that nothing else
which the calibration knows of its benign adapters sets this one apart (`detection.spread`): its
size and how that is spread over sites, layers and directions; how much of it the network feels; and
its dose per unit of update, per unit of what is felt, at the strongest site, and whatever is read.

Each statistic is turned into a surprise, -log of the share of benign adapters of the same shape
that go as far, with an exponential tail where they are few. The sum of the `COUNTED` largest
surprises is what is judged, by one conformal p-value (Vovk, Gammerman and Shafer 2005, section
2.2), so that at most `LEVEL` of exchangeable benign adapters are `inconclusive` for it, however
many statistics there are. A little of several things sets one apart as well as much of one.

Which statistics, and how many surprises count, was chosen on the lab's calibration adapters and
references alone (docs/signatures.md). Packs that know nothing of their base's inputs lack those of
what is felt; packs whose calibration says nothing of single sites, those of the spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.detection.evidence import Evidence, SignatureEvidence
from scanner.detection.spread import (
    SiteTable,
    Statistic,
    both_ways,
    input_statistics,
    pack_statistics,
    size_statistics,
    write_statistics,
)
from scanner.formats.model import Site
from scanner.geometry import Matrix
from scanner.results import Shape, Support
from scanner.signatures.manifest import BenignScore
from scanner.signatures.numbers import SiteNumbers
from scanner.signatures.pack import Signature
from scanner.statistics.calibration import GROUP_FLOOR
from scanner.statistics.conformal import conformal_p_value, count_as_high, smallest_level

LEVEL = 0.01
"""Share of benign adapters that may be outside, over all statistics together."""
_ENOUGH = 49
"""So many benign adapters whose sites are known are preferred to more whose sites are not: being
outside all of them happens to at most 2 %."""
_NORM = "the norm of the update"
_UNKNOWN = "the calibration does not say how large its benign adapters are"
_TAIL = 0.9
"""The quantile from which a statistic's tail is taken to be exponential."""
_RARE = 0.05
"""A statistic is named where fewer benign adapters than this go as far."""
COUNTED = 3
"""So many of the largest surprises are added up."""


@dataclass(frozen=True)
class Profile:
    """What the statistics of one adapter under one signature follow from."""

    dose: float
    norm: float
    sites: Mapping[str, SiteNumbers]


def profile_of(item: SignatureEvidence) -> Profile:
    """The profile of the adapter that is scanned."""
    return Profile(item.measured.dose, item.measured.norm, item.measured.sites)


def support_of(evidence: Evidence, counted: int = COUNTED) -> Support:
    """What sets an adapter apart from all benign adapters that its packs were calibrated on.

    Args:
        evidence: The adapter.
        counted: How many of the largest surprises are added up.
    """
    signatures = [item.signature for item in evidence.signatures]
    benign = alike(benign_in_common(signatures), evidence.shape)
    own = [profile_of(item) for item in evidence.signatures]
    if not benign or not all(profile.norm > 0 for profile in own):
        return Support(inside=False, outside=[_UNKNOWN])
    return judge(signatures, own, benign, counted)


def benign_in_common(signatures: Sequence[Signature]) -> list[tuple[BenignScore, ...]]:
    """Benign adapters that all signatures were calibrated on, as each of them scored it."""
    calibrations = [signature.calibration for signature in signatures]
    tables = [
        {score.sha256: score for score in (item.benign if item else [])} for item in calibrations
    ]
    common = sorted(set.intersection(*(set(table) for table in tables))) if tables else []
    found = [tuple(table[key] for table in tables) for key in common]
    return [scores for scores in found if all(score.norm > 0 for score in scores)]


def alike(benign: list[tuple[BenignScore, ...]], shape: Shape) -> list[tuple[BenignScore, ...]]:
    """The benign adapters that one of a shape is compared with.

    Those of its shape, or all of them if those are too few; of them the ones of which the packs
    know what they do at each site, if there are enough.
    """
    same = [item for item in benign if Shape.of(max(score.layers for score in item)) is shape]
    found = same if len(same) >= GROUP_FLOOR else benign
    known = [item for item in found if all(score.sites for score in item)]
    return known if len(known) >= _ENOUGH else found


def judge(
    signatures: Sequence[Signature],
    own: Sequence[Profile],
    benign: Sequence[tuple[BenignScore, ...]],
    counted: int = COUNTED,
) -> Support:
    """Compares one adapter with benign ones.

    Args:
        signatures: The packs.
        own: The adapter's profile under each.
        benign: The benign adapters' scores under each.
        counted: How many of the largest surprises are added up.
    """
    profiles = [
        [own[index], *(profile(item[index]) for item in benign)] for index in range(len(own))
    ]
    statistics = list(compared_statistics(signatures, profiles))
    surprises = np.array([_surprise(item) for item in statistics])
    together = np.sort(surprises, axis=0)[-counted:].sum(axis=0)
    p_value = conformal_p_value(float(together[0]), together[1:])
    if p_value > max(LEVEL, smallest_level(len(benign))):
        return Support(inside=True)
    # What sets it apart: the statistics that alone would be rare, of those that were counted.
    order = np.argsort(-surprises[:, 0])[:counted]
    rare = [index for index in order if surprises[index, 0] >= -math.log(_RARE)]
    return Support(
        inside=False, outside=[_sentence(statistics[index]) for index in rare or order[:1]]
    )


def profile(score: BenignScore) -> Profile:
    """The profile of a benign adapter of a calibration."""
    return Profile(score.dose, score.norm, score.sites)


def compared_statistics(
    signatures: Sequence[Signature], profiles: Sequence[Sequence[Profile]]
) -> Iterator[Statistic]:
    """Every statistic of n + 1 adapters, the scanned one first."""
    sizes = max(profiles, key=lambda adapters: adapters[0].norm)
    yield Statistic(_NORM, np.log([item.norm for item in sizes]), floor=0.05)
    widest: SiteTable | None = None
    for signature, adapters in zip(signatures, profiles, strict=True):
        if not all(math.isfinite(item.dose) for item in adapters):
            continue
        strengths = np.array([item.dose / item.norm for item in adapters])
        per_unit = f"the dose of {signature.id} per unit of update"
        table = SiteTable.of([item.sites for item in adapters])
        if table.knows_inputs:
            yield Statistic(per_unit, strengths)
            yield from pack_statistics(table, signature.id)
        else:
            doses = np.array([item.dose for item in adapters])
            yield Statistic(f"the dose of {signature.id}", doses)
            yield from both_ways(per_unit, strengths)
        if not all(item.sites for item in adapters):
            continue
        if not table.knows_inputs:
            yield from write_statistics(table, _weights(signature, table.sites), signature.id)
        if widest is None or (table.knows_inputs, len(table.sites)) > (
            widest.knows_inputs,
            len(widest.sites),
        ):
            widest = table
    if widest is not None:
        yield from size_statistics(widest)
        if widest.knows_inputs:
            yield from input_statistics(widest)


def _weights(signature: Signature, sites: Sequence[str]) -> Matrix:
    """(m,): ||D||_F at each site, 0 where the signature has no direction."""
    return np.array([signature.direction_norm(Site.from_key(site)) for site in sites])


def _surprise(statistic: Statistic) -> Matrix:
    """(n + 1,): -log of the share of benign adapters that go as far.

    Beyond the `_TAIL` quantile q the share is that of an exponential tail with the mean excess
    over q (Pickands 1975, with shape 0): counting would call everything beyond the last benign
    adapter equally rare.
    """
    values = -statistic.values if statistic.low else statistic.values
    benign = np.sort(values[1:][~np.isnan(values[1:])])
    if not len(benign):
        benign = np.zeros(1)
    start = _quantile(benign, _TAIL)
    beyond = benign[benign > start] - start
    unit = max(float(beyond.mean()) if len(beyond) else 0.0, statistic.floor, 1e-9)
    share: Matrix = 1 - np.searchsorted(benign, values, side="left") / len(benign)
    counted = -np.log(np.maximum(share, 1 - _TAIL))
    tail = -math.log(1 - _TAIL) + (values - start) / unit
    surprise: Matrix = np.where(values > start, tail, counted)
    surprise[np.isnan(values)] = 0.0
    if np.isnan(values[0]):  # what is not known of the scanned adapter is like no benign one
        surprise[0] = np.inf
    return surprise


def _quantile(ascending: Matrix, share: float) -> float:
    """What `np.quantile` gives of sorted values, without its imports: 20 ms of a first call."""
    place = share * (len(ascending) - 1)
    below = int(place)
    lower, upper = ascending[below], ascending[min(below + 1, len(ascending) - 1)]
    part = place - below
    # From the nearer end, as numpy does, so that the last digit is the same.
    rise = upper - lower
    return float(lower + rise * part if part < 0.5 else upper - rise * (1 - part))


def _sentence(statistic: Statistic) -> str:
    """How unusual the scanned adapter is."""
    values = statistic.values
    if np.isnan(values[0]):
        return f"{statistic.what} is not known"
    if statistic.what == _NORM:
        values = np.exp(values)
    sign = -1.0 if statistic.low else 1.0
    as_far = count_as_high(sign * float(values[0]), sign * values[1:])
    count = f"{as_far} of" if as_far else "none of"
    verb = "has" if as_far == 1 else "have"
    amount = "as little" if statistic.low else "as much"
    return (
        f"{statistic.what} is {values[0]:.3g}; {count} the {len(values) - 1} "
        f"benign adapters it is compared with {verb} {amount}"
    )
