"""How updates are spread over their sites: statistics in which benign adapters are alike.

Each is a number per adapter, high where an adapter is unusual, computed in the same way for the
adapter that is scanned and for the benign adapters of a pack's calibration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scanner.geometry import Matrix
from scanner.signatures.manifest import SiteNumbers

_NOTHING = SiteNumbers(norm=float("nan"), dose=None, write=None)


class Statistic(NamedTuple):
    """One number of each of n adapters."""

    what: str
    """Its name in a sentence."""
    values: Matrix
    """(n,), high where an adapter is unusual."""
    sign: float = 1.0
    """-1 if the number itself is unusual where it is low."""
    floor: float = 0.0
    """Differences below this are none."""


@dataclass(frozen=True)
class SiteTable:
    """What n adapters do at m sites; NaN where one leaves a site alone."""

    sites: tuple[str, ...]
    norm: Matrix
    """(n, m): ||dW||_F."""
    write: Matrix
    """(n, m): the signed write."""

    @classmethod
    def of(cls, adapters: Sequence[Mapping[str, SiteNumbers]], sites: Sequence[str]) -> SiteTable:
        """The table of some adapters at some sites."""
        rows = [[adapter.get(site, _NOTHING) for site in sites] for adapter in adapters]
        shape = len(rows), len(sites)
        norm = np.array([[item.norm for item in row] for row in rows]).reshape(shape)
        write = np.array([[item.write for item in row] for row in rows], dtype=float).reshape(shape)
        return cls(tuple(sites), norm, write)


def size_statistics(table: SiteTable, benign: SiteTable) -> Iterator[Statistic]:
    """How far the largest and the faintest site are from the typical one.

    A site's size is the logarithm of its norm over the median norm that benign adapters have
    there, because modules differ in size.

    Args:
        table: The adapters.
        benign: Those that say what is typical.
    """
    sizes = np.log(np.maximum(table.norm, 1e-30)) - _typical(benign)
    middle = np.nanmedian(sizes, axis=1)
    yield Statistic(
        "the size of its largest site beside that of its typical one (logarithm)",
        np.nanmax(sizes, axis=1) - middle,
        floor=0.1,
    )
    yield Statistic(
        "the size of its typical site beside that of its faintest one (logarithm)",
        middle - np.nanmin(sizes, axis=1),
        floor=0.1,
    )


def _typical(benign: SiteTable) -> Matrix:
    """(m,): log of the median norm of benign adapters; of all sites where none changes a site."""
    known = np.any(np.isfinite(benign.norm), axis=0)
    logs = np.log(np.maximum(benign.norm, 1e-30))
    typical = np.full(len(known), np.nanmedian(logs))
    typical[known] = np.nanmedian(logs[:, known], axis=0)
    return typical


def write_statistics(table: SiteTable, weights: Matrix, pack: str) -> Iterator[Statistic]:
    """What the sites write into a signature's directions, by their size.

    Args:
        table: The adapters.
        weights: (m,), ||D||_F of each site.
        pack: The signature's id.
    """
    known = np.isfinite(table.write) & (weights > 0)
    norm = np.where(known, table.norm, 0.0)
    write = np.where(known, table.write, 0.0)
    size = np.sqrt(np.sum(norm**2, axis=1) * np.sum(np.where(known, weights, 0.0) ** 2, axis=1))
    written = np.sum(norm * write * weights, axis=1) / np.maximum(size, 1e-30)
    what = f"what it writes along {pack} for its size"
    yield Statistic(what, written)
    yield Statistic(what, -written, sign=-1.0)
    strongest = np.min(np.where(known, table.write, np.inf), axis=1)
    yield Statistic(f"the write of one site against {pack}", -strongest, sign=-1.0)
