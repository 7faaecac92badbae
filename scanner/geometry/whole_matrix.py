"""Projection of a whole matrix, for updates without low-rank structure.

`scanner.geometry` costs r^2 and r^3; at full rank that is minutes per site. What the
statistics need of a whole matrix is linear in its size: U^T dW and its product with V.
"""

from __future__ import annotations

import numpy as np

from scanner.geometry.low_rank import AnyMatrix, Direction, SiteProjection, inner_products

_SKETCH = 64
"""Columns of the range finder: updates of lower rank are resolved exactly."""
_SKETCH_TOLERANCE = 1e-4


def norm_squared(delta: AnyMatrix) -> float:
    """||dW||_F^2 in float64; NaN if an entry is not finite."""
    value = sum(
        float(np.sum(np.square(rows.astype(np.float64, copy=False))))
        for rows in np.array_split(delta, max(1, len(delta) // 512))
    )
    return value if np.isfinite(value) else float("nan")


def project_whole(delta: AnyMatrix, direction: Direction) -> SiteProjection:
    """As `scanner.geometry.project`, for a matrix (d_out, d_in).

    Rank and column overlap are those of the leading columns a random sketch finds (Halko et
    al. 2011, algorithm 4.1), at most 64: an update of lower rank is seen whole.
    """
    k = len(direction.s)
    size = norm_squared(delta)
    if np.isnan(size):
        nothing = np.full((k, k), np.nan)
        known, d_in = direction.norm_squared, delta.shape[1]
        return SiteProjection(np.nan, np.nan, known, np.nan, np.nan, d_in, np.nan, 0, nothing)
    written = inner_products(direction.u, delta)  # (k, d_in)
    core = np.full((k, k), np.nan)
    if direction.signed:
        core = written @ direction.v.astype(np.float64, copy=False)
    basis = leading_columns(delta)
    overlap = np.square(direction.u.astype(np.float64, copy=False).T @ basis)
    return SiteProjection(
        norm_squared=size,
        inner=float(np.sum(direction.s * np.diagonal(core))),
        direction_norm_squared=direction.norm_squared,
        written_squared=float(np.sum(np.square(written))),
        matched_squared=float(np.square(direction.s) @ np.sum(np.square(written), axis=1)),
        d_in=delta.shape[1],
        column_overlap=float(np.sum(overlap)) / k,
        rank=basis.shape[1],
        core=core,
    )


def leading_columns(delta: AnyMatrix) -> AnyMatrix:
    """An orthonormal basis of what a sketch of 64 columns sees of col(dW), (d_out, <= 64)."""
    generator = np.random.default_rng(0)
    count = min(_SKETCH, *delta.shape)
    probe = generator.standard_normal((delta.shape[1], count)).astype(np.float32)
    sketch = (delta @ probe).astype(np.float64)
    left, singular, _ = np.linalg.svd(sketch, full_matrices=False)
    keep = singular > _SKETCH_TOLERANCE * max(float(singular[0]), 1e-300)
    basis: AnyMatrix = left[:, keep]
    return basis
