"""A scan during training -> numbers for a logger."""

from __future__ import annotations

import math

from scanner.reports.training_record import TrainingScan
from scanner.results import ScanResult, Verdict

METRICS_PREFIX = "adapter_scan"
"""What the names of all logged numbers start with."""


def metrics(result: ScanResult) -> dict[str, float]:
    """A result as numbers. What is not known is absent, never 0.

    Returns:
        ``dose``, ``cosine`` and ``overlap``, followed by ``_<signature>`` where several were
        used; ``score``, the ``threshold`` above which it is flagged, and ``p_value``;
        ``judged``: 1 if the verdict is flagged or clear, else 0; ``flagged``: 1 or 0, if it
        was judged.
    """
    found: dict[str, float] = {}
    kinds = {"dose": result.dose, "cosine": result.cosine, "overlap": result.overlap}
    for kind, by_signature in kinds.items():
        for name, value in by_signature.items():
            found[kind if len(by_signature) == 1 else f"{kind}_{name}"] = value
    if result.score is not None:
        found["score"] = result.score
    if result.comparison is not None:
        found["threshold"] = result.comparison.threshold
    if result.p_value is not None:
        found["p_value"] = result.p_value
    judged = result.verdict in (Verdict.FLAGGED, Verdict.CLEAR)
    found["judged"] = float(judged)
    if judged:
        found["flagged"] = float(result.verdict is Verdict.FLAGGED)
    return {key: value for key, value in found.items() if math.isfinite(value)}


def named_metrics(scan: TrainingScan) -> dict[str, float]:
    """The numbers of one look under their full names, with those of the run so far.

    Returns:
        Beside `metrics`: ``run_p_value``, if a rule over the whole run is in force, and
        ``run_flagged``. Names start with `METRICS_PREFIX` and, for an adapter that is not called
        ``default``, its name.
    """
    found = metrics(scan.result)
    if scan.run_p_value is not None:
        found["run_p_value"] = scan.run_p_value
    found["run_flagged"] = float(scan.run_flagged)
    prefix = METRICS_PREFIX if scan.adapter == "default" else f"{METRICS_PREFIX}/{scan.adapter}"
    return {f"{prefix}/{key}": value for key, value in found.items()}
