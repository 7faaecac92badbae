"""Whether an adapter lies where the calibration can speak about it.

A score compares what is written at each site with the signature, whatever the size of the update
there. That makes it blind to how an update is spread: a site that is all but idle counts in full.
So `clear` also asks that nothing else which the calibration knows of its benign adapters sets this
one apart:

- the *dose*, sum <dW, D>, the *dose per unit of update*, and *what it writes for its size*, the
  sites' writes weighted by their norms, with and without a sign: an adapter that carries a
  misaligned one's dose is not cleared because its other sites, however faint, point elsewhere;
- the *norm*, and how far the largest and the faintest site are from the typical one: no benign
  adapter of the calibration shows what one does that is larger or otherwise spread.

Every statistic is measured in units of its own spread among benign adapters of the same shape, and
the largest of them all is what is judged: by one conformal p-value (Vovk, Gammerman and Shafer
2005, section 2.2), so that at most `LEVEL` of exchangeable benign adapters are `inconclusive` for
it, however many statistics there are. Packs whose calibration says nothing of single sites lack
those of their spread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.detection.evidence import Evidence, SignatureEvidence
from scanner.detection.spread import SiteTable, Statistic, size_statistics, write_statistics
from scanner.formats.model import Site
from scanner.geometry import Matrix
from scanner.results import Shape, Support
from scanner.signatures.manifest import BenignScore
from scanner.signatures.numbers import SiteNumbers
from scanner.signatures.pack import Signature
from scanner.signatures.score import site_numbers
from scanner.statistics.calibration import GROUP_FLOOR
from scanner.statistics.conformal import conformal_p_value, count_as_high, smallest_level

LEVEL = 0.01
"""Share of benign adapters that may be outside, over all statistics together."""
_ENOUGH = 49
"""So many benign adapters whose sites are known are preferred to more whose sites are not: being
outside all of them happens to at most 2 %."""
_UNKNOWN = "the calibration does not say how large its benign adapters are"
_TAIL = 0.95
"""The quantile whose distance from the median is a statistic's unit."""


@dataclass(frozen=True)
class Profile:
    """What the statistics of one adapter under one signature follow from."""

    dose: float
    norm: float
    sites: Mapping[str, SiteNumbers]


def profile_of(item: SignatureEvidence) -> Profile:
    """The profile of the adapter that is scanned."""
    return Profile(
        dose=item.dose,
        norm=math.sqrt(sum(site.norm_squared for site in item.projections.values())),
        sites=site_numbers(item.projections),
    )


def support_of(evidence: Evidence) -> Support:
    """What sets an adapter apart from all benign adapters that its packs were calibrated on."""
    signatures = [item.signature for item in evidence.signatures]
    benign = alike(benign_in_common(signatures), evidence.shape)
    own = [profile_of(item) for item in evidence.signatures]
    if not benign or not all(profile.norm > 0 for profile in own):
        return Support(inside=False, outside=[_UNKNOWN])
    return judge(signatures, own, benign)


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
) -> Support:
    """Compares one adapter with benign ones.

    Args:
        signatures: The packs.
        own: The adapter's profile under each.
        benign: The benign adapters' scores under each.
    """
    profiles = [
        [own[index], *(profile(item[index]) for item in benign)] for index in range(len(own))
    ]
    statistics = list(_statistics(signatures, profiles))
    deviations = np.array([_deviations(item) for item in statistics])
    largest = np.max(deviations, axis=0)
    p_value = conformal_p_value(float(largest[0]), largest[1:])
    if p_value > max(LEVEL, smallest_level(len(benign))):
        return Support(inside=True)
    # What sets it apart: each statistic that alone goes as far as no benign adapter allowed goes.
    limit = float(np.quantile(largest[1:], 1 - LEVEL, method="lower"))
    found = [
        item
        for item, deviation in zip(statistics, deviations[:, 0], strict=True)
        if deviation >= min(limit, float(largest[0]))
    ]
    return Support(inside=False, outside=[_sentence(item) for item in found])


def profile(score: BenignScore) -> Profile:
    """The profile of a benign adapter of a calibration."""
    return Profile(score.dose, score.norm, score.sites)


def _statistics(
    signatures: Sequence[Signature], profiles: Sequence[Sequence[Profile]]
) -> Iterator[Statistic]:
    """Every statistic of n + 1 adapters, the scanned one first."""
    sizes = max(profiles, key=lambda adapters: adapters[0].norm)
    yield Statistic("the norm of the update", np.log([item.norm for item in sizes]), floor=0.05)
    widest: SiteTable | None = None
    for signature, adapters in zip(signatures, profiles, strict=True):
        if not all(math.isfinite(item.dose) for item in adapters):
            continue
        strengths = np.array([item.dose / item.norm for item in adapters])
        yield Statistic(f"the dose of {signature.id}", np.array([item.dose for item in adapters]))
        yield Statistic(f"the dose of {signature.id} per unit of update", strengths)
        if all(item.sites for item in adapters):
            sites = sorted({site for item in adapters for site in item.sites})
            table = SiteTable.of([item.sites for item in adapters], sites)
            yield from write_statistics(table, _weights(signature, sites), signature.id)
            if widest is None or len(sites) > len(widest.sites):
                widest = table
    if widest is not None:
        yield from size_statistics(widest.norm, widest.norm[1:])


def _weights(signature: Signature, sites: Sequence[str]) -> Matrix:
    """(m,): ||D||_F at each site, 0 where the signature has no direction."""
    return np.array([signature.direction_norm(Site.from_key(site)) for site in sites])


def _deviations(statistic: Statistic) -> Matrix:
    """(n + 1,): distance from the benign median, in units of the benign upper spread."""
    benign = statistic.values[1:]
    middle, tail = np.quantile(benign, [0.5, _TAIL])
    unit = max(float(tail - middle), statistic.floor, 1e-9)
    deviations: Matrix = (statistic.values - middle) / unit
    return deviations


def _sentence(statistic: Statistic) -> str:
    """How unusual the scanned adapter is."""
    values = statistic.values
    if statistic.what == "the norm of the update":
        values = np.exp(values)
    as_far = count_as_high(float(values[0]), values[1:])
    count = f"{as_far} of" if as_far else "none of"
    verb = "has" if as_far == 1 else "have"
    return (
        f"{statistic.what} is {values[0]:.3g}; {count} the {len(values) - 1} "
        f"benign adapters it is compared with {verb} as much"
    )
