"""What the guard costs in ordinary use: benign adapters that it sends to `inconclusive`.

Counted on the calibration's own adapters, each held out in turn: compared with all others, and
with those of other families alone, as if its family had never been seen.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import msgspec

from scanner.detection import support
from scanner.results import Shape
from scanner.signatures.pack import load_signature


class FamilyPrice(msgspec.Struct, frozen=True):
    """One family's adapters."""

    family: str
    n: int
    known: int
    """Outside among all other benign adapters."""
    unseen: int
    """Outside among those of the other families."""


class Price(msgspec.Struct, frozen=True):
    """The guard on the packs of one base."""

    base: str
    families: list[FamilyPrice]

    def share(self, unseen: bool) -> float:
        """Share of all benign adapters outside."""
        outside = sum(item.unseen if unseen else item.known for item in self.families)
        return outside / max(sum(item.n for item in self.families), 1)


def of_base(name: str, packs: Path, counted: int = support.COUNTED) -> Price:
    """Holds out every benign adapter that the packs of a lab base have in common.

    Args:
        name: The base.
        packs: Directory of its packs.
        counted: How many of the largest surprises are added up.
    """
    signatures = [load_signature(path) for path in sorted(packs.glob(f"persona-{name}-*"))]
    everyone = support.benign_in_common(signatures)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for item in everyone:
        family, shape = item[0].family, Shape.of(max(score.layers for score in item))
        others = [other for other in everyone if other is not item]
        strangers = [other for other in others if other[0].family != family]
        count = counts[family]
        count[0] += 1
        for place, benign in ((1, others), (2, strangers)):
            own, alike = [support.profile(score) for score in item], support.alike(benign, shape)
            found = support.judge(signatures, own, alike, counted)
            count[place] += not found.inside
    return Price(name, [FamilyPrice(family, *count) for family, count in sorted(counts.items())])
