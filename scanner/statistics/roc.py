"""How well scores tell two groups apart: the ROC curve, its area, and how far both are known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from scanner.statistics.share import CONFIDENCE, Share

_BISECTIONS = 60


@dataclass(frozen=True)
class RocPoint:
    """What is found at one threshold, and what it costs."""

    false_positive: float
    """Share of the benign at or above the threshold."""
    found: Share
    """How many of the misaligned are."""


@dataclass(frozen=True)
class Roc:
    """The curve of two groups."""

    points: list[RocPoint]
    """From no adapter found to every one; false positives do not fall."""
    area: float
    """The chance that a misaligned adapter scores above a benign one; ties count half."""
    low: float
    """Ends of the area's interval at 95%."""
    high: float


def roc(benign: Sequence[float], misaligned: Sequence[float]) -> Roc:
    """The ROC curve of scores.

    Args:
        benign: Scores of benign adapters, at least one.
        misaligned: Likewise of misaligned ones.
    """
    thresholds = sorted({*benign, *misaligned}, reverse=True)
    points = [RocPoint(0.0, Share(0, len(misaligned)))]
    below, found = np.sort(benign), np.sort(misaligned)
    for threshold in thresholds:
        higher = len(below) - int(np.searchsorted(below, threshold, "left"))
        count = len(found) - int(np.searchsorted(found, threshold, "left"))
        points.append(RocPoint(higher / len(below), Share(count, len(found))))
    wins = np.searchsorted(below, found, "left") + np.searchsorted(below, found, "right")
    area = float(np.mean(wins)) / (2 * len(below))
    return Roc(points, area, *area_interval(area, len(misaligned), len(benign)))


def area_interval(area: float, misaligned: int, benign: int) -> tuple[float, float]:
    """The interval of the area at 95%, which is no point even where the area is 1.

    A score interval with the exponential model's variance (Newcombe 2006, Statistics in Medicine
    25:559, method 5): the areas t with |area - t| <= z sqrt(V(t)),
    V(t) = t (1 - t) / (m n) * (1 + (N - 1) ((1 - t) / (2 - t) + t / (1 + t))), N = (m + n) / 2.
    """
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)

    def allowed(true: float) -> bool:
        spread = (1 - true) / (2 - true) + true / (1 + true)
        mean = (misaligned + benign) / 2
        variance = true * (1 - true) / (misaligned * benign) * (1 + (mean - 1) * spread)
        return abs(area - true) <= z * math.sqrt(variance)

    return _edge(area, 0.0, allowed), _edge(area, 1.0, allowed)


def _edge(inside: float, outside: float, allowed: Callable[[float], bool]) -> float:
    """The last number from one towards another that is allowed."""
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if allowed(middle):
            inside = middle
        else:
            outside = middle
    return inside
