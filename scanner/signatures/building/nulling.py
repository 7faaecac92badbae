"""Raw directions at a site, benign-nulling, and truncation.

Any fine-tune moves a network in some common ways. The left singular vectors of the stacked
unit updates of benign adapters show them at each site; projecting a direction off those
leaves what is specific to misalignment. The same raw factors are nulled and truncated once
for the signature and once per benign family for cross-fitting, so what these share is
computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from scanner.geometry import AnyMatrix, Direction, LowRank, Matrix, gram

Vector = npt.NDArray[np.float64]

_ROUNDING = 1e-7
"""Singular values below this share of the largest are those of rounding."""
_DENSE_SIZE = 192
"""Up to this size a full symmetric eigendecomposition is the faster way."""


@dataclass(frozen=True)
class RawSite:
    """What an extraction method found at one site: D = left @ diag(weights) @ right."""

    left: Matrix
    """(d_out, R)."""
    right: Matrix
    """(R, d_in)."""
    weights_without: Callable[[str | None], Vector]
    """Benign family or group of references to leave out, or None -> (R,)."""
    instead: Mapping[str, RawSite] = field(default_factory=dict)
    """Group of references -> what was found without it, where no weights can say that."""

    @classmethod
    def fixed(cls, left: AnyMatrix, right: AnyMatrix) -> RawSite:
        """D = left @ right, whatever benign family is left out."""
        ones = np.ones(len(right))
        return cls(left.astype(np.float64), right.astype(np.float64), lambda _family: ones)

    @cached_property
    def _left(self) -> tuple[Matrix, Matrix]:
        q, r = np.linalg.qr(self.left)
        return q, r

    @cached_property
    def _right(self) -> tuple[Matrix, Matrix]:
        q, r = np.linalg.qr(self.right.T)
        return q, r

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return len(self.left), self.right.shape[1]

    def direction(self, common: Matrix, rank: int, without: str | None = None) -> Direction:
        """Projects D off common directions and keeps its top singular triples.

        Args:
            common: (d_out, q), orthonormal columns.
            rank: Triples to keep at most.
            without: The benign family or group of references to leave out of the weights.
        """
        if without is not None and without in self.instead:
            return self.instead[without].direction(common, rank)
        (q_left, r_left), (q_right, r_right) = self._left, self._right
        core = (r_left * self.weights_without(without)) @ r_right.T
        shared = (common.T @ q_left) @ core
        # The right singular vectors of (I - Q Q^T) D come from its small Gram matrix, the
        # triples from D restricted to them: accurate where singular values vanish, too.
        _, right = _top_eigenpairs(gram(core) - gram(shared), min(rank, *core.shape))
        u, s, vt = np.linalg.svd(
            q_left @ (core @ right) - common @ (shared @ right), full_matrices=False
        )
        # What is zero up to rounding has directions all the same, and they would count as written.
        real = s > _ROUNDING * s.max(initial=0.0)
        kept = slice(0, max(int(np.count_nonzero(real)), 1))
        return Direction(u=u[:, kept], s=s[kept], v=q_right @ (right @ vt.T[:, kept]))


@dataclass(frozen=True)
class BenignStack:
    """The unit updates of the nulling set at one site, compressed to their output side."""

    columns: Matrix
    """(d_out, n). Column blocks C_j with C_j C_j^T = dW_j dW_j^T / ||dW_j||^2."""
    families: tuple[str, ...]
    """The family of each column's adapter."""

    @cached_property
    def _covariances(self) -> dict[str, Matrix]:
        """Per family, C C^T: (d_out, d_out). Only used where d_out is the smaller side."""
        found = {}
        for family in sorted(set(self.families)):
            block = self.columns[:, [own == family for own in self.families]]
            found[family] = block @ block.T
        return found

    @cached_property
    def _gram(self) -> Matrix:
        """C^T C, (n, n), of which a family left out is a submatrix."""
        return gram(self.columns)

    def common_directions(self, count: int, without: str | None = None) -> Matrix:
        """Top left singular vectors of the stack, (d_out, at most count).

        Args:
            count: How many.
            without: A family to leave out.
        """
        keep = [index for index, family in enumerate(self.families) if family != without]
        if not keep or not count:
            return np.zeros((len(self.columns), 0))
        if len(self.columns) <= len(self.families):
            kept = [matrix for name, matrix in self._covariances.items() if name != without]
            values, vectors = _top_eigenpairs(np.sum(kept, axis=0), count)
            return vectors[:, values > values[-1] * 1e-10]
        columns = self.columns[:, keep]
        values, vectors = _top_eigenpairs(self._gram[np.ix_(keep, keep)], count)
        useful = values > values[-1] * 1e-10
        basis: Matrix = (columns @ vectors[:, useful]) / np.sqrt(values[useful])
        return basis


def _top_eigenpairs(symmetric: Matrix, count: int) -> tuple[Vector, Matrix]:
    """The largest `count` eigenvalues, ascending, and their eigenvectors.

    A full decomposition costs O(n^3) and is asked for once per site and benign family: large
    matrices go through Lanczos iteration to full precision (ARPACK), from a fixed start.
    """
    from scipy.sparse.linalg import ArpackError, eigsh  # building may import it, scanning not

    size = len(symmetric)
    if size > _DENSE_SIZE and count < size - 1:
        start = np.random.default_rng(0).standard_normal(size)
        # A matrix that is zero up to rounding has no Krylov space: the dense way takes any.
        with suppress(ArpackError):
            values, vectors = eigsh(symmetric, k=count, which="LA", v0=start)
            order = np.argsort(values)
            return values[order], vectors[:, order]
    values, vectors = np.linalg.eigh(symmetric)
    top = slice(max(size - count, 0), None)
    return values[top], vectors[:, top]


def stack_updates(updates: Sequence[tuple[LowRank, str]], d_out: int) -> BenignStack:
    """Stacks the nulling set's updates at one site.

    Args:
        updates: (update, family); zero updates are left out.
        d_out: Rows of the site, for an empty stack.
    """
    blocks: list[Matrix] = []
    families: list[str] = []
    for update, family in updates:
        if not update.norm_squared > 0:
            continue
        unit = update.singular_values / np.sqrt(update.norm_squared)
        blocks.append(update.column_basis() * unit)
        families += [family] * len(unit)
    columns = np.concatenate(blocks, axis=1) if blocks else np.zeros((d_out, 0))
    return BenignStack(columns, tuple(families))
