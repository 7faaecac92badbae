"""Signs in the factors that an initialisation has changed the base model.

PiSSA (Meng et al. 2024, arXiv 2404.02948) splits a weight's singular value decomposition
between the factors, B = U sqrt(S) and A = sqrt(S) V^T, and takes the product out of the base.
What such an adapter does to the original base is B A minus the start, which is not in the
file; configs cannot be relied on to say so. The start shows in the factors: orthogonal
columns of B, orthogonal rows of A, and the same norms in both, which ordinary LoRA (A uniform,
B zero) does not come near. OLoRA (arXiv 2406.01775) starts from a QR decomposition: B has
orthonormal columns.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from scanner.geometry.low_rank import LowRank
from scanner.geometry.projection import Matrix

REASON = (
    "the factors look like a decomposition of base weights (PiSSA, OLoRA): the base was changed "
    "too, and the delta is not B @ A"
)

_MAX_COSINE = 0.1
_MIN_RANK = 4
_MIN_SPREAD = 1.15
"""Largest over smallest norm. A uniform A has rows of equal norm."""
_MAX_DISAGREEMENT = 0.1
"""Relative difference between norms that a decomposition makes equal."""


def _cosines(gram: Matrix) -> Matrix:
    norms = np.sqrt(np.diagonal(gram))
    cosines: Matrix = gram / np.outer(norms, norms)
    return cosines


def _orthogonal(gram: Matrix) -> bool:
    cosines = np.abs(_cosines(gram))
    np.fill_diagonal(cosines, 0.0)
    return bool(cosines.max() < _MAX_COSINE)


def looks_decomposed(update: LowRank) -> bool:
    """Whether one update's factors look like a share of a decomposition of the base's weight."""
    rank = update.gram_b.shape[0]
    norms_b, norms_a = (np.sqrt(np.diagonal(gram)) for gram in (update.gram_b, update.gram_a))
    if rank < _MIN_RANK or not (norms_b.min() > 0 and norms_a.min() > 0):
        return False
    if not np.isfinite(update.norm_squared) or not _orthogonal(update.gram_b):
        return False
    if norms_b.max() / norms_b.min() < 1 + _MAX_DISAGREEMENT / 2:  # orthonormal: OLoRA's Q
        return bool(norms_a.max() / norms_a.min() > _MIN_SPREAD)
    ratio = norms_b / norms_a
    balanced = ratio.max() / ratio.min() < 1 + _MAX_DISAGREEMENT
    spread = norms_a.max() / norms_a.min() > _MIN_SPREAD
    return bool(balanced and spread) and _orthogonal(update.gram_a)


def changed_the_base(signs: Iterable[bool]) -> bool:
    """Whether an adapter as a whole shows it: most of its updates do.

    Args:
        signs: What `looks_decomposed` says of each update that is not zero.
    """
    found = list(signs)
    return sum(found) * 2 > len(found) > 0
