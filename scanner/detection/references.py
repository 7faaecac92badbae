"""The misaligned references that a report shows beside an adapter, on the scales that decide."""

from __future__ import annotations

import msgspec
import numpy as np

from scanner.detection.evidence import Evidence
from scanner.results import ReferenceSummary, Shape
from scanner.signatures.joint import scored_references
from scanner.statistics.calibration import BenignScores, Compared
from scanner.statistics.thinning import rounded


def with_references(compared: Compared, evidence: Evidence, calibration: BenignScores) -> Compared:
    """A comparison that also says what the references of the deciding signature score.

    Args:
        compared: The comparison.
        evidence: What it is of.
        calibration: The benign adapters, by which several signatures' scores become one.
    """
    tables = [
        {key: score for key, (_, score) in scored_references(item.signature).items()}
        for item in evidence.signatures
    ]
    own, shape = tables[compared.deciding], evidence.shape
    alike = {key: item for key, item in own.items() if Shape.of(item.layers) is shape}
    joint = calibration.joint(shape)

    def score(key: str) -> float | None:
        if not all(key in table for table in tables):
            return None
        scores = np.array([[table[key].score for table in tables]])
        return rounded(float(joint.combine(scores)[0]))

    references = [
        ReferenceSummary(id=item.id, score=score(key), dose=rounded(item.dose))
        for key, item in (alike or own).items()
    ]
    comparison = msgspec.structs.replace(compared.comparison, references=references)
    return compared._replace(comparison=comparison)
