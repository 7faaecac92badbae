"""Structured updates as low-rank factors.

Formats store an update as an elementwise product, a Kronecker product, blocks on a diagonal
and so on. Each function here turns one of them into (B, A) with dW = B @ A, exactly: the
rank grows where the structure demands it, and nothing is truncated.
"""

from __future__ import annotations

import numpy as np

from scanner.formats.model import Factors, FloatArray


def dense(delta: FloatArray) -> Factors:
    """Factors of a matrix without low-rank structure: itself and an identity.

    Args:
        delta: (d_out, d_in).

    Returns:
        (d_out, n) and (n, d_in) with n = min(d_out, d_in).
    """
    d_out, d_in = delta.shape
    if d_in <= d_out:
        return delta, np.eye(d_in, dtype=np.float32)
    return np.eye(d_out, dtype=np.float32), delta


def at_most_full_rank(b: FloatArray, a: FloatArray) -> Factors:
    """The same product with no more columns than the matrix has rows or columns."""
    if b.shape[1] <= min(b.shape[0], a.shape[1]):
        return b, a
    return dense((b.astype(np.float64) @ a.astype(np.float64)).astype(np.float32))


def elementwise_product(first: Factors, second: Factors) -> Factors:
    """(B1 A1) * (B2 A2) elementwise, of rank r1 * r2 (FedPara, Hyeon-Woo et al., 2108.06098).

    The rows of B are the Kronecker products of the rows of B1 and B2; so are the columns of A.
    """
    (b1, a1), (b2, a2) = first, second
    rank = b1.shape[1] * b2.shape[1]
    b = (b1[:, :, None] * b2[:, None, :]).reshape(len(b1), rank)
    a = (a1[:, None, :] * a2[None, :, :]).reshape(rank, a1.shape[1])
    return at_most_full_rank(b, a)


def kronecker_product(first: Factors, second: Factors) -> Factors:
    """kron(B1 A1, B2 A2) = kron(B1, B2) kron(A1, A2), of rank r1 * r2."""
    (b1, a1), (b2, a2) = first, second
    return at_most_full_rank(np.kron(b1, b2), np.kron(a1, a2))


def block_diagonal(stacked: FloatArray, blocks: int) -> FloatArray:
    """(n, m), blocks one below the other -> (n, blocks * m), the same blocks on the diagonal."""
    rows, columns = len(stacked) // blocks, stacked.shape[1]
    result = np.zeros((len(stacked), blocks * columns), dtype=np.float32)
    for block in range(blocks):
        part = slice(block * rows, (block + 1) * rows)
        result[part, block * columns : (block + 1) * columns] = stacked[part]
    return result


def circulant_blocks(kernel: FloatArray) -> FloatArray:
    """Block-circulant matrix of a kernel (m, n, b): (m * b, n * b).

    Entry (t, j) of block (p, q) is kernel[p, q, (j - t) mod b] (C3A, Chen et al., 2407.19342).
    """
    rows, columns, size = kernel.shape
    index = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
    blocks = kernel[:, :, index]  # (m, n, t, j)
    return np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(rows * size, columns * size)


def scattered(
    rows: np.ndarray[tuple[int], np.dtype[np.int64]],
    columns: np.ndarray[tuple[int], np.dtype[np.int64]],
    values: FloatArray,
    shape: tuple[int, int],
) -> FloatArray:
    """A matrix that is zero but for the given entries; entries named twice add up."""
    result = np.zeros(shape, dtype=np.float32)
    np.add.at(result, (rows, columns), values)
    return result


def inverse_haar(coefficients: FloatArray) -> FloatArray:
    """One level of the two-dimensional inverse Haar transform.

    Args:
        coefficients: (2 m, 2 n): averages, and differences along rows, columns and both, in
            the quadrants top left, bottom left, top right and bottom right.

    Returns:
        (2 m, 2 n).
    """
    rows, columns = (size // 2 for size in coefficients.shape)
    low, across = coefficients[:rows, :columns], coefficients[:rows, columns:]
    down, both = coefficients[rows:, :columns], coefficients[rows:, columns:]
    result = np.empty_like(coefficients)
    for row, sign in ((0, 1), (1, -1)):
        for column, mark in ((0, 1), (1, -1)):
            result[row::2, column::2] = (low + sign * across + mark * down + sign * mark * both) / 2
    return result
