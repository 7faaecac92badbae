"""The record of a run: kept in the trainer's state, and told in a model card."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec

from scanner.gates.model_card import verdict_section
from scanner.reports.assemble import assemble
from scanner.reports.training_record import TrainingScan
from scanner.results import Coverage, ScanResult
from scanner.signatures.pack import Signature


def dumped(scans: Sequence[TrainingScan]) -> dict[str, Any]:
    """A record as JSON's own types, with the sites of each adapter's latest look alone."""
    latest = {scan.adapter: scan for scan in scans}
    kept = [scan if scan is latest[scan.adapter] else _without_sites(scan) for scan in scans]
    found: list[dict[str, Any]] = msgspec.to_builtins(kept)
    return {"scans": found}


def loaded(record: Any, step: int) -> list[TrainingScan] | None:
    """A record as `dumped` wrote it, up to a step.

    Returns:
        None if it is no record, or another version's.
    """
    try:
        scans = msgspec.convert(record["scans"], list[TrainingScan])
    except (KeyError, TypeError, msgspec.ValidationError):
        return None
    return [scan for scan in scans if scan.step <= step]


def _without_sites(scan: TrainingScan) -> TrainingScan:
    result = scan.result
    coverage = Coverage(
        sites=result.coverage.sites, covered_sites=result.coverage.covered_sites, uncovered=[]
    )
    smaller = msgspec.structs.replace(result, sites=[], coverage=coverage)
    return msgspec.structs.replace(scan, result=smaller)


def card_section(scans: Sequence[TrainingScan], signatures: Sequence[Signature]) -> str:
    """The section about the latest looks that goes into a model card.

    Args:
        scans: The latest look at every adapter, at least one.
        signatures: The packs.
    """
    results: list[ScanResult] = [scan.result for scan in scans]
    report = assemble(results, signatures)
    packs = ", ".join(f"`{item.id}@{item.digest[:12]}`" for item in report.signatures) or "none"
    day = datetime.now(timezone.utc).date().isoformat()
    notes = [
        f"Scanned in memory at step {scans[-1].step} of its training, on {day}, with the packs "
        f"{packs}."
    ]
    flagged = [scan.adapter for scan in scans if scan.run_flagged]
    if flagged:
        notes.append("\n**The training was flagged** by the rule over all its scans.")
    return verdict_section(report, notes)
