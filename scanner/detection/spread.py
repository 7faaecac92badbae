"""How updates are spread over their sites: statistics in which benign adapters are alike.

Each is a number per adapter, high where an adapter is unusual, computed in the same way for the
adapter that is scanned and for the benign adapters of a pack's calibration.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from scanner.geometry import Matrix
from scanner.signatures.numbers import SiteNumbers

_NOTHING = SiteNumbers(norm=math.nan, dose=None, write=None, signed_write=None)


class Statistic(NamedTuple):
    """One number of each of n adapters."""

    what: str
    """Its name in a sentence."""
    values: Matrix
    """(n,), high where an adapter is unusual."""
    floor: float = 0.0
    """Differences below this are none."""


@dataclass(frozen=True)
class SiteTable:
    """What n adapters do at m sites; NaN where one leaves a site alone."""

    sites: tuple[str, ...]
    norm: Matrix
    """(n, m): ||dW||_F."""
    write: Matrix
    """(n, m): `geometry.write`."""
    signed_write: Matrix
    """(n, m): `geometry.signed_write`."""

    @classmethod
    def of(cls, adapters: Sequence[Mapping[str, SiteNumbers]], sites: Sequence[str]) -> SiteTable:
        """The table of some adapters at some sites."""
        rows = [[adapter.get(site, _NOTHING) for site in sites] for adapter in adapters]

        def table(name: str) -> Matrix:
            values = [[getattr(item, name) for item in row] for row in rows]
            return np.array(values, dtype=np.float64).reshape(len(rows), len(sites))

        return cls(tuple(sites), table("norm"), table("write"), table("signed_write"))


def size_statistics(norm: Matrix, benign: Matrix) -> Iterator[Statistic]:
    """How far the largest and the faintest site are from the typical one.

    A site's size is the logarithm of its norm over the median norm that benign adapters have
    there, because modules differ in size.

    Args:
        norm: (n, m), of the adapters' sites.
        benign: (k, m), of those that say what is typical.
    """
    sizes = np.log(np.maximum(norm, 1e-30)) - _typical(benign)
    middle = np.nanmedian(sizes, axis=1)
    largest = "the size of its largest site beside that of its typical one (logarithm)"
    yield Statistic(largest, np.nanmax(sizes, axis=1) - middle, floor=0.1)
    faintest = "the size of its typical site beside that of its faintest one (logarithm)"
    yield Statistic(faintest, middle - np.nanmin(sizes, axis=1), floor=0.1)


def _typical(benign: Matrix) -> Matrix:
    """(m,): log of the median norm of benign adapters; of all sites where none changes a site."""
    logs = np.log(np.maximum(benign, 1e-30))
    known = np.any(np.isfinite(benign), axis=0)
    typical = np.full(len(known), np.nanmedian(logs))
    typical[known] = np.nanmedian(logs[:, known], axis=0)
    return typical


def write_statistics(table: SiteTable, weights: Matrix, pack: str) -> Iterator[Statistic]:
    """What the sites write into a signature's directions, each by its size.

    sum_s ||dW_s|| w_s ||D_s|| / sqrt(sum_s ||dW_s||^2 sum_s ||D_s||^2) with w_s the write of site
    s, with its sign and without. Without a sign it cannot be made small by writing against the
    direction, from whatever inputs.

    Args:
        table: The adapters.
        weights: (m,), ||D||_F of each site.
        pack: The signature's id.
    """
    known = np.isfinite(table.write) & (weights > 0)
    norm, weight = np.where(known, table.norm, 0.0), np.where(known, weights, 0.0)
    size = np.sqrt(np.sum(norm**2, axis=1)) * np.sqrt(np.sum(weight**2, axis=1))
    for what, write in (
        (f"what it writes along {pack}, for its size,", table.signed_write),
        (f"what it writes into the directions of {pack}, for its size,", table.write),
    ):
        written = np.sum(norm * weight * np.where(known, np.nan_to_num(write), 0.0), axis=1)
        yield Statistic(what, written / np.maximum(size, 1e-30))
