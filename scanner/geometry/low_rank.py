"""The mathematics: pure functions on the factors of an update and of a direction.

An update is dW = c B A with B (d_out, r) and A (r, d_in); a direction is
D = U diag(s) V^T with U (d_out, k) and V (d_in, k) orthonormal. Nothing here forms dW,
nothing here reads a file, and every product is accumulated in float64. (B, A) and
(B G, G^-1 A) are the same update, so every statistic is a function of dW alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
AnyMatrix = npt.NDArray[np.floating[Any]]

RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest count as zero. Half the digits of the
float32 the factors come in; squared, it stays well inside float64."""


@dataclass(frozen=True)
class Direction:
    """A low-rank misalignment direction at one site: D = u @ diag(s) @ v.T."""

    u: AnyMatrix
    """(d_out, k), orthonormal columns: what misalignment writes."""
    s: AnyMatrix
    """(k,), non-negative, in units that make the median reference's dose 1."""
    v: AnyMatrix
    """(d_in, k), orthonormal columns: which inputs carry it. (0, k) if that is not known, as
    for an imported steering vector: the direction then has no sign."""

    @property
    def signed(self) -> bool:
        """Whether the input side is known."""
        return len(self.v) > 0

    @property
    def norm_squared(self) -> float:
        """||D||_F^2."""
        return float(np.sum(np.square(self.s, dtype=np.float64)))


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
    """d_in: number of inputs of the site."""
    column_overlap: float
    """Mean squared cosine of the angles between U's columns and col(dW), in [0, 1]."""
    rank: int
    """Numerical rank of dW."""
    core: Matrix
    """U^T dW V, (k, k): the update as the direction sees it."""


@dataclass(frozen=True)
class Spectrum:
    """An update's left singular frame in the coordinates of B: dW = (B @ frame) diag(s) W^T."""

    singular_values: Matrix
    """(rank,), descending, of dW, scaling included."""
    frame: Matrix
    """(r, rank): B @ frame has orthonormal columns that span col(dW)."""


_BLOCK_ELEMENTS = 2**16
"""Elements widened to float64 at a time: half a megabyte, so that blocks stay in the cache."""


def _blocks(matrix: AnyMatrix) -> Iterator[tuple[slice, Matrix]]:
    """Row blocks of a matrix in float64, with the rows they are."""
    rows = max(_BLOCK_ELEMENTS // max(matrix.shape[1], 1), 1)
    for start in range(0, len(matrix), rows):
        part = slice(start, start + rows)
        yield part, matrix[part].astype(np.float64, order="K", copy=False)


def gram(matrix: AnyMatrix) -> Matrix:
    """M^T M, shape (n, n) for M (m, n), accumulated in float64."""
    return sum(
        (block.T @ block for _, block in _blocks(matrix)),
        start=np.zeros((matrix.shape[1], matrix.shape[1])),
    )


def inner_products(left: AnyMatrix, right: AnyMatrix) -> Matrix:
    """L^T R, shape (k, n) for L (m, k) and R (m, n), accumulated in float64."""
    return sum(
        (left[rows].astype(np.float64, copy=False).T @ block for rows, block in _blocks(right)),
        start=np.zeros((left.shape[1], right.shape[1])),
    )


class LowRank:
    """An update dW = c B A, prepared for projection by the Gram matrices of its factors.

    Args:
        b: (d_out, r).
        a: (r, d_in).
        scaling: c.
    """

    def __init__(self, b: AnyMatrix, a: AnyMatrix, scaling: float) -> None:
        if b.shape[1] > min(len(b), a.shape[1]):
            # All below costs r^2 and r^3: r beyond full rank is no more information.
            product = b.astype(np.float64) @ a.astype(np.float64)
            identity = np.eye(min(product.shape))
            b, a = (identity, product) if len(b) < a.shape[1] else (product, identity)
        self.b = b
        self.a = a
        self.scaling = scaling
        self.gram_b = gram(b)
        """B^T B, (r, r)."""
        self.gram_a = gram(a.T)
        """A A^T, (r, r)."""

    @cached_property
    def norm_squared(self) -> float:
        """||dW||_F^2 = c^2 <B^T B, A A^T>; not finite if a factor is not."""
        value = self.scaling**2 * float(np.sum(self.gram_b * self.gram_a))
        return max(value, 0.0) if np.isfinite(value) else float("nan")

    @cached_property
    def spectrum(self) -> Spectrum:
        """Singular values and left frame of dW, of rank 0 if dW is zero.

        With A A^T = L L^T, the nonzero eigenvalues of L^T (B^T B) L are the squared singular
        values of B A. Costs O(r^3), whatever the size of dW.
        """
        values_a, vectors_a = np.linalg.eigh(self.gram_a)
        root = vectors_a * np.sqrt(np.clip(values_a, 0.0, None))
        squared, vectors = np.linalg.eigh(root.T @ self.gram_b @ root)
        squared, vectors = squared[::-1], vectors[:, ::-1]
        keep = squared > max(squared[0], 0.0) * RANK_TOLERANCE**2
        singular = np.sqrt(squared[keep])
        return Spectrum(abs(self.scaling) * singular, root @ vectors[:, keep] / singular)

    def column_basis(self) -> Matrix:
        """An orthonormal basis of col(dW), (d_out, rank)."""
        basis: Matrix = self.b.astype(np.float64, copy=False) @ self.spectrum.frame
        return basis


def project(update: LowRank, direction: Direction) -> SiteProjection:
    """Projects one update onto the direction at its site.

    Non-finite factors give a projection whose `norm_squared` is NaN.
    """
    k = len(direction.s)
    if np.isnan(update.norm_squared):
        nothing = np.full((k, k), np.nan)
        size = direction.norm_squared
        d_in = update.a.shape[1]
        return SiteProjection(np.nan, np.nan, size, np.nan, np.nan, d_in, np.nan, 0, nothing)
    written = inner_products(direction.u, update.b)
    read = inner_products(update.a.T, direction.v) if direction.signed else np.nan
    core = update.scaling * (written @ np.broadcast_to(read, (len(update.a), k)))
    # ||u_i^T dW||^2 for every direction i; rounding can make a zero negative.
    energies = np.sum((written @ update.gram_a) * written, axis=1) * update.scaling**2
    energies = np.maximum(energies, 0.0)
    return SiteProjection(
        norm_squared=update.norm_squared,
        inner=float(np.sum(direction.s * np.diagonal(core))),
        direction_norm_squared=direction.norm_squared,
        written_squared=float(np.sum(energies)),
        matched_squared=float(np.square(direction.s) @ energies),
        d_in=update.a.shape[1],
        column_overlap=float(np.sum(np.square(written @ update.spectrum.frame))) / k,
        rank=len(update.spectrum.singular_values),
        core=core,
    )


def effective_rank(singular_values: AnyMatrix) -> float:
    """exp(entropy of the normalised singular values); 0 for a zero matrix.

    Roy and Vetterli 2007, "The effective rank", definition 1.
    """
    total = float(np.sum(singular_values))
    if total <= 0:
        return 0.0
    share = singular_values[singular_values > 0] / total
    return float(np.exp(-np.sum(share * np.log(share))))
