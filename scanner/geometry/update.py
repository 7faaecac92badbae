"""What an update and a direction are, however the update is held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
AnyMatrix = npt.NDArray[np.floating[Any]]


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


class Seen(NamedTuple):
    """An update dW as one direction D = U diag(s) V^T sees it."""

    energies: Matrix
    """||u_i^T dW||^2 for each column u_i of U, (k,)."""
    core: Matrix
    """U^T dW V, (k, k); NaN along a direction without a sign."""


class AnyUpdate(Protocol):
    """An update dW, prepared for its statistics: `LowRank`, `HighRank` or `Whole`."""

    @property
    def d_in(self) -> int:
        """Number of inputs of the site."""

    @property
    def norm_squared(self) -> float:
        """||dW||_F^2; NaN if a value of the update is not finite."""

    @property
    def cancellation(self) -> float:
        """How much larger the parts that dW is summed from are than dW itself.

        sqrt(sum_j ||p_j||^2) / ||dW|| for dW = sum_j p_j, with p_j = c b_j a_j^T the columns
        of the factors. 1 for orthogonal parts, below 1 if they add up, infinite if they leave
        nothing. Rounding of the parts is multiplied by it.
        """

    @property
    def rank(self) -> int:
        """How many singular values of dW count as other than zero."""

    @property
    def singular_values(self) -> Matrix:
        """Singular values of dW, descending, without those that count as zero.

        Of a matrix without low-rank structure only the leading ones (`whole_matrix`).
        """

    def seen_along(self, direction: Direction) -> Seen:
        """What dW does along a direction of its own shape."""

    def response(self, vectors: AnyMatrix) -> Matrix:
        """Q^T dW^T dW Q, (k, k), for input vectors Q (d_in, k): what it makes of them.

        Of a matrix without low-rank structure an estimate (`whole_matrix`).
        """


MAX_CANCELLATION = 30.0
"""`cancellation` up to which what is left does not depend on how a loader rounds: the factors in
16 bits (a relative error of 2^-9 each) then still make the update to a few percent."""


def why_unstable(update: AnyUpdate) -> str | None:
    """Why loaders that round differently make different updates of one file, if they do."""
    if not update.cancellation > MAX_CANCELLATION:
        return None
    return (
        f"its parts are over {MAX_CANCELLATION:g} times as large as their sum: what is left of "
        "them depends on how a loader rounds, and may not be the update that was judged"
    )
