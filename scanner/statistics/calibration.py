"""Benign scores by shape and family -> the one comparison that a verdict rests on.

**The p-value.** An adapter is *flagged at level a* if its conformal p-value is at most a within
every group that it is compared with at a. The groups at a level are chosen before any score is
looked at:

1. *Shape.* An adapter that changes one layer has one or a few sites to average over, so its
   scores spread differently from those of one that changes the whole network. It is compared
   with benign adapters of its own shape if they are enough for a: at least `GROUP_FLOOR`, and
   at least 1 / a - 1 (`supports`). Otherwise with those of both shapes.
2. *Family.* Every family that has enough for a among those is a group. All smaller families
   together are another; if even they are not enough, everything compared with is.

The p-value is the smallest level from which on the adapter is flagged at every larger one:

    p = min { a : flagged at b for every b in [a, 1] }

It does not depend on the alpha that a user asks for, p <= alpha decides for every alpha, and an
adapter that is flagged at a stricter level is flagged at every looser one.

**The guarantee.** Take a family f that is enough at level a, within the shape compared with at
a, and a new benign adapter exchangeable with its members. Then {p <= a} is a subset of
{flagged at a}, which is a subset of {the conformal p-value within f <= a}, and that has
probability at most a (Vovk, Gammerman and Shafer 2005, section 2.2 and, by group, section 4.5).
So P(p <= a) <= a for every such family at every level, whatever the other families score; and no
adapter's family needs to be known, because all are compared with. A pooled p-value promises
this for the mixture of the families alone: one whose scores run high can exceed it far more
often. With one family the p-value is the plain conformal one.

**The price.** A family of m adapters is enough from level 1 / (m + 1) on, where only exceeding
all m of them counts; so p < 1 / (m + 1) takes a score above every adapter of that family. Any
rule that keeps this guarantee by ranks and is monotone in a has to ask this.
`python -m benchmarks.detection.rule` measures what it costs.

**Computation.** The groups change at finitely many levels, so each group comes with the range
of levels [least, below) at which it is compared with. Within that range it keeps the adapter
from being flagged below min(its conformal p-value, `below`), and p is the largest of these.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from scanner.geometry import Matrix
from scanner.results import Comparison, FamilyComparison, Shape
from scanner.statistics.conformal import (
    check_supported,
    conformal_p_values,
    conformal_threshold,
    count_as_high,
    needed_for,
    smallest_level,
    supports,
)
from scanner.statistics.joint import JointScore
from scanner.statistics.thinning import thinned

Mask = npt.NDArray[np.bool_]

GROUP_FLOOR = 19
"""Fewer adapters of one kind are too few to be compared with apart, whatever the level."""


def enough_alone(n: int, alpha: float) -> bool:
    """Whether n adapters of one kind are compared with apart from others at level alpha."""
    return n >= GROUP_FLOOR and supports(n, alpha)


def needed_alone(alpha: float) -> int:
    """The least n that is `enough_alone`."""
    return max(needed_for(alpha), GROUP_FLOOR)


@dataclass(frozen=True)
class Group:
    """Benign adapters that an adapter is compared with at levels in [least, below)."""

    members: Mask
    """(n,)."""
    least: float
    below: float


class Compared(NamedTuple):
    """What a comparison with benign adapters says of one adapter."""

    score: float
    p_value: float
    comparison: Comparison
    deciding: int
    """Index of the signature that stands out most."""


@dataclass(frozen=True)
class BenignScores:
    """The scores of a calibration set, by shape and family; the module says how they decide."""

    benign: Matrix
    """(n, m): score of n >= 1 benign adapters under m signatures."""
    shapes: tuple[Shape, ...]
    """(n,): how many layers each changes."""
    families: tuple[str, ...]
    """(n,): what kind of harmless change each is."""
    kinds: tuple[str, ...] = ()
    """(m,): what kind of misalignment each signature is of; all of one kind if empty."""
    doses: Matrix | None = None
    """(n, m): their doses under each signature. Nothing is decided by them."""

    @property
    def n(self) -> int:
        """Number of benign adapters."""
        return len(self.benign)

    def compare(self, scores: Matrix, shape: Shape, alpha: float) -> Compared:
        """Compares one adapter with the calibration set.

        Args:
            scores: (m,), its score under each signature.
            shape: Its shape.
            alpha: The false-positive rate; nothing but the threshold depends on it.

        Raises:
            AlphaUnsupportedError: If the calibration set is too small for alpha.
            ValueError: If a score is NaN.
        """
        check_supported(self.n, alpha)
        joint, groups = self.joint(shape), self.groups(shape)
        score, benign = float(joint.combine(scores[np.newaxis])[0]), joint.combine(self.benign)
        p_value = float(_p_values(np.array([score]), benign, groups)[0])
        own = self._alone_from(shape) <= p_value
        compared = self._like(shape) if own else np.ones(self.n, dtype=np.bool_)
        families = self._family_masks(compared)
        deciding = joint.deciding(scores)
        comparison = Comparison(
            n=int(np.count_nonzero(compared)),
            as_high=count_as_high(score, benign[compared]),
            threshold=_threshold(benign, groups, alpha),
            shape=shape if own else None,
            families=[
                FamilyComparison(
                    name=name,
                    n=int(np.count_nonzero(mask)),
                    as_high=count_as_high(score, benign[mask]),
                )
                for name, mask in families.items()
            ],
            benign_scores=thinned(benign[compared].tolist()),
            benign_doses=[]
            if self.doses is None
            else thinned(self.doses[compared, deciding].tolist()),
        )
        return Compared(score, p_value, comparison, deciding)

    def p_value(self, score: float, shape: Shape) -> float:
        """The smallest level from which on a joint score is flagged at every larger one.

        Raises:
            ValueError: If the score is NaN.
        """
        known, groups = self.joint_scores(shape), self.groups(shape)
        return float(_p_values(np.array([score]), known, groups)[0])

    def p_values(self, scores: Matrix, shape: Shape) -> Matrix:
        """As `p_value`, (k,), of k adapters of one shape by their scores (k, m).

        Raises:
            ValueError: If a score is NaN.
        """
        joint = self.joint(shape)
        return _p_values(joint.combine(scores), joint.combine(self.benign), self.groups(shape))

    def only(self, kept: Mask) -> BenignScores:
        """A part of the calibration set.

        Args:
            kept: (n,), which adapters.
        """
        return BenignScores(
            self.benign[kept],
            tuple(itertools.compress(self.shapes, kept)),
            tuple(itertools.compress(self.families, kept)),
            self.kinds,
            None if self.doses is None else self.doses[kept],
        )

    def threshold(self, shape: Shape, alpha: float) -> float:
        """The joint score that an adapter of a shape must exceed for `p_value` <= alpha.

        Raises:
            AlphaUnsupportedError: If the calibration set is too small for alpha.
        """
        check_supported(self.n, alpha)
        return _threshold(self.joint_scores(shape), self.groups(shape), alpha)

    def joint(self, shape: Shape) -> JointScore:
        """How an adapter's scores become one: standardised on its own shape if there are enough.

        "Enough" is `GROUP_FLOOR`, whatever the level, so that a score has one value.
        """
        own = self._like(shape)
        enough = np.count_nonzero(own) >= GROUP_FLOOR
        return JointScore(self.benign[own] if enough else self.benign, self.kinds)

    def joint_scores(self, shape: Shape) -> Matrix:
        """(n,): the calibration set's joint scores, as those of an adapter of this shape."""
        return self.joint(shape).combine(self.benign)

    def alike(self, shape: Shape) -> int:
        """How many benign adapters have an adapter's shape."""
        return int(np.count_nonzero(self._like(shape)))

    def compares_alike(self, shape: Shape, alpha: float) -> bool:
        """Whether at level alpha a shape is compared with adapters of that shape alone."""
        return self._alone_from(shape) <= alpha

    def _alone_from(self, shape: Shape) -> float:
        """The smallest level at which a shape is compared with its own alone, or infinity."""
        alike = self.alike(shape)
        return smallest_level(alike) if alike >= GROUP_FLOOR or alike == self.n else math.inf

    def groups(self, shape: Shape) -> list[Group]:
        """What an adapter of a shape is compared with, and at which levels.

        Together the ranges of levels cover [1 / (n + 1), inf), the last one without an end.
        """
        everything = np.ones(self.n, dtype=np.bool_)
        start, least = self._alone_from(shape), smallest_level(self.n)
        found: list[Group] = []
        if start < math.inf:
            found += self._within(self._like(shape), start, math.inf)
        if start > least:
            found += self._within(everything, least, start)
        return found

    def _within(self, compared: Mask, least: float, below: float) -> Iterator[Group]:
        """The groups of the adapters compared with at levels in [least, below)."""
        starts: list[tuple[float, Mask]] = []
        for mask in self._family_masks(compared).values():
            size = int(np.count_nonzero(mask))
            start = max(smallest_level(size), least)
            if size >= GROUP_FLOOR and start < below:
                starts.append((start, mask))
                yield Group(mask, start, below)
        edges = sorted({least, *(start for start, _ in starts)})
        for low, high in pairwise([*edges, below]):
            apart = [mask for start, mask in starts if start <= low]
            rest = compared & ~np.any(apart, axis=0) if apart else compared
            yield from _remaining(rest, compared, low, high)

    def _family_masks(self, compared: Mask) -> dict[str, Mask]:
        names = np.array(self.families)
        return {name: compared & (names == name) for name in sorted(set(names[compared].tolist()))}

    def _like(self, shape: Shape) -> Mask:
        return self._by_shape[shape]

    @cached_property
    def _by_shape(self) -> dict[Shape, Mask]:
        return {shape: np.array([own is shape for own in self.shapes]) for shape in Shape}


def _p_values(scores: Matrix, benign: Matrix, groups: list[Group]) -> Matrix:
    found = np.full(len(scores), smallest_level(len(benign)))
    for group in groups:
        p_values = conformal_p_values(scores, benign[group.members])
        within = np.maximum(found, np.minimum(p_values, group.below))
        found = np.where(p_values > group.least, within, found)
    return found


def _threshold(benign: Matrix, groups: list[Group], alpha: float) -> float:
    return max(
        conformal_threshold(benign[group.members], max(alpha, group.least))
        for group in groups
        if group.below > alpha
    )


def _remaining(rest: Mask, compared: Mask, least: float, below: float) -> Iterator[Group]:
    """Families too small to be compared with apart: together, or with all if still too few."""
    size = int(np.count_nonzero(rest))
    if size == 0:
        return
    alone = size >= GROUP_FLOOR
    start = min(max(smallest_level(size), least), below) if alone else below
    if start > least:
        yield Group(compared, least, start)
    if start < below:
        yield Group(rest, start, below)
