"""How updates are spread over sites and inputs: statistics in which benign adapters are alike.

Each is a number per adapter, computed in the same way for the adapter that is scanned and for the
benign adapters of a pack's calibration, and says on which side an adapter is unusual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from scanner.geometry import Matrix
from scanner.signatures.numbers import SiteNumbers

_COLUMNS = {name: place for place, name in enumerate(SiteNumbers.__struct_fields__)}
_TINY = 1e-30


class Statistic(NamedTuple):
    """One number of each of n adapters."""

    what: str
    """Its name in a sentence."""
    values: Matrix
    """(n,)."""
    low: bool = False
    """Whether an adapter is unusual where it is low."""
    floor: float = 0.0
    """Differences below this are none."""


def both_ways(what: str, values: Matrix) -> Iterator[Statistic]:
    """A statistic of which an adapter may have unusually much or unusually little."""
    yield Statistic(what, values)
    yield Statistic(what, values, low=True)


@dataclass(frozen=True)
class SiteTable:
    """What n adapters do at m sites, under one signature; NaN where one leaves a site alone."""

    sites: tuple[str, ...]
    numbers: Matrix
    """(n, m, number of fields of `SiteNumbers`)."""

    @classmethod
    def of(cls, adapters: Sequence[Mapping[str, SiteNumbers]]) -> SiteTable:
        """The table of some adapters at every site that one of them changes."""
        sites = tuple(sorted({site for adapter in adapters for site in adapter}))
        place = {site: index for index, site in enumerate(sites)}
        numbers = np.full((len(adapters), len(sites), len(_COLUMNS)), np.nan)
        for row, adapter in zip(numbers, adapters, strict=True):
            if adapter:
                known = [msgspec.structs.astuple(item) for item in adapter.values()]
                row[[place[site] for site in adapter]] = np.array(known, dtype=np.float64)
        return cls(sites, numbers)

    def column(self, field: str) -> Matrix:
        """A field of `SiteNumbers` of all adapters at all sites, (n, m)."""
        found: Matrix = self.numbers[:, :, _COLUMNS[field]]
        return found

    @property
    def knows_inputs(self) -> bool:
        """Whether it is known of every site that benign adapters change what they make of it.

        The first row is the adapter that is scanned: it has no say in what it is measured by.
        """
        norm, felt = np.isfinite(self.column("norm")), np.isfinite(self.column("felt"))
        return bool(norm[1:].any()) and bool(np.array_equal(norm[1:], felt[1:]))


def size_statistics(table: SiteTable) -> Iterator[Statistic]:
    """How far the largest and the faintest site are from the typical one.

    A site's size is the logarithm of its norm over the median norm that benign adapters have
    there, because modules differ in size. The first row of the table is the adapter that is
    scanned, and does not say what is typical.
    """
    sizes = np.log(np.maximum(table.column("norm"), _TINY))
    sizes = sizes - _typical(sizes[1:])
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


def input_statistics(table: SiteTable) -> Iterator[Statistic]:
    """How much of the update the network feels, and how that is spread.

    - The felt size of a site over its norm (logarithm), over what is typical there: what reads
      inputs that hardly occur adds to the norm alone.
    - Of the squared felt sizes, each over the base's own answer to the same inputs, the share of
      the largest site, and that of the largest layer.
    - In how many directions the typical site moves what it reads.
    """
    unknown = np.isfinite(table.column("norm")) & ~np.isfinite(table.column("felt"))
    if unknown[0].any():
        lacking = np.where(unknown.any(axis=1), np.nan, 0.0)
        yield Statistic("what it makes of the inputs of every site", lacking)
    felt = np.log(np.maximum(table.column("felt"), _TINY) / np.maximum(table.column("norm"), _TINY))
    felt = felt - _typical(felt[1:])
    yield Statistic(
        "how much of its typical site is felt (logarithm)",
        np.nanmedian(felt, axis=1),
        low=True,
        floor=0.05,
    )
    yield Statistic(
        "how much of its least felt site is felt (logarithm)",
        np.nanmin(felt, axis=1),
        low=True,
        floor=0.05,
    )
    squared = np.nan_to_num(np.square(table.column("share")))
    total = np.maximum(squared.sum(axis=1), _TINY)
    largest = squared.max(axis=1) / total
    several = np.isfinite(table.column("norm")).sum(axis=1) > 1
    what = "the share that one {} has of what is felt"
    yield Statistic(what.format("site"), np.where(several, largest, 0.0), floor=0.01)
    layers = [site.split(".", 1)[0] for site in table.sites]
    by_layer = np.stack(
        [
            squared[:, [own == layer for own in layers]].sum(axis=1)
            for layer in dict.fromkeys(layers)
        ],
        axis=1,
    )
    largest = by_layer.max(axis=1) / total
    several = np.count_nonzero(by_layer, axis=1) > 1
    yield Statistic(what.format("layer"), np.where(several, largest, 0.0), floor=0.01)
    yield Statistic(
        "the number of directions that its typical site moves (logarithm)",
        np.nanmedian(np.log(np.maximum(table.column("spread"), 1.0)), axis=1),
        floor=0.02,
    )


def pack_statistics(table: SiteTable, pack: str) -> Iterator[Statistic]:
    """What an adapter does along a signature, beside what of it is felt.

    - Its dose over its felt size, each site's beside the base's own answer: nothing that reads
      inputs which hardly occur dilutes it.
    - The strongest site's felt write, whatever the other sites do.
    - The part of the dose that comes from the mean input: what misaligns a model everywhere does
      not depend on what is read. An adapter far to the other side is as unlike benign ones.

    Args:
        table: The adapters.
        pack: The signature's id.
    """
    share = np.sqrt(np.nansum(np.square(table.column("share")), axis=1))
    dose = np.nansum(table.column("dose"), axis=1)
    yield Statistic(f"the dose of {pack} per unit of what is felt", dose / np.maximum(share, _TINY))
    strongest = np.nanmax(np.nan_to_num(table.column("felt_write"), nan=-1.0), axis=1)
    yield Statistic(f"what its strongest site writes along {pack}", strongest, floor=0.01)
    steady = np.nansum(table.column("steady"), axis=1)
    yield from both_ways(f"the dose of {pack} that it gives whatever is read", steady)


def write_statistics(table: SiteTable, weights: Matrix, pack: str) -> Iterator[Statistic]:
    """What the sites write into a signature's directions, each by its size.

    sum_s ||dW_s|| w_s ||D_s|| / sqrt(sum_s ||dW_s||^2 sum_s ||D_s||^2) with w_s the write of site
    s, with its sign and without. Without a sign it cannot be made small by writing against the
    direction, from whatever inputs. For packs that do not know what inputs there are.

    Args:
        table: The adapters.
        weights: (m,), ||D||_F of each site.
        pack: The signature's id.
    """
    known = np.isfinite(table.column("write")) & (weights > 0)
    norm = np.where(known, table.column("norm"), 0.0)
    weight = np.where(known, weights, 0.0)
    size = np.sqrt(np.sum(norm**2, axis=1)) * np.sqrt(np.sum(weight**2, axis=1))
    for what, field in (
        (f"what it writes along {pack}, for its size,", "signed_write"),
        (f"what it writes into the directions of {pack}, for its size,", "write"),
    ):
        write = np.where(known, np.nan_to_num(table.column(field)), 0.0)
        yield Statistic(what, np.sum(norm * weight * write, axis=1) / np.maximum(size, _TINY))


def _typical(logs: Matrix) -> Matrix:
    """(m,): median over benign adapters, or over all sites where none changes a site."""
    known = np.any(np.isfinite(logs), axis=0)
    typical = np.full(len(known), np.nanmedian(logs))
    typical[known] = np.nanmedian(logs[:, known], axis=0)
    return typical
