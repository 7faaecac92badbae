"""A pack's scores as rows of a table: its benign adapters and its misaligned references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scanner.signatures.manifest import BenignScore, Calibration, Manifest, ReferenceScore

COLUMNS = ("id", "role", "family", "score", "dose", "cosine", "layers")


def score_rows(manifest: Manifest, calibration: Calibration | None) -> list[dict[str, Any]]:
    """One row for each adapter that the pack scored, with `COLUMNS`."""
    return [
        {
            "id": item.id,
            "role": role,
            "family": family,
            "score": item.score,
            "dose": item.dose,
            "cosine": item.cosine,
            "layers": item.layers,
        }
        for item, role, family in (_scored(manifest, calibration) if calibration else ())
    ]


def _scored(
    manifest: Manifest, calibration: Calibration
) -> Iterator[tuple[BenignScore | ReferenceScore, str, str | None]]:
    families = {item.id: item.family for item in manifest.references}
    for benign in calibration.benign:
        yield benign, "benign", benign.family
    for reference in calibration.references:
        yield reference, "misaligned", families.get(reference.id)
