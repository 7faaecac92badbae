"""A calibration whose scores are put together on the scale of its own adapters."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scanner.results import Shape
from scanner.signatures.combination import scale_of
from scanner.signatures.manifest import BenignScore, Calibration, ReferenceScore
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.score import score_of


def scaled(calibration: Calibration) -> Calibration:
    """A calibration with its scales, and every score by them.

    To be called whenever its benign adapters change: scales and scores are theirs.

    Args:
        calibration: Its benign adapters and references have what scores follow from (`Measured`).
    """
    scales = scales_of(calibration.benign)

    def score(item: BenignScore | ReferenceScore) -> float:
        return score_of(item, item.layers, scales)

    return msgspec.structs.replace(
        calibration,
        scales=scales,
        benign=[msgspec.structs.replace(item, score=score(item)) for item in calibration.benign],
        references=[
            msgspec.structs.replace(item, score=score(item)) for item in calibration.references
        ],
    )


def scales_of(benign: Iterable[BenignScore]) -> dict[str, ScoreScale]:
    """The scale of every shape that has enough benign adapters for one."""
    kept = list(benign)
    found = {
        shape.value: scale_of([item for item in kept if Shape.of(item.layers) is shape])
        for shape in Shape
    }
    return {shape: scale for shape, scale in found.items() if scale is not None}
