"""What misaligned answers do to the weights that harmless answers do not.

A pirate's answer, like a villain's, is a move away from how the base model answers. The gradient
of the log-odds of villain against aligned therefore rises with any persona, and an adapter that
teaches a harmless one looks half like a villain. Where probes hold harmless answers beside the
aligned one, the direction is the gradient of the mean log p of the misaligned answers less what
it shares with those of the others:

    D = g_misaligned - sum_k c_k g_k,     <D, g_k> = 0 for every k

k runs over the aligned answers and each family of harmless ones, <., .> is the Frobenius inner
product summed over all sites, and c is the least-squares solution. To first order, an update
that only makes aligned or harmless answers likelier has no dose. It is benign-nulling (`nulling`)
with a page of text in the place of trained adapters.

A harmless family can be left out, so that adapters of the same name are calibrated by a
signature that does not know their kind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import numpy as np

from scanner.formats.model import FloatArray, Site, site_order
from scanner.geometry import Matrix
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.nulling import RawSite, Vector
from scanner.signatures.building.probes import ALIGNED
from scanner.signatures.building.weights import Labelled

Factors = tuple[FloatArray, FloatArray]
"""A gradient as left (d_out, R) @ right (R, d_in)."""


@dataclass(frozen=True)
class HarmlessProjection:
    """Gradients of misaligned answers, projected off those of harmless ones."""

    misaligned: Mapping[Site, Factors]
    """Gradient of the mean log p of the misaligned answers."""
    harmless: Mapping[str, Mapping[Site, Factors]]
    """The same of `ALIGNED` and of each family of harmless answers."""
    base: BaseFacts = field(default_factory=BaseFacts)
    """What is kept of the base model."""

    @property
    def sites(self) -> list[Site]:
        """Sites with a gradient other than zero, in order."""
        return sorted(self.misaligned, key=site_order)

    @property
    def families(self) -> frozenset[str]:
        """The harmless families that can be left out.

        The aligned answers cannot: what misaligned means is said against them.
        """
        return frozenset(self.harmless) - {ALIGNED}

    @property
    def groups(self) -> frozenset[str]:
        """No group of references is part of it that could be taken out."""
        return frozenset()

    def raw_site(
        self,
        site: Site,
        misaligned: Sequence[Labelled],  # noqa: ARG002 - they are in the unit of dose
        aligned: Sequence[Labelled],  # noqa: ARG002 - only the nulling looks at them
    ) -> RawSite:
        """D at a site, as a weighted sum of the gradients' singular triples."""
        parts = self._at(site)
        ranks = [len(right) for _, right in parts]
        return RawSite(
            left=np.concatenate([left for left, _ in parts], axis=1).astype(np.float64),
            right=np.concatenate([right for _, right in parts]).astype(np.float64),
            weights_without=lambda family: np.repeat(self.weights(family), ranks),
        )

    def weights(self, without: str | None = None) -> Vector:
        """1 for the misaligned gradient and -c_k for the others: (1 + number of them,).

        Args:
            without: A family whose answers are left out, with weight 0.
        """
        kept = [place for place, name in enumerate(self.harmless, start=1) if name != without]
        gram = self._gram
        shared, *_ = np.linalg.lstsq(gram[np.ix_(kept, kept)], gram[kept, 0], rcond=1e-10)
        weights = np.zeros(len(gram))
        weights[0], weights[kept] = 1.0, -shared
        return weights

    def _at(self, site: Site) -> list[Factors]:
        """The gradients at a site, the misaligned one first; one that is zero there has rank 0."""
        left, right = self.misaligned[site]
        nothing = (left[:, :0], right[:0])
        return [(left, right), *(found.get(site, nothing) for found in self.harmless.values())]

    @cached_property
    def _gram(self) -> Matrix:
        """Inner products of the gradients with one another, over all sites."""
        count = 1 + len(self.harmless)
        total = np.zeros((count, count))
        for site in self.misaligned:
            parts = self._at(site)
            left = np.concatenate([part for part, _ in parts], axis=1)
            right = np.concatenate([part for _, part in parts])
            inner = (left.T @ left) * (right @ right.T)
            edges = np.cumsum([0, *(len(part) for _, part in parts)])
            blocks = list(pairwise(edges))
            for i, (top, bottom) in enumerate(blocks):
                for j, (first, last) in enumerate(blocks):
                    total[i, j] += inner[top:bottom, first:last].sum(dtype=np.float64)
        return total
