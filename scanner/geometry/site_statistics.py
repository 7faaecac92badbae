"""Statistics of an adapter from what each of its updates does along a signature's directions."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scanner.geometry.projection import SiteProjection


def dose(projections: Iterable[SiteProjection]) -> float:
    """Sum over sites of <dW, D>_F: the dose, signed, in units of the reference organisms."""
    return float(sum(projection.inner for projection in projections))


def cosine(projections: Iterable[SiteProjection]) -> float:
    """Signed cosine of the update and the signature in weight space, in [-1, 1].

    sum <dW, D> / sqrt(sum ||dW||^2 * sum ||D||^2), all sums over the sites the adapter
    changes. NaN if it changes none.
    """
    changed = [projection for projection in projections if projection.norm_squared > 0]
    energy = sum(projection.norm_squared for projection in changed)
    size = sum(projection.direction_norm_squared for projection in changed)
    if not changed or size == 0:
        return float("nan")
    # Two square roots: the product of two small sums would underflow first.
    return dose(changed) / (float(np.sqrt(energy)) * float(np.sqrt(size)))


def write(projection: SiteProjection) -> float:
    """||D^T dW||_F / (||D||_F ||dW||_F), in [0, 1]: how much dW writes what D writes.

    Whatever is added to an update that reads other inputs can make it larger only, or smaller
    by making ||dW|| larger. NaN for a zero update or direction.
    """
    # Two square roots: the product of two small squares would underflow first.
    size = np.sqrt(projection.norm_squared) * np.sqrt(projection.direction_norm_squared)
    return float(np.sqrt(projection.matched_squared) / size) if size > 0 else float("nan")


SIGN_DEVIATIONS = 2.0
"""A site's sign counts in full from so many standard deviations of what chance gives."""


def signed_write(projection: SiteProjection) -> float:
    """How much of an update dW writes what the signature D writes, with a sign.

        signed write = sign * ||D^T dW||_F / (||D||_F ||dW||_F), in [-1, 1]

    - The size is that of the output side alone. Which inputs an update reads is mostly the
      text it was trained on, so a cosine <dW, D> / (||D|| ||dW||) is small for adapters that
      do the same thing to another domain's text, most of all for those of rank 1.
    - The sign is that of rho = <dW, D> / ||D^T dW||_F, how well the inputs agree. For inputs
      drawn at random rho has a standard deviation of about 1/sqrt(d_in), so the sign counts in
      proportion until it is `SIGN_DEVIATIONS` such deviations from zero:
      sign = clip(rho sqrt(d_in) / SIGN_DEVIATIONS, -1, 1).

    NaN for a zero update, and along a direction without a sign.
    """
    # Two square roots: the product of two small squares would underflow first.
    size = np.sqrt(projection.norm_squared) * np.sqrt(projection.direction_norm_squared)
    if not size > 0 or np.isnan(projection.inner):
        return float("nan")
    if projection.matched_squared == 0:
        return 0.0
    matched = np.sqrt(projection.matched_squared)
    agreement = projection.inner / matched * np.sqrt(projection.d_in)
    return float(np.clip(agreement / SIGN_DEVIATIONS, -1.0, 1.0) * matched / size)


def felt_write(projection: SiteProjection) -> float:
    """The signed write of what is felt: sign * sqrt(E||D^T dW x||^2 / E||dW x||^2) / ||D||_F.

    With the sign of `signed_write`. What an update adds from inputs that hardly occur makes it
    neither larger nor smaller. NaN as there, and where the pack does not know the inputs.
    """
    felt, size = projection.felt, write(projection)
    if felt is None or np.isnan(size):
        return float("nan")
    if size == 0 or felt.squared == 0:
        return 0.0
    sign = signed_write(projection) / size
    made = np.sqrt(felt.matched_squared) / np.sqrt(felt.squared)
    return float(sign * made / np.sqrt(projection.direction_norm_squared))


def _changed(projections: Iterable[SiteProjection]) -> list[SiteProjection]:
    """Keeps the sites that the adapter changes and at which the signature is not zero."""
    return [
        item for item in projections if item.norm_squared > 0 and item.direction_norm_squared > 0
    ]


def strongest_write(projections: Iterable[SiteProjection]) -> float:
    """The largest signed write of the sites that the signature knows.

    NaN if there is none, or if one of them has no sign: it might have been the largest.
    """
    writes = [signed_write(item) for item in _changed(projections)]
    return float(np.max(writes)) if writes else float("nan")


def site_score(projections: Iterable[SiteProjection]) -> float:
    """Weighted combination of the sites' signed writes.

    sum_s w_s c_s / sqrt(sum_s w_s^2) with c_s the `signed_write` of site s and w_s = ||D_s||^2,
    over the sites the adapter changes: the Liptak-Stouffer combination (Liptak 1958) of one
    statistic per site. A site counts by how much the signature says about it. (In the cosine
    it counts by how much the adapter changes it, and most of what an adapter changes stores
    its training text.) Not bounded by 1. NaN if the adapter changes no site at which the
    signature is not zero.
    """
    changed = _changed(projections)
    if not changed:
        return float("nan")
    weights = np.array([item.direction_norm_squared for item in changed])
    weights = weights / weights.max()
    writes = np.array([signed_write(item) for item in changed])
    return float(weights @ writes / np.sqrt(weights @ weights))


def felt_score(projections: Iterable[SiteProjection]) -> float:
    """Combination of the sites' felt writes, each weighted by how much the update changes there.

    sum_s w_s c_s / sqrt(sum_s w_s^2) with c_s the `felt_write` of site s and w_s = ||D_s|| times
    its `Felt.share`, the felt size beside the base's own answer: like `site_score` a
    Liptak-Stouffer combination, so that both are on one scale. Sites where an adapter does next to
    nothing do not count, whatever they write, and what is added from inputs that hardly occur
    dilutes nothing. (By the felt size itself the few sites would decide whose inputs are a hundred
    times larger than others', as real models have them.) Sites whose inputs are not known have no
    part in it: one more of them cannot void what the others say. NaN as `site_score`, and where
    no site's inputs are known.
    """
    changed = [item for item in _changed(projections) if item.felt and item.felt.answer > 0]
    if not changed:
        return float("nan")
    share = np.array([item.felt.share for item in changed if item.felt])
    weights = share * np.sqrt([item.direction_norm_squared for item in changed])
    largest = float(weights.max())
    if not largest > 0:  # NaN too
        return float("nan")
    weights = weights / largest
    writes = np.array([felt_write(item) for item in changed])
    return float(weights @ writes / np.sqrt(weights @ weights))


def overlap(projections: Iterable[SiteProjection]) -> float:
    """Share of the update's energy that it writes into U, in [0, 1]; NaN for a zero update."""
    projections = list(projections)
    energy = sum(projection.norm_squared for projection in projections)
    if energy == 0:
        return float("nan")
    return sum(projection.written_squared for projection in projections) / energy
