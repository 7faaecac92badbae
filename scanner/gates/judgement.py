"""A directory that wants to enter somewhere -> its report, and the verdict on all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scanner.errors import MalformedFileError, TargetError
from scanner.formats.rules import SKIPPED_FOLDERS, WEIGHT_SUFFIXES
from scanner.gates.artifact import artifact_files, artifact_sha256
from scanner.gates.attestation import Attestation, JudgedBy, PackIdentity, Subject, now
from scanner.reports.assemble import assemble
from scanner.reports.wording import ORDER, used_signatures
from scanner.results import PowerSummary, Report, ScanResult, Verdict
from scanner.scanning.targets import ScanOptions, error_result, find_all, scan_each
from scanner.version import version

_SHOWN_REASONS = 3
_REASON_CHARACTERS = 200


@dataclass(frozen=True)
class Judgement:
    """What was found in a directory."""

    report: Report
    attestation: Attestation


def judge_directory(
    root: Path,
    options: ScanOptions,
    *,
    model: str,
    model_version: str = "",
    created: int | None = None,
) -> Judgement:
    """Scans every adapter in a directory and sums up.

    Args:
        root: The directory, with everything that will be used of the model.
        options: How to scan.
        model: The name the verdict is given to.
        model_version: The registry's version, if it has versions.
        created: The registry's time stamp of the version.

    Raises:
        UsageError: If the options cannot be honoured.
        TargetError: If the directory as a whole cannot be read, so that nothing can be said
            about its bytes.
    """
    digest = artifact_sha256(root)
    results = [*scan_each(find_all([str(root)]), options), *_hidden(root)]
    if artifact_sha256(root) != digest:
        raise MalformedFileError("changed while it was scanned", where=str(root))
    label = f"{model}/{model_version}" if model_version else model
    results = [_relative(root, label, result) for result in results]
    report = assemble(results, options.signatures, configuration=options.configuration)
    subject = Subject(model=model, version=model_version, created=created, artifact_sha256=digest)
    return Judgement(report, attest(results, report, subject))


def attest(results: Sequence[ScanResult], report: Report, subject: Subject) -> Attestation:
    """The verdict on a whole: the gravest of its parts', with the numbers that stand for them."""
    gravest = next(
        (v for v in ORDER if any(result.verdict is v for result in results)), Verdict.ERROR
    )
    scanned = [result for result in results if result.sha256]
    doses = [result.deciding_dose for result in scanned if result.deciding_dose is not None]
    p_values = [result.p_value for result in scanned if result.p_value is not None]
    alphas = [result.alpha for result in scanned if result.alpha is not None]
    reasons = [r for result in results if result.verdict is gravest for r in result.reasons]
    return Attestation(
        subject=subject,
        verdict=gravest,
        adapters=len(scanned),
        dose=max(doses, default=None),
        p_value=min(p_values, default=None),
        alpha=min(alphas, default=None),
        packs=[
            PackIdentity(id=item.id, digest=item.digest)
            for item in used_signatures(report.results, report.signatures)
        ],
        judged_by=_judged_by(report, min(alphas, default=None)),
        weights_sha256=_together([result.sha256 for result in scanned if result.sha256]),
        reasons=[_short(reason) for reason in reasons[:_SHOWN_REASONS]],
        tool_version=version(),
        time=now(),
    )


def _judged_by(report: Report, alpha: float | None) -> list[JudgedBy]:
    """The packs that some adapter was judged by, alone or together, and what they find."""
    alone: dict[tuple[str, ...], PowerSummary | None]
    alone = {(item.id,): item.power for item in report.signatures}
    joint = {tuple(item.signatures): item for item in report.joint}
    found = []
    for ids in dict.fromkeys(result.judged_by for result in report.results if result.judged_by):
        together = joint.get(ids)
        found.append(
            JudgedBy(
                packs=[*ids],
                power=_share_found(together.power if together else alone.get(ids), alpha),
                why_unknown=together.why_unknown if together else "",
            )
        )
    return found


def _share_found(power: PowerSummary | None, alpha: float | None) -> float | None:
    """The share of their references that packs find at a false-positive rate, if it is known."""
    levels = power.levels if power else []
    return next((item.found / item.references for item in levels if item.alpha == alpha), None)


def _hidden(root: Path) -> list[ScanResult]:
    """An error for every weight file where a scan does not look."""
    if root.is_file():
        return []
    found = []
    for name, path in artifact_files(root):
        folders = name.split("/")[:-1]
        if path.suffix.lower() in WEIGHT_SUFFIXES and not set(SKIPPED_FOLDERS).isdisjoint(folders):
            error = MalformedFileError(
                "weights in a folder that is not searched", where=str(path), todo="move them"
            )
            found.append(error_result(str(path), error))
    return found


def _relative(root: Path, label: str, result: ScanResult) -> ScanResult:
    """A result that calls its files by their place in the artifact, not on this machine."""

    def renamed(text: str) -> str:
        return text.replace(f"{root}{os.sep}", "").replace(str(root), label)

    return msgspec.structs.replace(
        result,
        target=renamed(result.target),
        reasons=[renamed(reason) for reason in result.reasons],
    )


def _together(digests: list[str]) -> str | None:
    if len(digests) < 2:
        return digests[0] if digests else None
    return hashlib.sha256("".join(f"{item}\n" for item in sorted(digests)).encode()).hexdigest()


def _short(reason: str) -> str:
    visible = reason.encode("utf-8", "backslashreplace").decode()
    return visible if len(visible) <= _REASON_CHARACTERS else visible[:_REASON_CHARACTERS] + "..."


def unreadable(subject: Subject, error: TargetError) -> Judgement:
    """The verdict `error` on something whose bytes could not be read at all."""
    result = error_result(subject.model, error)
    report = assemble([result], [])
    return Judgement(report, attest([result], report, subject))
