"""What one update does along one direction, however the update is held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scanner.geometry.inputs import SiteInputs

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


@dataclass(frozen=True)
class Felt:
    """What an update makes of the inputs of its site."""

    squared: float
    """E ||dW x||^2."""
    matched_squared: float
    """E ||D^T dW x||^2."""
    spread: float
    """Participation ratio of what it makes of the leading inputs, in [1, k]: how many directions
    it moves them in. With G = L^(1/2) Q^T dW^T dW Q L^(1/2), Q the eigenvectors and L their
    eigenvalues, it is tr(G)^2 / ||G||_F^2. 1 where nothing is moved."""
    steady: float
    """The share of the dose that comes from the mean input, <dW m m^T, D> / ||m||^2: what an
    update does whatever is read. NaN along a direction without a sign."""
    answer: float
    """`SiteInputs.answer`."""

    @property
    def share(self) -> float:
        """sqrt(E ||dW x||^2 / E ||W x||^2): its size beside the base's own answer."""
        return float(np.sqrt(self.squared)) / self.answer if self.answer > 0 else float("nan")


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
    """Number of inputs of the site."""
    singular_values: Matrix
    """Of dW, descending (`AnyUpdate.singular_values`)."""
    cancellation: float
    """`AnyUpdate.cancellation`."""
    core: Matrix
    """U^T dW V, (k, k): the update as the direction sees it."""
    felt: Felt | None = None
    """What it makes of the site's inputs, where the pack knows those."""

    @property
    def rank(self) -> int:
        """Numerical rank of dW."""
        return len(self.singular_values)


def project(
    update: AnyUpdate, direction: Direction, inputs: SiteInputs | None = None
) -> SiteProjection:
    """Projects one update onto the direction at its site.

    An update that is not finite gives a projection whose `norm_squared` is NaN.

    Args:
        update: dW.
        direction: D.
        inputs: What is known of the site's inputs.
    """
    size = update.norm_squared
    felt = None
    if np.isnan(size):
        k = len(direction.s)
        seen = Seen(np.full(k, np.nan), np.full((k, k), np.nan))
        singular_values = np.zeros(0)
    else:
        seen, singular_values = update.seen_along(direction), update.singular_values
        felt = inputs.felt(update, direction) if inputs else None
    return SiteProjection(
        norm_squared=size,
        inner=float(np.sum(direction.s * np.diagonal(seen.core))),
        direction_norm_squared=direction.norm_squared,
        written_squared=float(np.sum(seen.energies)),
        matched_squared=float(np.square(direction.s) @ seen.energies),
        d_in=update.d_in,
        singular_values=singular_values,
        cancellation=update.cancellation,
        core=seen.core,
        felt=felt,
    )
