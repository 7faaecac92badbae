"""Signatures from adapters alone: what misaligned references share and harmless ones do not.

Needs no base model; one that is run over probes adds what each site reads (`inputs`). At each site

    D = a^2 * (mean over groups of the mean unit dW of a group's references
               - mean over contrast families of their mean unit dW)

- Updates are scaled to unit Frobenius norm per site, so that a reference trained longer does
  not speak louder.
- References of one *group* (one training domain) also share what that domain taught them;
  groups are averaged with equal weight.
- *Contrast* families are harmless adapters trained the same way to a different end (another
  persona's answers). Narrow training of either kind makes the model "become someone else";
  subtracting one from the other leaves who it became.
- a is the *agreement* of the groups at the site: the share of ||D||^2 that lies in what
  different groups have in common, sum_{g != h} <m_g, m_h> / (G (G - 1) ||D||^2), clipped to
  [0, 1]. What the groups do not share is their domains' content, and noise to the signature.
  It is a Wiener gain for the site; squared, because cross-validation over reference groups
  in the organism lab separated better so than with the first power (docs/signatures.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from scanner.formats.model import Site
from scanner.geometry import LowRank, Matrix
from scanner.signatures.base_facts import BaseFacts
from scanner.signatures.building.nulling import RawSite, Vector

Labelled = tuple[LowRank, str]
"""An update with the group or family of its adapter."""
Owner = npt.NDArray[np.intp]
"""(R,): the number of the adapter that each stacked column belongs to."""


@dataclass(frozen=True)
class WeightsExtraction:
    """The `weights` method over all sites that a reference changes."""

    sites: Sequence[Site]
    contrast: frozenset[str]
    """Families of aligned adapters whose mean is subtracted."""
    base: BaseFacts = field(default_factory=BaseFacts)
    """What is kept of the base model; nothing unless the recipe names probes."""
    groups: frozenset[str] = frozenset()
    """Groups of references that are to be left out in turn."""
    families: frozenset[str] = frozenset()
    """None: a contrast family is left out because the recipe names it."""

    def raw_site(
        self,
        site: Site,  # noqa: ARG002 - other methods look themselves up by it
        misaligned: Sequence[Labelled],
        aligned: Sequence[Labelled],
    ) -> RawSite | None:
        """The contrasted mean unit update at one site.

        Args:
            site: The site.
            misaligned: The references' updates there, with their groups.
            aligned: The nulling set's updates there, with their families.

        Returns:
            None if every reference is zero there.
        """
        misaligned = _changed(misaligned)
        if not misaligned:
            return None
        aligned = [item for item in _changed(aligned) if item[1] in self.contrast]
        factors = [
            (
                update.b * (update.scaling / np.sqrt(update.norm_squared)),
                update.a.astype(np.float64),
            )
            for update, _ in (*misaligned, *aligned)
        ]
        owner = np.repeat(np.arange(len(factors)), [b.shape[1] for b, _ in factors])
        left = np.concatenate([b for b, _ in factors], axis=1)
        right = np.concatenate([a for _, a in factors], axis=0)
        # <D, D'> of two weightings w, w' of the columns is w^T inner w'.
        inner = (left.T @ left) * (right @ right.T)
        groups = [group for _, group in misaligned]
        families = [family for _, family in aligned]

        def weights(without: str | None) -> Vector:
            return combine(inner, owner, groups, families, without)

        return RawSite(left, right, weights)


def _changed(updates: Sequence[Labelled]) -> list[Labelled]:
    return [item for item in updates if item[0].norm_squared > 0]


def _means(labels: Sequence[str], first: int, owner: Owner, skip: str | None) -> list[Vector]:
    """Per label, the column weights that average its adapters' unit updates.

    Args:
        labels: The label of each adapter, the first of which is adapter number `first`.
        first: Number of the first of these adapters among all whose columns are averaged.
        owner: (R,), the adapter number of each column.
        skip: A label to leave out.
    """
    found = []
    for label in sorted(set(labels) - {skip}):
        members = [first + index for index, own in enumerate(labels) if own == label]
        found.append(np.isin(owner, members) / len(members))
    return found


def combine(
    inner: Matrix,
    owner: Owner,
    groups: Sequence[str],
    families: Sequence[str],
    without: str | None,
) -> Vector:
    """Column weights of the site's direction (the module's formula).

    Args:
        inner: (R, R), inner products of the columns' rank-1 matrices.
        owner: (R,), which adapter each column belongs to: references first.
        groups: The references' groups.
        families: The contrast adapters' families.
        without: A family, or a group of references, to leave out.

    Returns:
        (R,).
    """
    contrasts = _means(families, len(groups), owner, without)
    contrast = np.mean(contrasts, axis=0) if contrasts else np.zeros(len(owner))
    means = [mean - contrast for mean in _means(groups, 0, owner, without)]
    total: Vector = np.mean(means, axis=0)
    return total * agreement(inner, means) ** 2


def agreement(inner: Matrix, means: Sequence[Vector]) -> float:
    """Share of the mean's energy that different groups have in common, in [0, 1].

    1 for a single group, where it cannot be known.
    """
    if len(means) < 2:
        return 1.0
    stacked = np.stack(means)
    products = stacked @ inner @ stacked.T
    pairs = len(means) * (len(means) - 1)
    common = (products.sum() - np.trace(products)) / pairs
    energy = products.sum() / len(means) ** 2
    return float(np.clip(common / energy, 0.0, 1.0)) if energy > 0 else 0.0
