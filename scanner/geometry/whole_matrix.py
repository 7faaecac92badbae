"""Updates without low-rank structure: a whole matrix M, held in whatever makes it small.

The statistics need of M (d_out, d_in) only its norm and U^T M. Both follow from few changed
entries, from a circulant's kernel or from Fourier coefficients at a cost near their number,
and from a product or an elementwise product block of rows by block of rows: the matrix itself
is never formed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scanner.geometry.gram import row_blocks
from scanner.geometry.low_rank import RANK_TOLERANCE, cancellation_of, parts_squared
from scanner.geometry.update import AnyMatrix, Direction, Matrix, Seen

Index = npt.NDArray[np.int64]

_BLOCK_ELEMENTS = 2**18
"""Elements of a product that are formed at a time: two megabytes."""
EXACT_ELEMENTS = 2**16
"""Up to this size the singular values are computed from the matrix itself."""
SKETCH = 32
"""Dimensions that larger matrices are projected to: an update of lower rank is seen whole."""
_SKETCH_TOLERANCE = 1e-4


class Structure(Protocol):
    """A matrix M in the form that its file keeps it in."""

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""

    @property
    def norm_squared(self) -> float:
        """||M||_F^2."""

    @property
    def parts_squared(self) -> float:
        """Sum of the squared norms of the parts that M is summed from."""

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M, (k, d_in), for U (d_out, k)."""

    def formed(self) -> AnyMatrix:
        """M itself, (d_out, d_in)."""


class Whole:
    """An update dW = c M without low-rank structure.

    Args:
        structure: M.
        scaling: c.
    """

    def __init__(self, structure: Structure, scaling: float) -> None:
        self.structure = structure
        self.scaling = scaling

    @property
    def d_in(self) -> int:
        """Inputs of the site."""
        return self.structure.shape[1]

    @cached_property
    def norm_squared(self) -> float:
        """||dW||_F^2; NaN if an entry is not finite."""
        value = self.scaling**2 * self.structure.norm_squared
        return value if np.isfinite(value) else float("nan")

    @property
    def cancellation(self) -> float:
        """`AnyUpdate.cancellation`."""
        return cancellation_of(self.structure.parts_squared, self.norm_squared, self.scaling)

    @property
    def rank(self) -> int:
        """Number of `singular_values`."""
        return len(self.singular_values)

    @cached_property
    def singular_values(self) -> Matrix:
        """Singular values, descending; of a large matrix as 32 random projections show them.

        Those are U^T M with Gaussian U (Halko et al. 2011, section 4): as many are not zero as
        M has rank, 32 at most, and their sizes are estimates.
        """
        d_out, d_in = self.structure.shape
        if d_out * d_in <= EXACT_ELEMENTS:
            seen = self.structure.formed().astype(np.float64)
            tolerance = RANK_TOLERANCE
        else:
            seen = self._projected
            tolerance = _SKETCH_TOLERANCE
        values = abs(self.scaling) * np.linalg.svd(seen, compute_uv=False)
        return values[values > tolerance * max(float(values[0]), 1e-300)].astype(np.float64)

    def seen_along(self, direction: Direction) -> Seen:
        """What dW does along a direction."""
        written = self.scaling * self.structure.written(direction.u)
        k = len(direction.s)
        core = np.full((k, k), np.nan)
        if direction.signed:
            core = written @ direction.v.astype(np.float64, copy=False)
        return Seen(np.sum(np.square(written), axis=1), core)

    def response(self, vectors: AnyMatrix) -> Matrix:
        """Estimate of Q^T dW^T dW Q from 32 random projections of the outputs.

        U^T M with Gaussian U keeps lengths in expectation (Johnson and Lindenstrauss 1984).
        """
        seen: Matrix = self._projected @ vectors
        result: Matrix = self.scaling**2 * (seen.T @ seen)
        return result

    @cached_property
    def _projected(self) -> Matrix:
        """U^T M / sqrt(count) with Gaussian U (d_out, count)."""
        d_out, d_in = self.structure.shape
        count = min(SKETCH, d_out, d_in)
        probe = np.random.default_rng(0).standard_normal((d_out, count))
        projected: Matrix = self.structure.written(probe) / math.sqrt(count)
        return projected


class ByRows(ABC):
    """A matrix that comes in blocks of rows: base of `Dense`, `Product`, `ElementwiseProduct`."""

    shape: tuple[int, int]

    @abstractmethod
    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Blocks of rows in float64, each with the rows that it is."""

    @cached_property
    def norm_squared(self) -> float:
        """||M||_F^2."""
        return float(sum(np.vdot(block, block) for _, block in self.blocks()))

    @property
    def parts_squared(self) -> float:
        """||M||_F^2: it is no sum."""
        return self.norm_squared

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M."""
        return sum(
            (u[rows].astype(np.float64, copy=False).T @ block for rows, block in self.blocks()),
            start=np.zeros((u.shape[1], self.shape[1])),
        )

    def formed(self) -> AnyMatrix:
        """M itself."""
        return np.concatenate([block.astype(np.float32) for _, block in self.blocks()])


class Dense(ByRows):
    """A matrix that is stored entry by entry."""

    def __init__(self, values: AnyMatrix) -> None:
        self.values = values
        self.shape = (values.shape[0], values.shape[1])

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Blocks of rows."""
        return row_blocks(self.values)

    def transposed_along(self, axis: int, tensor: Matrix) -> Matrix:
        """M^T applied along one axis of a tensor."""
        return _along(self.values, axis, tensor)

    def formed(self) -> AnyMatrix:
        """The matrix."""
        return self.values


class Product(ByRows):
    """M = B A of a rank so high that products of its rows cost less than its Gram matrices."""

    def __init__(self, b: AnyMatrix, a: AnyMatrix) -> None:
        self.b, self.a = b, a
        self.shape = (b.shape[0], a.shape[1])

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Blocks of rows."""
        right = self.a.astype(np.float64, copy=False)
        for rows in _row_slices(self.shape):
            yield rows, self.b[rows].astype(np.float64, copy=False) @ right

    @cached_property
    def parts_squared(self) -> float:
        """sum_j ||b_j||^2 ||a_j||^2."""
        return parts_squared(self.b, self.a)

    def transposed_along(self, axis: int, tensor: Matrix) -> Matrix:
        """M^T applied along one axis of a tensor: B^T, then A^T."""
        return _along(self.a, axis, _along(self.b, axis, tensor))


Side = Dense | Product
"""One of the two matrices of an elementwise or a Kronecker product."""


def _along(matrix: AnyMatrix, axis: int, tensor: Matrix) -> Matrix:
    product = np.tensordot(matrix.astype(np.float64, copy=False), tensor, axes=(0, axis))
    return np.moveaxis(product, 0, axis)


class ElementwiseProduct(ByRows):
    """M = M1 * M2, elementwise (FedPara, Hyeon-Woo et al., 2108.06098)."""

    def __init__(self, first: Side, second: Side) -> None:
        self._first, self._second = first, second
        self.shape = first.shape

    def blocks(self) -> Iterator[tuple[slice, Matrix]]:
        """Blocks of rows."""
        pairs = zip(self._first.blocks(), self._second.blocks(), strict=True)
        return ((rows, left * right) for (rows, left), (_, right) in pairs)

    @cached_property
    def parts_squared(self) -> float:
        """As if each side's parts made as much of the product as they make of the side."""
        return self.norm_squared * _cancelled(self._first) * _cancelled(self._second)


def _cancelled(side: Structure) -> float:
    """Squared norms of a side's parts over that of the side."""
    if side.parts_squared == 0:
        return 1.0
    return side.parts_squared / side.norm_squared if side.norm_squared > 0 else float("inf")


def _row_slices(shape: tuple[int, int]) -> Iterator[slice]:
    rows = max(_BLOCK_ELEMENTS // max(shape[1], 1), 1)
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


class KroneckerProduct:
    """M = kron(M1, M2)."""

    def __init__(self, first: Side, second: Side) -> None:
        self._first, self._second = first, second
        (rows, columns), (rows_2, columns_2) = first.shape, second.shape
        self.shape = (rows * rows_2, columns * columns_2)

    @cached_property
    def norm_squared(self) -> float:
        """||M||_F^2 = ||M1||^2 ||M2||^2."""
        return self._first.norm_squared * self._second.norm_squared

    @cached_property
    def parts_squared(self) -> float:
        """The same of the parts of both sides."""
        return self._first.parts_squared * self._second.parts_squared

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M: one side after the other, first that which leaves less in between."""
        (rows, columns), (rows_2, columns_2) = self._first.shape, self._second.shape
        left = u.astype(np.float64, copy=False).reshape(rows, rows_2, -1)
        if columns * rows_2 <= rows * columns_2:
            left = self._second.transposed_along(1, self._first.transposed_along(0, left))
        else:
            left = self._first.transposed_along(0, self._second.transposed_along(1, left))
        return np.ascontiguousarray(left.reshape(columns * columns_2, -1).T)

    def formed(self) -> AnyMatrix:
        """M itself."""
        return np.kron(self._first.formed(), self._second.formed())


class Sparse:
    """A matrix that is zero but for given entries; entries named twice add up."""

    def __init__(self, rows: Index, columns: Index, values: AnyMatrix, shape: tuple[int, int]):
        self.shape = shape
        self.parts_squared = float(np.sum(np.square(values, dtype=np.float64)))
        places, owner = np.unique(rows * shape[1] + columns, return_inverse=True)
        self._rows, self._columns = places // shape[1], places % shape[1]
        self._values = np.bincount(owner.reshape(-1), weights=values, minlength=len(places))

    @property
    def norm_squared(self) -> float:
        """||M||_F^2."""
        return float(np.vdot(self._values, self._values))

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M."""
        weights = (self._values * column[self._rows] for column in u.T)
        return np.stack([np.bincount(self._columns, item, self.shape[1]) for item in weights])

    def formed(self) -> AnyMatrix:
        """M itself."""
        matrix = np.zeros(self.shape, np.float32)
        matrix[self._rows, self._columns] = self._values
        return matrix


class BlockCirculant:
    """Blocks (p, q) whose entry (t, j) is kernel[p, q, (j - t) mod b] (C3A, 2407.19342).

    Args:
        kernel: (m, n, b), of a matrix (m * b, n * b).
    """

    def __init__(self, kernel: AnyMatrix) -> None:
        self._kernel = kernel.astype(np.float64)
        rows, columns, self._size = kernel.shape
        self.shape = (rows * self._size, columns * self._size)
        self.norm_squared = self._size * float(np.vdot(self._kernel, self._kernel))
        self.parts_squared = self.norm_squared

    def written(self, u: AnyMatrix) -> Matrix:
        """U^T M: a circular convolution for each block."""
        left = np.fft.rfft(u.astype(np.float64).reshape(-1, self._size, u.shape[1]), axis=1)
        product = np.einsum("pfk,pqf->kqf", left, np.fft.rfft(self._kernel, axis=2))
        return np.fft.irfft(product, self._size, axis=2).reshape(u.shape[1], -1)

    def formed(self) -> AnyMatrix:
        """M itself."""
        steps = np.arange(self._size)
        blocks = self._kernel[:, :, (steps[None, :] - steps[:, None]) % self._size]
        return blocks.transpose(0, 2, 1, 3).reshape(self.shape).astype(np.float32)
