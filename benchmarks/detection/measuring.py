"""What a scan measures of one adapter under one signature, and what it could have measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.detection.data import Updates
from benchmarks.detection.metrics import Array
from benchmarks.detection.signatures import Directions
from scanner import geometry
from scanner.formats.model import Site
from scanner.geometry import SiteInputs, SiteProjection
from scanner.geometry.site_statistics import SIGN_DEVIATIONS
from scanner.signatures.numbers import Measurement, SiteNumbers
from scanner.signatures.score import measure, signed_write_score

STATISTICS = (
    "signed_write",
    "weights_write",
    "site_cosines",
    "cosine",
    "dose",
    "unsigned",
    "overlap",
    "column_overlap",
)
"""`weights_write` is the signed write of the weights alone, whatever inputs occur in the base;
`site_cosines` the same with whole cosines in place of signed writes, `unsigned` with
every site's sign dropped; `column_overlap` is the mean over sites. `dose` is not in doses."""
PER_SITE = ("norm", "dose", "felt_write", "share")
"""Fields of `SiteNumbers` that are kept: those that a score follows from, and the norm."""


@dataclass(frozen=True)
class Measured:
    """One adapter under one signature."""

    values: Array
    """(len(STATISTICS),); NaN if it changes no site that the signature knows."""
    norm: float
    """Frobenius norm of the whole update, of the sites that the signature knows."""
    sites: Array
    """(sites of the signature, len(PER_SITE)); NaN where it changes nothing or nothing is known."""

    def measurement(self, keys: Sequence[str]) -> Measurement:
        """What its score follows from.

        Args:
            keys: The sites' keys, in the order of the rows of `sites`.
        """
        return Measurement(
            signed_write=float(self.values[STATISTICS.index("signed_write")]),
            dose=float(self.values[STATISTICS.index("dose")]),
            norm=self.norm,
            sites={
                key: _site_numbers(row)
                for key, row in zip(keys, self.sites.tolist(), strict=True)
                if math.isfinite(row[0])
            },
        )


def _site_numbers(row: Sequence[float]) -> SiteNumbers:
    norm, dose, felt_write, share = (value if math.isfinite(value) else None for value in row)
    return SiteNumbers(
        norm=norm or 0.0,
        dose=dose,
        write=None,
        signed_write=None,
        felt_write=felt_write,
        share=share,
    )


def measured(
    updates: Updates, directions: Directions, inputs: Mapping[Site, SiteInputs], keys: Sequence[str]
) -> Measured:
    """Measures one adapter. Sites without a direction are left out, as in a scan.

    Args:
        updates: The adapter.
        directions: The signature.
        inputs: What is known of the base's inputs by site; may be empty.
        keys: Keys of the signature's sites, in the order of the rows of the result.
    """
    sites = {
        site: geometry.project(update, directions[site], inputs.get(site))
        for site, update in updates.items()
        if site in directions
    }
    nothing = np.full((len(keys), len(PER_SITE)), np.nan)
    if not sites:
        return Measured(np.full(len(STATISTICS), np.nan), 0.0, nothing)
    found = measure(sites)
    unfelt = {site: replace(item, felt=None) for site, item in sites.items()}
    values = (
        found.signed_write,
        signed_write_score(unfelt),
        signed_write_score({site: as_cosine(item) for site, item in unfelt.items()}),
        geometry.cosine(sites.values()),
        found.dose,
        signed_write_score({site: _unsigned(item) for site, item in unfelt.items()}),
        geometry.overlap(sites.values()),
        float(np.mean([column_overlap(updates[site], directions[site]) for site in sites])),
    )
    rows = nothing
    for place, key in enumerate(keys):
        if (numbers := found.sites.get(key)) is not None:
            row = [getattr(numbers, name) for name in PER_SITE]
            rows[place] = [math.nan if value is None else value for value in row]
    return Measured(np.array(values), found.norm, rows)


def column_overlap(update: geometry.LowRank, direction: geometry.Direction) -> float:
    """Mean squared cosine of the angles between U's columns and col(dW), in [0, 1]."""
    shared = geometry.inner_products(direction.u, update.b) @ update.spectrum.frame
    return float(np.sum(np.square(shared))) / len(direction.s)


def _unsigned(item: SiteProjection) -> SiteProjection:
    """A site that reads exactly what the signature reads."""
    return replace(item, inner=np.sqrt(item.matched_squared))


def as_cosine(item: SiteProjection) -> SiteProjection:
    """A site whose signed write is its signed cosine <dW, D> / (||dW|| ||D||).

    The signed write is sigma(rho) ||D^T dW|| / (||D|| ||dW||). With |<dW, D>| in the place of
    ||D^T dW||, rho is the sign of <dW, D>; sigma passes it on whole from `SIGN_DEVIATIONS`
    squared inputs on.
    """
    return replace(item, matched_squared=item.inner**2, d_in=math.ceil(SIGN_DEVIATIONS**2))
