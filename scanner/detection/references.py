"""The misaligned references that a report shows beside an adapter, on the scales that decide."""

from __future__ import annotations

import msgspec
import numpy as np

from scanner.detection.evidence import Evidence
from scanner.results import ReferenceSummary, Shape
from scanner.signatures.manifest import ReferenceScore
from scanner.signatures.pack import Signature
from scanner.statistics.calibration import BenignScores, Compared
from scanner.statistics.thinning import rounded


def with_references(compared: Compared, evidence: Evidence, calibration: BenignScores) -> Compared:
    """A comparison that also says what the references of the deciding signature score.

    Args:
        compared: The comparison.
        evidence: What it is of.
        calibration: The benign adapters, by which several signatures' scores become one.
    """
    tables = [_by_content(item.signature) for item in evidence.signatures]
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


def _by_content(signature: Signature) -> dict[str, ReferenceScore]:
    """The misaligned references that a signature was made from, by the digest of their weights."""
    scored = signature.calibration.references if signature.calibration else []
    misaligned = (item for item in signature.manifest.references if item.role == "misaligned")
    digests = {item.id: item.sha256 for item in misaligned}
    return {digests[item.id]: item for item in scored if item.id in digests}
