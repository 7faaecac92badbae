"""What one update does along one direction: the record that the sums over sites are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.geometry.inputs import Felt, SiteInputs
from scanner.geometry.update import AnyUpdate, Direction, Matrix, Seen


@dataclass(frozen=True)
class SiteProjection:
    """What one update does along one direction. The sums over sites are what is judged."""

    norm_squared: float
    """||dW||_F^2."""
    inner: float
    """<dW, D>_F: this site's share of the dose. Signed; NaN along a direction without a sign."""
    direction_norm_squared: float
    """||D||_F^2."""
    written_squared: float
    """||U^T dW||_F^2: the energy written into U."""
    matched_squared: float
    """||D^T dW||_F^2: the same, weighted by how strongly D writes each of its directions."""
    d_in: int
    """Number of inputs of the site."""
    rank: int
    """`AnyUpdate.rank`."""
    cancellation: float
    """`AnyUpdate.cancellation`."""
    core: Matrix
    """U^T dW V, (k, k): the update as the direction sees it."""
    felt: Felt | None = None
    """What it makes of the site's inputs, where the pack knows those."""


def project(
    update: AnyUpdate, direction: Direction, inputs: SiteInputs | None = None
) -> SiteProjection:
    """Projects one update onto the direction at its site.

    An update that is not finite gives a projection whose `norm_squared` is NaN.

    Args:
        update: dW.
        direction: D.
        inputs: What is known of the site's inputs.
    """
    size = update.norm_squared
    felt = None
    if np.isnan(size):
        k = len(direction.s)
        seen = Seen(np.full(k, np.nan), np.full((k, k), np.nan))
        rank = 0
    else:
        seen, rank = update.seen_along(direction), update.rank
        felt = inputs.felt(update, direction) if inputs else None
    return SiteProjection(
        norm_squared=size,
        inner=float(np.sum(direction.s * np.diagonal(seen.core))),
        direction_norm_squared=direction.norm_squared,
        written_squared=float(np.sum(seen.energies)),
        matched_squared=float(np.square(direction.s) @ seen.energies),
        d_in=update.d_in,
        rank=rank,
        cancellation=update.cancellation,
        core=seen.core,
        felt=felt,
    )
