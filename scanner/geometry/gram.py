"""Products of tall matrices with few columns, block of rows by block of rows.

The Gram matrices of its factors are nearly all of the work on an update, and float32 does it in
half the time. A product of two float32 numbers has a relative rounding error of 2^-24, and so has
every sum of them; the sums of blocks are added up in float64. What comes out differs from the exact
Gram matrix by about 2e-8 ||m_i|| ||m_j|| where errors have either sign, and by up to 3e-6 of that
where a column repeats one number, whose rounding always goes the same way. `GramMatrix` therefore
measures the error on one block before it relies on float32, and never for a quadratic form that is
small because its parts cancel each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from scanner.geometry.update import AnyMatrix, Matrix

_BLOCK_ELEMENTS = 2**16
"""Elements widened to float64 at a time: half a megabyte, so that blocks stay in the cache."""
_QUICK_ELEMENTS = 2**16
"""Elements from which float32 is worth its checks."""
_QUICK_COLUMNS = 16
_QUICK_BLOCK = 2**14
"""Elements multiplied in float32 at a time: what is added to a large number loses its own digits,
the more often the longer the sum."""
_QUICK_ERROR = 1e-7
"""Root mean square of the error of one block, as a share of ||m_i|| ||m_j||, up to which the
others are multiplied in float32."""
_LEFT_OVER = 0.2
"""Share of its parts below which a quadratic form is computed from exact products: rounding of the
parts is five times as large there."""
_SMALLEST = 1e-24
_LARGEST = 1e30
"""Squared norms of columns between which no product under- or overflows in float32."""


def row_blocks(matrix: AnyMatrix, beside: int = 0) -> Iterator[tuple[slice, Matrix]]:
    """Row blocks of a matrix in float64, each with the rows that it is.

    Args:
        matrix: (m, n).
        beside: Columns of another matrix whose rows are widened with these.
    """
    rows = max(_BLOCK_ELEMENTS // max(matrix.shape[1], beside, 1), 1)
    for start in range(0, len(matrix), rows):
        part = slice(start, start + rows)
        yield part, matrix[part].astype(np.float64, order="K", copy=False)


def gram(matrix: AnyMatrix) -> Matrix:
    """M^T M, shape (n, n) for M (m, n), accumulated in float64."""
    return sum(
        (block.T @ block for _, block in row_blocks(matrix)),
        start=np.zeros((matrix.shape[1], matrix.shape[1])),
    )


def inner_products(left: AnyMatrix, right: AnyMatrix) -> Matrix:
    """L^T R, shape (k, n) for L (m, k) and R (m, n), accumulated in float64."""
    return sum(
        (
            left[rows].astype(np.float64, order="K", copy=False).T @ block
            for rows, block in row_blocks(right, left.shape[1])
        ),
        start=np.zeros((left.shape[1], right.shape[1])),
    )


def column_norms_squared(matrix: AnyMatrix) -> Matrix:
    """||m_j||^2 of every column, (n,)."""
    return sum(
        (np.einsum("ij,ij->j", block, block) for _, block in row_blocks(matrix)),
        start=np.zeros(matrix.shape[1]),
    )


class LastProduct:
    """A product with a matrix, kept until the next: one is asked for by several statistics.

    Args:
        product: Makes it.
    """

    def __init__(self, product: Callable[[AnyMatrix], Matrix]) -> None:
        self._product = product
        self._last: tuple[AnyMatrix, Matrix] | None = None

    def of(self, vectors: AnyMatrix) -> Matrix:
        """The product with the vectors, which nobody may change."""
        if self._last is None or self._last[0] is not vectors:
            self._last = (vectors, self._product(vectors))
        return self._last[1]


class GramMatrix:
    """M^T M of a matrix M (m, n), as exactly as what is asked of it needs.

    Args:
        matrix: M.
    """

    def __init__(self, matrix: AnyMatrix) -> None:
        self._matrix = matrix

    @cached_property
    def exact(self) -> Matrix:
        """M^T M, (n, n), accumulated in float64."""
        return gram(self._matrix)

    @cached_property
    def _suits(self) -> bool:
        """Whether float32 is worth a try."""
        matrix = self._matrix
        suits = matrix.dtype == np.float32 and matrix.shape[1] >= _QUICK_COLUMNS
        return suits and matrix.size >= _QUICK_ELEMENTS

    @property
    def _first_rows(self) -> AnyMatrix:
        return self._matrix[: max(_BLOCK_ELEMENTS // self._matrix.shape[1], 1)]

    @cached_property
    def first(self) -> Matrix:
        """The exact Gram matrix of some rows of M, if all of them are many."""
        return gram(self._first_rows) if self._suits else self.exact

    @cached_property
    def _quick(self) -> Matrix | None:
        """M^T M multiplied in float32; None where that cannot be relied on."""
        if not self._suits:
            return None
        matrix, block = self._matrix, self._first_rows
        total = self.first.copy()
        rows = max(_QUICK_BLOCK // matrix.shape[1], 1)
        with np.errstate(over="ignore", invalid="ignore"):  # looked at just below
            if not _error(block.T @ block, total) <= _QUICK_ERROR:
                return None
            for start in range(len(block), len(matrix), rows):
                block = matrix[start : start + rows]
                total += block.T @ block
        squared = np.diagonal(total)
        return total if np.all((squared > _SMALLEST) & (squared < _LARGEST)) else None

    @property
    def close(self) -> Matrix:
        """M^T M to some 1e-7 ||m_i|| ||m_j||."""
        return self.exact if self._quick is None else self._quick

    @property
    def column_norms_squared(self) -> Matrix:
        """||m_j||^2 of every column, (n,)."""
        return np.diagonal(self.close)

    def along(self, vectors: AnyMatrix) -> Matrix:
        """W M^T M W^T, (k, k), for W (k, n): every ||M w||^2 to a millionth of itself."""
        found: Matrix = vectors @ self.close @ vectors.T
        if self._quick is not None:
            parts = np.square(vectors) @ self.column_norms_squared
            if not np.all(np.diagonal(found) >= _LEFT_OVER * parts):
                found = vectors @ self.exact @ vectors.T
        return found

    def inner_product(self, other: GramMatrix) -> float:
        """<M^T M, N^T N>_F = ||M N^T||_F^2, to a millionth of itself."""
        found = float(np.sum(self.close * other.close))
        if self._quick is None and other._quick is None:
            return found
        parts = float(self.column_norms_squared @ other.column_norms_squared)
        return found if found >= _LEFT_OVER * parts else float(np.sum(self.exact * other.exact))


def _error(quick: AnyMatrix, exact: Matrix) -> float:
    """Root mean square of the error of a Gram matrix as a share of ||m_i|| ||m_j||."""
    sizes = np.sqrt(np.diagonal(exact))
    if not (sizes > 0).all():
        return float("nan")
    error = (quick - exact) / np.outer(sizes, sizes)
    return float(np.sqrt(np.mean(np.square(error))))
