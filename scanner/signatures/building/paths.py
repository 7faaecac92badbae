"""Gradients along the path to the references, and along paths that leave some of them out.

The end of a path is the references' mean update, so a reference has its say in the gradient that
it is then scored by, and is found more easily than a stranger. Each is therefore scored by the
gradient along another path, to the mean of the references outside its own group. Gradients along
two paths have no part in common: each path costs as much time and memory as the first. Groups are
left out one by one up to `MOST_PARTS` of them, and together in that many parts if there are more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scanner.formats.model import Site
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.extraction import Extractor
from scanner.signatures.building.nulling import RawSite
from scanner.signatures.building.weights import Labelled

MOST_PARTS = 5
"""Paths beside the one to all references at most."""

Part = frozenset[str]
"""Groups of references that are left out together."""


def parts_of(groups: Iterable[str]) -> list[Part]:
    """Groups in the parts that are left out together, at most `MOST_PARTS`, of equal size."""
    ordered = sorted(set(groups))
    return [frozenset(ordered[first::MOST_PARTS]) for first in range(MOST_PARTS)][: len(ordered)]


@dataclass(frozen=True)
class PathExtraction:
    """What was found along the path to all references, and along those that leave some out."""

    whole: Extractor
    """Along the path to all references."""
    without: Mapping[Part, Extractor]
    """Groups of references -> along the path to the others."""

    @property
    def sites(self) -> Sequence[Site]:
        """Where there may be a direction, in order."""
        return self.whole.sites

    @property
    def families(self) -> frozenset[str]:
        """The harmless families that can be left out."""
        return self.whole.families

    @property
    def groups(self) -> frozenset[str]:
        """The groups of references that some path leaves out."""
        return frozenset().union(*self.without)

    @property
    def base(self) -> BaseFacts:
        """What is kept of the base model."""
        return self.whole.base

    def raw_site(
        self, site: Site, misaligned: Sequence[Labelled], aligned: Sequence[Labelled]
    ) -> RawSite | None:
        """The gradient at a site along every path."""
        found = self.whole.raw_site(site, misaligned, aligned)
        if found is None:
            return None
        instead: dict[str, RawSite] = {}
        for part, extractor in self.without.items():
            there = site in extractor.sites
            other = extractor.raw_site(site, misaligned, aligned) if there else None
            other = other or _nothing(found)
            instead.update(dict.fromkeys(part, other))
        return replace(found, instead=instead)


def _nothing(like: RawSite) -> RawSite:
    """No gradient, of another's shape: along this path there is none at the site."""
    d_out, d_in = like.shape
    return RawSite.fixed(np.zeros((d_out, 1)), np.zeros((1, d_in)))
