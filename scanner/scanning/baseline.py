"""Known findings: accepted by content, with a reason and a last day.

An entry accepts one verdict of one signature on one content (digests of weights and
configuration) among the files that lay around it. Other weights under the same name, a file more
beside them, another signature's finding, or an inconclusive adapter that becomes flagged are not
covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import msgspec

from scanner.errors import UsageError
from scanner.formats.limits import MAX_DOCUMENT_BYTES
from scanner.formats.regular import read_regular
from scanner.hub.address import is_address, parse_address
from scanner.results import Acceptance, ScanResult, StaleAcceptance, Verdict
from scanner.scanning.contents import Contents

FORMAT_VERSION = 2
_REWRITE = 'write one with "adapter-scanner baseline write"'


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the records: immutable, and a misspelt field is an error."""


class Entry(Record, frozen=True, kw_only=True):
    """One accepted finding."""

    target: str
    """Where it was found, relative to the baseline file. For people, and to report staleness."""
    sha256: str
    config_sha256: str | None
    verdict: Verdict
    signature: str | None
    """Id of the signature that decided, if one did."""
    files: dict[str, str | None]
    """Every file of the adapter's folder by name; with its digest where it holds weights that are
    not the adapter's own."""
    reason: str
    accepted: date
    expires: date
    """Last day on which the finding is accepted."""


class Baseline(Record, frozen=True, kw_only=True):
    """A baseline file: the findings that are accepted."""

    version: int
    entries: list[Entry]


def load_baseline(path: Path) -> Baseline:
    """Reads a baseline.

    Raises:
        UsageError: If it cannot be read, or anything in it is not as it should be.
    """
    try:
        baseline = msgspec.json.decode(read_regular(path, MAX_DOCUMENT_BYTES), type=Baseline)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            todo=_REWRITE,
        ) from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"not a baseline: {error}", where=str(path)) from None
    if baseline.version != FORMAT_VERSION:
        raise UsageError(
            f"baseline version {baseline.version}, this program reads {FORMAT_VERSION}",
            where=str(path),
            todo=_REWRITE,
        )
    return baseline


def encode_baseline(baseline: Baseline) -> bytes:
    """The file's content, indented for review in a pull request."""
    return msgspec.json.format(msgspec.json.encode(baseline), indent=2) + b"\n"


def accept(
    results: Sequence[ScanResult],
    root: Path,
    contents: Sequence[Contents],
    *,
    reason: str,
    accepted: date,
    expires: date,
) -> list[Entry]:
    """Entries for every finding whose content is known.

    Args:
        results: What was found; clear adapters need no entry, unreadable ones can have none.
        root: Directory of the baseline file.
        contents: What lies around each of them, in the same order.
        reason: Why the findings are acceptable.
        accepted: Today.
        expires: The last day.
    """
    return [
        Entry(
            target=_relative(result.target, root),
            sha256=result.sha256,
            config_sha256=result.config_sha256,
            verdict=result.verdict,
            signature=result.decided_by,
            files=around.recorded(),
            reason=reason,
            accepted=accepted,
            expires=expires,
        )
        for result, around in zip(results, contents, strict=True)
        if result.verdict in (Verdict.FLAGGED, Verdict.INCONCLUSIVE) and result.sha256
    ]


def merge(old: Sequence[Entry], new: Sequence[Entry]) -> list[Entry]:
    """Old and new entries by target; a target found again keeps only its new entry."""
    renewed = {entry.target for entry in new}
    kept = [entry for entry in old if entry.target not in renewed]
    return sorted([*kept, *new], key=lambda entry: (entry.target, entry.sha256))


def _relative(target: str, root: Path) -> str:
    """A target as a path from the baseline file, with forward slashes.

    An address on the hub loses its commit: findings are accepted by content, and a new commit
    with other content makes the old entry stale.
    """
    if is_address(target):
        return str(parse_address(target).at(None))
    try:
        return Path(target).resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return Path(target).resolve().as_posix()


def _is_gone(target: str, root: Path) -> bool:
    """Whether what an entry was about is certainly no longer there; the hub is not asked."""
    return not is_address(target) and not (root / target).exists()


def _covers(entry: Entry, result: ScanResult, contents: Contents) -> bool:
    return (
        entry.sha256 == result.sha256
        and entry.config_sha256 == result.config_sha256
        and entry.verdict is result.verdict
        and entry.signature == result.decided_by
        and contents.within(entry.files)
    )


def apply_baseline(
    results: Sequence[ScanResult],
    baseline: Baseline,
    root: Path,
    today: date,
    contents: Sequence[Contents],
) -> tuple[list[ScanResult], list[StaleAcceptance]]:
    """Marks what is accepted, and finds entries that accept nothing any more.

    Args:
        results: The results of a run.
        baseline: The accepted findings.
        root: Directory of the baseline file.
        today: Entries whose last day is before it are expired.
        contents: What lies around each result, in the same order.
    """
    covering = [
        [entry for entry in baseline.entries if _covers(entry, result, around)]
        for result, around in zip(results, contents, strict=True)
    ]
    marked = [
        _marked(result, [entry for entry in entries if entry.expires >= today])
        for result, entries in zip(results, covering, strict=True)
    ]
    used = [entry for entries in covering for entry in entries]
    return marked, list(_stale(marked, baseline.entries, used, root, today))


def _marked(result: ScanResult, entries: Sequence[Entry]) -> ScanResult:
    if not entries:
        return result
    entry = entries[0]
    acceptance = Acceptance(
        reason=entry.reason,
        accepted=entry.accepted.isoformat(),
        expires=entry.expires.isoformat(),
    )
    return msgspec.structs.replace(result, accepted=acceptance)


def _stale(
    results: Sequence[ScanResult],
    entries: Sequence[Entry],
    covering: Sequence[Entry],
    root: Path,
    today: date,
) -> Iterator[StaleAcceptance]:
    scanned = {_relative(result.target, root) for result in results}
    for entry in entries:
        used = entry in covering
        if entry.expires < today:
            if used or entry.target in scanned or _is_gone(entry.target, root):
                yield StaleAcceptance(target=entry.target, reason=f"expired on {entry.expires}")
        elif used:
            continue
        elif entry.target in scanned:
            reason = "its content, its verdict, the signature or what lies beside it has changed"
            yield StaleAcceptance(target=entry.target, reason=reason)
        elif _is_gone(entry.target, root):
            yield StaleAcceptance(target=entry.target, reason="no longer there")
