"""A calibration whose scores are put together from what its own adapters write and how far."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scanner.results import Shape
from scanner.signatures.manifest import BenignScore, Calibration, ReferenceScore
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.score import scale_of, with_dose


def scaled(calibration: Calibration) -> Calibration:
    """A calibration with its scales, and every score by them.

    To be called whenever its benign adapters change: scales and scores are theirs.

    Args:
        calibration: Its benign adapters and references have signed write, dose and norm.
    """
    scales = scales_of(calibration.benign)

    def score(item: BenignScore | ReferenceScore) -> float:
        scale = scales.get(Shape.of(item.layers).value)
        return with_dose(item.signed_write, item.dose, item.norm, scale)

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
        shape.value: scale_of(
            [item.signed_write for item in own],
            [item.dose for item in own],
            [item.norm for item in own],
        )
        for shape in Shape
        if (own := [item for item in kept if Shape.of(item.layers) is shape])
    }
    return {shape: scale for shape, scale in found.items() if scale is not None}
