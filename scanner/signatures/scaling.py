"""A calibration whose scores are put together from what its own adapters write and how far."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from scanner.results import Shape
from scanner.signatures.manifest import BenignScore, Calibration
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.score import scale_of, with_dose


def scaled(calibration: Calibration) -> Calibration:
    """A calibration with its scales, and every score by them.

    To be called whenever its benign adapters change: scales and scores are theirs.

    Args:
        calibration: Its benign adapters and references have signed write and dose.
    """
    scales = scales_of(calibration.benign)

    def score(signed_write: float, dose: float, layers: int) -> float:
        return with_dose(signed_write, dose, scales.get(Shape.of(layers).value))

    return msgspec.structs.replace(
        calibration,
        scales=scales,
        benign=[
            msgspec.structs.replace(item, score=score(item.signed_write, item.dose, item.layers))
            for item in calibration.benign
        ],
        references=[
            msgspec.structs.replace(item, score=score(item.signed_write, item.dose, item.layers))
            for item in calibration.references
        ],
    )


def scales_of(benign: Iterable[BenignScore]) -> dict[str, ScoreScale]:
    """The scale of every shape that has enough benign adapters for one."""
    kept = list(benign)
    found = {
        shape.value: scale_of([item.signed_write for item in own], [item.dose for item in own])
        for shape in Shape
        if (own := [item for item in kept if Shape.of(item.layers) is shape])
    }
    return {shape: scale for shape, scale in found.items() if scale is not None}
