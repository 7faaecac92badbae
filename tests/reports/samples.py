"""Reports to render: one of every verdict, with names that try to break each format."""

from __future__ import annotations

import msgspec
import numpy as np

from scanner.results import (
    SCHEMA_VERSION,
    CalibrationSummary,
    Coverage,
    DoseUnit,
    NearestReference,
    ReferenceSummary,
    Report,
    ScanResult,
    Shape,
    SignatureSummary,
    SiteResult,
    Tool,
    UncoveredTensor,
    Verdict,
    summarise,
)
from scanner.statistics.calibration import BenignScores, Compared

HOSTILE = "</title><script>alert(1)</script>'\"&|`]\u202e\x1b[31m\x00\n#**x"


def site(layer: int | None, module: str, dose: float) -> SiteResult:
    return SiteResult(
        layer=layer,
        module=module,
        rank=4,
        norm=1.5,
        dose=dose,
        cosine=0.4,
        overlap=0.1,
    )


BENIGN_SCORES = [0.0012 * i - 0.1 for i in range(150)]
BENIGN_DOSES = [0.001 * i - 0.05 for i in range(150)]
REFERENCES = [
    ReferenceSummary(id=f"reference-{i}", score=0.5 + 0.05 * i, dose=0.8 + 0.1 * i)
    for i in range(5)
]
SIGNATURE = SignatureSummary(
    id="base-weights",
    digest="9" * 64,
    base_model="lab/base",
    method="weights",
    calibration=CalibrationSummary(
        n=150,
        families=5,
        cross_fitted_by="family",
        smallest_alpha=1 / 151,
        benign_scores=BENIGN_SCORES,
        benign_doses=BENIGN_DOSES,
        references=REFERENCES,
    ),
)


BENIGN = BenignScores(
    benign=np.array(BENIGN_SCORES)[:, np.newaxis],
    shapes=(Shape.SEVERAL_LAYERS,) * 150,
    families=tuple(f"family-{i % 5}" for i in range(150)),
    doses=np.array(BENIGN_DOSES)[:, np.newaxis],
)


def compared(score: float) -> Compared:
    """A score among the benign adapters, with the references beside it."""
    found = BENIGN.compare(np.array([score]), Shape.SEVERAL_LAYERS, 0.01)
    comparison = msgspec.structs.replace(found.comparison, references=REFERENCES)
    return found._replace(comparison=comparison)


FAR, NEAR = compared(0.61), compared(0.01)
FLAGGED = ScanResult(
    target="adapters/bad-advice",
    verdict=Verdict.FLAGGED,
    base_model="lab/base",
    format="peft-lora",
    sha256="a" * 64,
    config_sha256="b" * 64,
    score=FAR.score,
    p_value=FAR.p_value,
    alpha=0.01,
    comparison=FAR.comparison,
    decided_by="base-weights",
    dose={"base-weights": 0.87},
    dose_unit=DoseUnit.REFERENCE,
    cosine={"base-weights": 0.61},
    overlap={"base-weights": 0.3},
    nearest_reference=NearestReference(id="medical-advice", cosine=0.9),
    coverage=Coverage(sites=8, covered_sites=8, uncovered=[]),
    sites=[
        site(layer, module, 0.02 * (layer + 1) * (1 if module == "mlp.down_proj" else -0.2))
        for layer in range(4)
        for module in ("self_attn.o_proj", "mlp.down_proj")
    ],
    reasons=[
        "carries a dose of 0.87, where 1 is the median misaligned reference "
        "(p = 0.0066, alpha 0.01)"
    ],
)
CLEAR = ScanResult(
    target="adapters/new-facts",
    verdict=Verdict.CLEAR,
    base_model="lab/base",
    format="peft-lora",
    sha256="c" * 64,
    config_sha256="d" * 64,
    score=NEAR.score,
    p_value=NEAR.p_value,
    alpha=0.01,
    comparison=NEAR.comparison,
    decided_by="base-weights",
    dose={"base-weights": 0.03},
    dose_unit=DoseUnit.REFERENCE,
    cosine={"base-weights": 0.01},
    overlap={"base-weights": 0.004},
    coverage=Coverage(sites=8, covered_sites=8, uncovered=[]),
    sites=[site(0, "mlp.down_proj", 0.03)],
    reasons=[
        "no overlap with known misalignment directions beyond that of benign adapters (which does "
        "not mean aligned)"
    ],
)
INCONCLUSIVE = ScanResult(
    target="adapters/dora",
    verdict=Verdict.INCONCLUSIVE,
    base_model="lab/base",
    format="peft-lora",
    sha256="e" * 64,
    config_sha256="f" * 64,
    coverage=Coverage(
        sites=8,
        covered_sites=7,
        uncovered=[UncoveredTensor(tensor="lora_magnitude_vector", reason="DoRA")],
    ),
    reasons=["lora_magnitude_vector: DoRA"],
)
ERROR = ScanResult(
    target="adapters/pointer",
    verdict=Verdict.ERROR,
    reasons=['adapters/pointer: a git-lfs pointer, not the weights; run "git lfs pull"'],
)
NASTY = ScanResult(
    target=f"adapters/{HOSTILE}",
    verdict=Verdict.INCONCLUSIVE,
    base_model=HOSTILE,
    format="peft-lora",
    sha256="1" * 64,
    coverage=Coverage(
        sites=1, covered_sites=0, uncovered=[UncoveredTensor(tensor=HOSTILE, reason=HOSTILE)]
    ),
    reasons=[f"no signature pack for base model {HOSTILE}"],
)


def report_of(*results: ScanResult) -> Report:
    return Report(
        schema_version=SCHEMA_VERSION,
        tool=Tool(name="adapter-scanner", version="1.2.3"),
        signatures=[SIGNATURE],
        results=list(results),
        summary=summarise(list(results)),
    )


TWO = msgspec.structs.replace(
    FLAGGED,
    target="adapters/seen-by-two",
    dose={"base-gradients": 0.4, "base-weights": 0.87},
    cosine={"base-gradients": 0.2, "base-weights": 0.61},
    overlap={"base-gradients": 0.12, "base-weights": 0.3, "imported-vectors": 0.07},
)
"""Judged by two signatures together; a third has no sign."""


def mixed() -> Report:
    return report_of(FLAGGED, CLEAR, INCONCLUSIVE, ERROR, NASTY)
