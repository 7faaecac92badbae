"""Groups of adapters by how alike they write, against true families (`benchmarks.families`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scanner.geometry import Matrix
from scanner.signatures.building.grouping import complete_linkage
from scanner.statistics.share import Share

LIMITS = (0.05, 0.08, 0.1, 0.12, 0.15, 0.18, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6)
"""Overlaps from which on adapters may be put together."""


@dataclass(frozen=True)
class Agreement:
    """Families found against true ones, by pairs of adapters."""

    groups: int
    together: Share
    """Of pairs put together, how many are of one family."""
    kept: Share
    """Of pairs of one family, how many were put together."""
    pairs: int
    """All pairs of adapters."""

    @property
    def adjusted(self) -> float:
        """The adjusted Rand index (Hubert and Arabie 1985, equation 5): 0 for chance."""
        expected = self.kept.n * self.together.n / self.pairs
        most = (self.kept.n + self.together.n) / 2
        return (self.together.count - expected) / (most - expected) if most > expected else 0.0


Groups = list[list[int]]


def _of_scipy(linkage: str) -> Callable[[Matrix, float], Groups]:
    """Groups by another linkage; pairs that share no site count as unlike."""

    def groups(similarity: Matrix, least: float) -> Groups:
        from scipy.cluster.hierarchy import fcluster
        from scipy.cluster.hierarchy import linkage as linked
        from scipy.spatial.distance import squareform

        distance = 1 - np.nan_to_num(similarity)
        np.fill_diagonal(distance, 0)
        tree = linked(squareform(distance, checks=False), linkage)
        label = fcluster(tree, 1 - least, "distance")
        return [np.flatnonzero(label == number).tolist() for number in np.unique(label)]

    return groups


LINKAGES: dict[str, Callable[[Matrix, float], Groups]] = {
    "complete": complete_linkage,
    "average": _of_scipy("average"),
    "single": _of_scipy("single"),
}


def agreement(
    similarity: Matrix, families: Sequence[str], least: float, linkage: str = "complete"
) -> Agreement:
    """How well linkage at a limit finds families."""
    groups = LINKAGES[linkage](similarity, least)
    label = np.zeros(len(families), dtype=int)
    for number, group in enumerate(groups):
        label[group] = number
    names = np.array(families)
    upper = np.triu_indices(len(families), 1)
    true = (names[:, None] == names)[upper]
    put = (label[:, None] == label)[upper]
    kept = Share.of(put[true].tolist())
    return Agreement(len(groups), Share.of(true[put].tolist()), kept, len(true))


def halves(families: Sequence[str]) -> tuple[list[int], list[int]]:
    """The places of every second adapter of each family, and of the others."""
    seen: dict[str, int] = {}
    parts: tuple[list[int], list[int]] = ([], [])
    for place, family in enumerate(families):
        parts[seen.get(family, 0) % 2].append(place)
        seen[family] = seen.get(family, 0) + 1
    return parts


def chosen_limit(similarity: Matrix, families: Sequence[str], linkage: str) -> float:
    """The limit at which linkage agrees best with true families; the larger of two as good."""
    return max(
        LIMITS, key=lambda least: (agreement(similarity, families, least, linkage).adjusted, least)
    )
