"""Whether an adapter lies where the calibration can speak about it.

A score compares what is written at each site with the signature, whatever the size of the update
there. That makes it blind to how an update is spread: a site that is all but idle counts in full.
So `clear` also asks that nothing else which the calibration knows of its benign adapters sets this
one apart:

- *dose per unit of update*, sum <dW, D> / ||dW||: an adapter that carries a misaligned one's dose
  in an update of ordinary size is not cleared because its other sites, however faint, point
  elsewhere;
- *size*, ||dW||: no benign adapter of the calibration shows what a larger one does.

Each is a conformal p-value of its own (Vovk, Gammerman and Shafer 2005, section 2.2) among
benign adapters of the same shape. Together they send at most `LEVEL` of exchangeable benign
adapters to `inconclusive`, by Bonferroni's inequality, where the calibration is large enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.detection.evidence import Evidence, SignatureEvidence
from scanner.geometry import Matrix
from scanner.results import Shape, Support
from scanner.signatures.manifest import BenignScore
from scanner.statistics.calibration import GROUP_FLOOR
from scanner.statistics.conformal import count_as_high, smallest_level

LEVEL = 0.01
"""Share of benign adapters that may be outside, over all statistics together."""


@dataclass(frozen=True)
class _Statistic:
    """One number of an adapter beside those of benign adapters; a high one is unusual."""

    what: str
    value: float
    benign: Matrix
    """(n,)."""

    def is_outside(self, level: float) -> bool:
        """Whether its conformal p-value is at most the level, or the least there can be."""
        as_high = count_as_high(self.value, self.benign)
        least = smallest_level(len(self.benign))
        return (1 + as_high) / (len(self.benign) + 1) <= max(level, least)

    def sentence(self) -> str:
        """How unusual it is."""
        as_high = count_as_high(self.value, self.benign)
        count = f"{as_high} of" if as_high else "none of"
        verb = "has" if as_high == 1 else "have"
        return (
            f"{self.what} is {self.value:.3g}; {count} the {len(self.benign)} benign adapters "
            f"it is compared with {verb} as much"
        )


def support_of(evidence: Evidence) -> Support:
    """What sets an adapter apart from all benign adapters that its packs were calibrated on."""
    statistics = list(_statistics(evidence))
    level = LEVEL / max(len(statistics), 1)
    outside = [item.sentence() for item in statistics if item.is_outside(level)]
    return Support(inside=not outside, outside=outside)


def _statistics(evidence: Evidence) -> Iterator[_Statistic]:
    largest: _Statistic | None = None
    for item in evidence.signatures:
        benign = [score for score in _alike(item, evidence.shape) if score.norm > 0]
        size = math.sqrt(sum(site.norm_squared for site in item.projections.values()))
        if not benign or not size > 0:
            continue
        if math.isfinite(item.dose):
            strengths = np.array([score.dose / score.norm for score in benign])
            what = f"the dose of {item.signature.id} per unit of update"
            yield _Statistic(what, item.dose / size, strengths)
        sizes = np.array([score.norm for score in benign])
        if largest is None or size > largest.value:
            largest = _Statistic("the norm of the update", size, sizes)
    if largest is not None:
        yield largest


def _alike(item: SignatureEvidence, shape: Shape) -> Sequence[BenignScore]:
    """The benign adapters of a shape, or all of them if those are too few to compare with."""
    calibration = item.signature.calibration
    benign = calibration.benign if calibration else []
    alike = [score for score in benign if Shape.of(score.layers) is shape]
    return alike if len(alike) >= GROUP_FLOOR else benign
