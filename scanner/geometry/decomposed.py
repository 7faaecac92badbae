"""Updates that hold a part of the base's own weights, which their initialisation took out.

PiSSA (Meng et al. 2024, arXiv 2404.02948) splits the leading part of a weight's singular value
decomposition between the factors, B = U sqrt(S) and A = sqrt(S) V^T, and takes it out of the
base; OLoRA (arXiv 2406.01775) does so with a QR decomposition, B = Q and A = R. What such an
adapter does to the original base is B A minus the start, which is not in the file; configs
cannot be relied on to say so.

With a sketch of the base's weight W (`scanner.geometry.sketch`) it shows in cos(dW, W): measured
on real adapters, 0.29 to 0.61 for those, at most 0.03 for all others. Without one it shows in the
factors. Gradient descent keeps B^T B - A A^T as it was at the start (Arora, Cohen and Hazan
2018, arXiv 1802.06509): near 0 after PiSSA, and far from it after ordinary LoRA, whose A starts
large and B at 0. OLoRA leaves B^T B near the identity. Where one of these holds *exactly*,
nothing was trained from such a start: the factors are a decomposition of the delta itself
(extracted by SVD), or one of them was frozen (MiCA).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from scanner.geometry.low_rank import LowRank
from scanner.geometry.sketch import WeightSketch
from scanner.geometry.update import AnyUpdate, Matrix

MEASURED = (
    "the update holds a part of the base's own weights, as PiSSA and OLoRA take out of the base: "
    "the base was changed by the initialisation, and the delta is not B @ A"
)
SUSPECTED = (
    "the factors look like a decomposition of base weights (PiSSA, OLoRA): the base was changed "
    "by the initialisation, and the delta is not B @ A"
)
SMALLEST_SHARE = 0.05
"""||dW|| / ||W|| below which the part of W that an update may hold is too small to matter."""
LARGEST_COSINE = 0.1
"""Mean cos(dW, W) over the sites above which they hold a part of the base's weights."""
_EXACT = 5e-4
"""Relative difference that rounding to 16 bits leaves of an equality. The least trained of the
PiSSA and OLoRA adapters of tests/detection/test_changed_base.py differ by 4e-3."""
_NEAR = 0.25
"""Relative difference within which an equality still shows where the factors came from."""
_MIN_RANK = 4
"""Below, factors come near an equality by chance."""


def base_cosine(update: AnyUpdate, d_out: int, base: WeightSketch) -> float | None:
    """cos(dW, W), for an update that is large enough to hold a part of W; None if it is not."""
    if np.sqrt(update.norm_squared) < SMALLEST_SHARE * base.norm:
        return None
    return base.cosine(update, d_out)


def _difference(left: Matrix, right: Matrix) -> float:
    """||L - R|| / (||L|| + ||R||)."""
    size = float(np.linalg.norm(left) + np.linalg.norm(right))
    return float(np.linalg.norm(left - right)) / size if size > 0 else 0.0


def looks_decomposed(update: LowRank) -> bool:
    """Whether the factors look as if trained from a decomposition of the base's weight."""
    if len(update.a) < _MIN_RANK or not update.norm_squared > 0:
        return False
    gram_b, gram_a = update.close_grams
    balance = _difference(gram_b, gram_a)
    if balance < _NEAR:
        return balance > _EXACT
    return _EXACT < _difference(gram_b, np.eye(len(gram_b))) < _NEAR


def changed_the_base(signs: Iterable[bool]) -> bool:
    """Whether an adapter as a whole shows it: most of its updates do.

    Args:
        signs: What `looks_decomposed` says of each update that is not zero.
    """
    found = list(signs)
    return sum(found) * 2 > len(found) > 0


def holds_base_weights(cosines: Sequence[float]) -> bool:
    """Whether an adapter holds a part of the base's weights, by what `base_cosine` gave."""
    return bool(cosines) and float(np.mean(cosines)) > LARGEST_COSINE
