"""What a site's inputs look like in the base model, and what an update makes of them.

The size ||dW||_F counts every input alike. A network's inputs lie near a few directions: an update
that reads other ones is as large and does nothing. With C = E[x x^T] over the inputs x of a site,

    E ||dW x||^2 = ||dW C^(1/2)||_F^2

is the size that is felt. C is kept as its leading eigenvectors, and the mean of the other
eigenvalues in the place of each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scanner.geometry.update import AnyMatrix, AnyUpdate, Direction, Matrix

LEADING = 16
"""Eigenvectors kept of a site's inputs."""


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
class SiteInputs:
    """The second moment C of a site's inputs, and how large the base's own answer is."""

    vectors: AnyMatrix
    """(d_in, k), orthonormal columns: the leading eigenvectors of C."""
    values: Matrix
    """(k,): their eigenvalues."""
    rest: float
    """The mean of the other eigenvalues."""
    mean: AnyMatrix
    """(d_in,): E[x], what all inputs have in common."""
    answer: float
    """sqrt(E ||W x||^2), with W the base's weight."""

    def expected(self, total: Matrix, along: Matrix) -> Matrix:
        """E (m x)^2 for rows m, by what C is on its leading eigenvectors and off them.

        Args:
            total: (n,): ||m||^2 of each row.
            along: (n, k): the squared inner product of each row with each eigenvector.
        """
        off = np.maximum(total - along.sum(axis=1), 0.0)
        result: Matrix = along @ self.values + self.rest * off
        return result

    def felt(self, update: AnyUpdate, direction: Direction) -> Felt:
        """What an update of finite values makes of these inputs, along a direction too."""
        read = np.column_stack([self.vectors, self.mean])
        response = update.response(read)[:-1, :-1]
        squared = self.expected(
            np.array([update.norm_squared]), np.maximum(np.diagonal(response), 0.0)[np.newaxis]
        )
        seen = update.seen_along(Direction(direction.u, direction.s, read))
        written = self.expected(seen.energies, np.square(seen.core[:, :-1]))
        root = np.sqrt(self.values)
        weighted = response * np.outer(root, root)
        size = float(np.linalg.norm(weighted))
        return Felt(
            squared=float(squared[0]),
            matched_squared=float(np.square(direction.s, dtype=np.float64) @ written),
            spread=float(np.trace(weighted) / size) ** 2 if size > 0 else 1.0,
            steady=self._steady(seen.core[:, -1], direction),
            answer=self.answer,
        )

    def _steady(self, moved: Matrix, direction: Direction) -> float:
        """<dW m m^T, D> / ||m||^2 with m the mean input, from U^T dW m."""
        mean = self.mean.astype(np.float64)
        squared = float(mean @ mean)
        if not (direction.signed and squared > 0):
            return float("nan") if not direction.signed else 0.0
        read = mean @ direction.v.astype(np.float64)
        return float(np.sum(direction.s * moved * read)) / squared
