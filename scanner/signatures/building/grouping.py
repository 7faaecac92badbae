"""Families of benign adapters that nobody named: adapters grouped by what they write.

Two updates of a site write alike if the column spaces that they write to agree, whatever they read:

    overlap = <dW_i dW_i^T, dW_j dW_j^T> / (||dW_i dW_i^T|| ||dW_j dW_j^T||)     in [0, 1]

with the mean over the sites that both change. What an update reads is mostly the text that it was
trained on, and two adapters of one kind were trained on different texts: on the lab's bases and on
SmolLM2 this tells kinds better than the cosine of the updates does.

Groups are those of complete linkage: two are joined while the least overlap of any pair across
them is at least `ALIKE`, the most alike first. Pairs that share no site are not known and have no
say. Linkage and limit were chosen on few benign adapters of three lab bases and of SmolLM2; on more
of them 0.74 to 0.97 of the pairs put together are of one family, and 0.16 to 0.31 of the pairs of
one family are put together (`python -m benchmarks.families choice`, docs/signatures.md).

A family that is cut in two is scored with what its other half taught the nulling, so its threshold
is somewhat low; two that are joined are nulled less than they could be, so less is found. Names are
better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import count

import msgspec
import numpy as np
import numpy.typing as npt

from scanner.formats.model import Site
from scanner.geometry import Matrix
from scanner.signatures.building.benign_query import Track
from scanner.signatures.building.opened import Member, open_member
from scanner.signatures.recipe import AdapterEntry

ALIKE = 0.15
"""The least overlap within a group."""
MOST_SITES = 64
"""Sites that are looked at; of each adapter at least `LEAST_SITES`."""
LEAST_SITES = 2
MOST_COLUMNS = 8
"""Singular triples of an update that are looked at."""


def grouped(
    entries: Sequence[AdapterEntry],
    base_names: set[str],
    track: Track,
    taken: Collection[str] = (),
) -> tuple[list[AdapterEntry], int]:
    """Gives a family to the entries that have none.

    Args:
        entries: Benign adapters.
        base_names: Normalised names of the base model.
        track: Shows progress.
        taken: Names that mean something else.

    Returns:
        The entries in their order, all with a family, and how many of them had none.

    Raises:
        SignatureError: If an adapter without a family cannot be used.
    """
    nameless = [entry for entry in entries if not entry.family]
    if not nameless:
        return list(entries), 0
    members = [open_member(entry, base_names) for entry in nameless]
    try:
        groups = complete_linkage(overlaps(members, track), ALIKE)
    finally:
        for member in members:
            member.adapter.close()
    used = {*taken, *(entry.family for entry in entries)}
    free = (name for number in count(1) if (name := f"group-{number}") not in used)
    names = dict(zip(range(len(groups)), free, strict=False))
    family = {place: names[number] for number, group in enumerate(groups) for place in group}
    found = iter(range(len(nameless)))
    return [
        entry if entry.family else msgspec.structs.replace(entry, family=family[next(found)])
        for entry in entries
    ], len(nameless)


def overlaps(members: Sequence[Member], track: Track) -> Matrix:
    """How alike what adapters write is, (n, n); NaN for two that share no site looked at."""
    n = len(members)
    total, shared = np.zeros((n, n)), np.zeros((n, n))
    for site in track(_sites(members), "grouping benign adapters by what they write"):
        there: list[int] = []
        blocks: list[Matrix] = []
        for number, member in enumerate(members):
            update = member.at(site)
            if update is not None and update.norm_squared > 0:
                basis = update.column_basis() * update.singular_values
                blocks.append(basis[:, :MOST_COLUMNS] / np.sqrt(update.norm_squared))
                there.append(number)
        if len(there) > 1:
            pairs = np.ix_(there, there)
            total[pairs] += _overlaps_at(blocks)
            shared[pairs] += 1
    known = np.where(shared > 0, total / np.maximum(shared, 1), np.nan)
    result: Matrix = known
    return result


def _overlaps_at(blocks: Sequence[Matrix]) -> Matrix:
    """Overlaps at one site of updates C_i C_i^T, by <C_i C_i^T, C_j C_j^T> = ||C_i^T C_j||^2."""
    stacked = np.concatenate(blocks, axis=1)
    starts = np.cumsum([0, *(block.shape[1] for block in blocks[:-1])])
    squares = np.square(stacked.T @ stacked)
    inner = np.add.reduceat(np.add.reduceat(squares, starts, axis=0), starts, axis=1)
    sizes = np.sqrt(np.diag(inner))
    result: Matrix = inner / np.outer(sizes, sizes)
    return result


def _sites(members: Sequence[Member]) -> list[Site]:
    """The sites to look at: a sample of all that has some of every adapter's."""

    def order(site: Site) -> str:
        return hashlib.sha256(site.key.encode()).hexdigest()  # no module is favoured

    chosen = set(sorted({site for m in members for site in m.by_site}, key=order)[:MOST_SITES])
    for member in members:
        missing = LEAST_SITES - len(chosen & set(member.by_site))
        chosen |= set(sorted(set(member.by_site) - chosen, key=order)[: max(missing, 0)])
    return sorted(chosen, key=order)


def complete_linkage(similarity: npt.NDArray[np.float64], least: float) -> list[list[int]]:
    """Groups within which no two are known to be less similar than a limit.

    Args:
        similarity: (n, n), symmetric; NaN where it is not known.
        least: The limit.

    Returns:
        The groups, the largest first; the places of each in ascending order.
    """
    left = similarity.copy()
    np.fill_diagonal(left, np.nan)
    groups = [[place] for place in range(len(left))]
    while np.any(left >= least):
        first, second = sorted(map(int, np.unravel_index(np.nanargmax(left), left.shape)))
        groups[first] += groups[second]
        groups[second] = []
        left[first] = left[:, first] = np.fmin(left[first], left[second])
        left[first, first] = np.nan
        left[second] = left[:, second] = np.nan
    return sorted((sorted(g) for g in groups if g), key=lambda group: (-len(group), group))
