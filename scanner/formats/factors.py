"""Structured updates as low-rank factors.

Formats store an update as an elementwise product, a Kronecker product, blocks on a diagonal
and so on. Each function here turns one of them into (B, A) with dW = B @ A, exactly: the
rank grows where the structure demands it, and nothing is truncated.
"""

from __future__ import annotations

import numpy as np

from scanner.formats.model import Factors, FloatArray


def with_identity(matrix: FloatArray) -> Factors:
    """Factors of a matrix of no lower rank: itself and an identity.

    Args:
        matrix: (d_out, d_in).

    Returns:
        (d_out, n) and (n, d_in) with n = min(d_out, d_in).
    """
    identity = np.eye(min(matrix.shape), dtype=np.float32)
    return (matrix, identity) if matrix.shape[1] <= len(matrix) else (identity, matrix)


def elementwise_product(first: Factors, second: Factors) -> Factors:
    """(B1 A1) * (B2 A2) elementwise, of rank r1 * r2 (FedPara, Hyeon-Woo et al., 2108.06098).

    The rows of B are the Kronecker products of the rows of B1 and B2; so are the columns of A.
    """
    (b1, a1), (b2, a2) = first, second
    rank = b1.shape[1] * b2.shape[1]
    b = (b1[:, :, None] * b2[:, None, :]).reshape(len(b1), rank)
    a = (a1[:, None, :] * a2[None, :, :]).reshape(rank, a1.shape[1])
    return b, a


def kronecker_product(first: Factors, second: Factors) -> Factors:
    """kron(B1 A1, B2 A2) = kron(B1, B2) kron(A1, A2), of rank r1 * r2."""
    (b1, a1), (b2, a2) = first, second
    return np.kron(b1, b2), np.kron(a1, a2)


def block_diagonal(stacked: FloatArray, blocks: int) -> FloatArray:
    """(n, m), blocks one below the other -> (n, blocks * m), the same blocks on the diagonal."""
    rows, columns = len(stacked) // blocks, stacked.shape[1]
    result = np.zeros((len(stacked), blocks * columns), dtype=np.float32)
    for block in range(blocks):
        part = slice(block * rows, (block + 1) * rows)
        result[part, block * columns : (block + 1) * columns] = stacked[part]
    return result
