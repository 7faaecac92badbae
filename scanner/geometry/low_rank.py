"""Updates held as factors: dW = c B A with B (d_out, r) and A (r, d_in).

Nothing here forms dW. (B, A) and (B G, G^-1 A) are the same update, so every statistic is a
function of dW alone.

Most of it follows from the Gram matrices of the factors, which are nearly all of the work. So
they are first multiplied in float32 (`scanner.geometry.gram`), and again in float64 for whatever
would be off by more than a millionth with the first ones.

Gram matrices square what they are made of, so where columns of the factors cancel each other they
lose twice the digits that the factors themselves lose: such an update is brought into its singular
value decomposition first, by way of QR decompositions of both factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scanner.geometry.gram import (
    GramMatrix,
    LastProduct,
    column_norms_squared,
    inner_products,
)
from scanner.geometry.update import AnyMatrix, Direction, Matrix, Seen

RANK_TOLERANCE = 1e-6
"""Singular values below this share of the largest count as zero. Half the digits of the
float32 the factors come in; squared, it stays well inside float64."""
GRAM_CANCELLATION = 1e3
"""`cancellation` from which Gram matrices are not relied on: they keep ten digits until then."""
_PLAINLY = 10.0
"""So many times the tolerance is beyond all rounding."""
_ROUNDING = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class Spectrum:
    """An update's left singular frame in the coordinates of B: dW = (B @ frame) diag(s) W^T."""

    singular_values: Matrix
    """(rank,), descending, of dW, scaling included."""
    frame: Matrix
    """(r, rank): B @ frame has orthonormal columns that span col(dW)."""


def cancellation_of(parts_squared: float, total_squared: float, scale: float) -> float:
    """sqrt(parts_squared / total_squared), the `AnyUpdate.cancellation`.

    Args:
        parts_squared: Sum of the squared norms of the parts.
        total_squared: Squared norm of their sum.
        scale: What the norm of the sum is multiplied with afterwards, as a factor of both.

    Returns:
        1 if there is nothing to cancel, infinity if the parts leave nothing.
    """
    if parts_squared == 0 or scale == 0:
        return 1.0
    if not total_squared > 0:
        return float("nan") if np.isnan(total_squared) else float("inf")
    return float(np.sqrt(parts_squared) / (np.sqrt(total_squared) / abs(scale)))


class LowRank:
    """An update dW = c B A, prepared for projection by the Gram matrices of its factors.

    Args:
        b: (d_out, r).
        a: (r, d_in).
        scaling: c.
    """

    def __init__(self, b: AnyMatrix, a: AnyMatrix, scaling: float) -> None:
        self.scaling = scaling
        parts = None
        if b.shape[1] > min(len(b), a.shape[1]):
            # All below costs r^2 and r^3: r beyond full rank is no more information.
            parts = parts_squared(b, a)
            product = b.astype(np.float64) @ a.astype(np.float64)
            identity = np.eye(min(product.shape))
            b, a = (identity, product) if len(b) < a.shape[1] else (product, identity)
        self._take(b, a)
        if parts is None:
            parts = float(self._gram_b.column_norms_squared @ self._gram_a.column_norms_squared)
        self._parts_squared = parts
        if np.isfinite(parts) and self.cancellation > GRAM_CANCELLATION:
            self._take(*_decomposed(b, a))
            del self.__dict__["norm_squared"]

    def _take(self, b: AnyMatrix, a: AnyMatrix) -> None:
        self.b = b
        self.a = a
        self._gram_b, self._gram_a = GramMatrix(b), GramMatrix(a.T)
        self._written = LastProduct(lambda u: inner_products(u, b))
        self._read = LastProduct(lambda vectors: inner_products(a.T, vectors))

    @property
    def gram_b(self) -> Matrix:
        """B^T B, (r, r)."""
        return self._gram_b.exact

    @property
    def gram_a(self) -> Matrix:
        """A A^T, (r, r)."""
        return self._gram_a.exact

    @property
    def close_grams(self) -> tuple[Matrix, Matrix]:
        """B^T B and A A^T, with errors of some 1e-7 of the norms of the columns: much cheaper."""
        return self._gram_b.close, self._gram_a.close

    @property
    def d_in(self) -> int:
        """Inputs of the site."""
        return int(self.a.shape[1])

    @cached_property
    def norm_squared(self) -> float:
        """||dW||_F^2 = c^2 <B^T B, A A^T>; NaN if a factor is not finite."""
        value = self.scaling**2 * self._gram_b.inner_product(self._gram_a)
        return max(value, 0.0) if np.isfinite(value) else float("nan")

    @property
    def cancellation(self) -> float:
        """sqrt(sum_j ||b_j||^2 ||a_j||^2) / ||B A|| (`AnyUpdate.cancellation`)."""
        return cancellation_of(self._parts_squared, self.norm_squared, self.scaling)

    @cached_property
    def rank(self) -> int:
        """Singular values of dW that do not count as zero: a third of the work of `spectrum`."""
        if self._has_full_rank():
            return len(self.a)
        try:
            root = np.linalg.cholesky(self.gram_a)
        except np.linalg.LinAlgError:  # A has fewer than r independent rows
            return len(self.singular_values)
        squared = np.linalg.eigvalsh(root.T @ self.gram_b @ root)
        largest = max(float(squared[-1]), 0.0) if len(squared) else 0.0
        return int(np.count_nonzero(squared > largest * RANK_TOLERANCE**2))

    def _has_full_rank(self) -> bool:
        """Whether no singular value counts as zero, where some rows and columns of dW tell.

        The j-th singular value of a matrix is at least that of any of its parts. With the Gram
        matrices L L^T of some rows of B and K K^T of some columns of A, those of the part are
        those of M = L^T K, and the smallest of them is at least 1 / ||M^-1||_F.
        """
        try:
            left = np.linalg.cholesky(self._gram_b.first)
            right = np.linalg.cholesky(self._gram_a.first)
            inverse = np.linalg.inv(left.T @ right)
        except np.linalg.LinAlgError:
            return False
        size = np.sqrt(self.norm_squared) * np.linalg.norm(inverse)
        return bool(size * _PLAINLY * RANK_TOLERANCE < abs(self.scaling))

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
        largest = squared[0] if len(squared) else 0.0
        keep = squared > max(largest, 0.0) * RANK_TOLERANCE**2
        singular = np.sqrt(squared[keep])
        return Spectrum(abs(self.scaling) * singular, root @ vectors[:, keep] / singular)

    @property
    def singular_values(self) -> Matrix:
        """Singular values of dW, descending, without those that count as zero."""
        return self.spectrum.singular_values

    def column_basis(self) -> Matrix:
        """An orthonormal basis of col(dW), (d_out, rank)."""
        basis: Matrix = self.b.astype(np.float64, copy=False) @ self.spectrum.frame
        return basis

    def seen_along(self, direction: Direction) -> Seen:
        """What dW does along a direction, from (U^T B) and (A V) alone."""
        written = self._written.of(direction.u)
        # Rounding can make a zero negative.
        energies = np.maximum(np.diagonal(self._gram_a.along(written)), 0.0)
        k = len(direction.s)
        core = np.full((k, k), np.nan)
        if direction.signed:
            core = self.scaling * (written @ self._read.of(direction.v))
        return Seen(energies * self.scaling**2, core)

    def response(self, vectors: AnyMatrix) -> Matrix:
        """Q^T dW^T dW Q from (A Q) and B^T B."""
        return self.scaling**2 * self._gram_b.along(self._read.of(vectors).T)


def parts_squared(b: AnyMatrix, a: AnyMatrix) -> float:
    """sum_j ||b_j||^2 ||a_j||^2, over the columns of B and the rows of A."""
    return float(column_norms_squared(b) @ column_norms_squared(a.T))


def _decomposed(b: AnyMatrix, a: AnyMatrix) -> tuple[Matrix, Matrix]:
    """The same product as singular vectors times singular values, and singular vectors.

    B = Q R and A^T = P T, so B A = Q (R T^T) P^T with a small matrix in the middle. Singular
    values within its rounding error are taken to be zero: what is below says nothing. Columns
    of B are first given the norms of their rows of A, so that the error is measured by the
    largest part and not by how its size is shared.
    """
    size_b, size_a = np.sqrt(column_norms_squared(b)), np.sqrt(column_norms_squared(a.T))
    used = (size_b > 0) & (size_a > 0)
    share = np.sqrt(size_a[used] / size_b[used])
    q, r = np.linalg.qr(b[:, used].astype(np.float64) * share)
    p, t = np.linalg.qr(a[used].T.astype(np.float64) / share)
    u, s, vt = np.linalg.svd(r @ t.T, full_matrices=False)
    known = s > _ROUNDING * len(r) * float(np.linalg.norm(r)) * float(np.linalg.norm(t))
    return (q @ u[:, known]) * s[known], vt[known] @ p.T


def effective_rank(singular_values: AnyMatrix) -> float:
    """exp(entropy of the normalised singular values); 0 for a zero matrix.

    Roy and Vetterli 2007, "The effective rank", definition 1.
    """
    total = float(np.sum(singular_values))
    if total <= 0:
        return 0.0
    share = singular_values[singular_values > 0] / total
    return float(np.exp(-np.sum(share * np.log(share))))
