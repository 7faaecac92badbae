"""Small random sketches of matrices, from which the cosine of two of them follows.

With S (d_out, m) and T (d_in, m) of independent signs, every entry of S^T W T times that of
S^T dW T has the expectation <W, dW>, so the mean over all m^2 entries estimates it (a
two-sided form of the tug-of-war sketch, Alon, Matias and Szegedy 1996).

- Of a weight W of the base, m = 64: the estimated cosine with an update has a standard deviation
  of about 0.02 for one that has little to do with W, and of up to 0.08 for the leading part of W
  itself, whose cosine is then ten times as large.
- Of an update, m = 16 at every site. Two whole updates are compared by the cosine of all their
  sketches together, which is exactly 1 for an update and itself, and otherwise has an error of
  about 0.1 / sqrt(sites).

The signs come from a hash, so that a sketch can be used by whatever version reads it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from scanner.geometry.gram import inner_products, row_blocks
from scanner.geometry.low_rank import LowRank
from scanner.geometry.update import AnyMatrix, AnyUpdate, Direction, Matrix

SIZE = 64
"""m of a weight: eight kilobytes in 16 bits."""
UPDATE_SIZE = 16
"""m of an update: half a kilobyte in 16 bits."""

Signs = npt.NDArray[np.float32]


@dataclass(frozen=True)
class WeightSketch:
    """What a pack keeps of one weight W of its base model."""

    norm: float
    """||W||_F."""
    sketch: AnyMatrix
    """S^T W T / ||W||, (m, m)."""

    def cosine(self, update: AnyUpdate, d_out: int) -> float:
        """Estimate of <dW, W> / (||dW|| ||W||); NaN for a zero update."""
        size = float(np.sqrt(update.norm_squared))
        if not (size > 0 and self.norm > 0):
            return float("nan")
        m = len(self.sketch)
        core = sketch_update(update, d_out, m)
        return float(np.vdot(core, self.sketch.astype(np.float64))) / m**2 / size


def sketch_weight(weight: AnyMatrix) -> WeightSketch:
    """Sketches a weight (d_out, d_in) of finite values."""
    d_out, d_in = weight.shape
    left = inner_products(_signs("rows", d_out, SIZE), weight)
    squared = sum(float(np.vdot(rows, rows)) for _, rows in row_blocks(weight))
    norm = float(np.sqrt(squared))
    return WeightSketch(norm, left @ _signs("columns", d_in, SIZE) / (norm or 1.0))


def sketch_update(update: AnyUpdate, d_out: int, size: int = UPDATE_SIZE) -> Matrix:
    """S^T dW T of an update (d_out, d_in) of finite values, (size, size)."""
    rows, columns = _signs("rows", d_out, size), _signs("columns", update.d_in, size)
    if isinstance(update, LowRank):
        with np.errstate(over="ignore", invalid="ignore"):  # looked at just below
            quick = _quickly(update, rows, columns)
        if np.isfinite(quick).all():
            return quick
    return update.seen_along(Direction(rows, np.ones(size), columns)).core


def _quickly(update: LowRank, rows: Signs, columns: Signs) -> Matrix:
    """(S^T B) (A T) in single precision: rounding is far below a sketch's own error."""
    left = rows.T @ update.b.astype(np.float32, copy=False)
    right = update.a.astype(np.float32, copy=False) @ columns
    core: Matrix = update.scaling * (left.astype(np.float64) @ right.astype(np.float64))
    return core


@lru_cache(maxsize=32)
def _signs(side: str, dimension: int, count: int) -> Signs:
    """(dimension, count) of +1 and -1, from SHAKE-256 of the side and the dimension."""
    bits = hashlib.shake_256(f"{side} {dimension}".encode()).digest(-(-dimension * count // 8))
    drawn = np.unpackbits(np.frombuffer(bits, np.uint8), count=dimension * count)
    return (1 - 2 * drawn.astype(np.float32)).reshape(dimension, count)
