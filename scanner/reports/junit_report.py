"""JUnit XML: every adapter is a test case, so that any CI system can show the run.

Flagged is a failure; inconclusive and unreadable are errors; an accepted finding is skipped.
"""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from scanner.reports.terminal import printable
from scanner.reports.wording import OVERLAP_WORDS, percent, unsigned_words
from scanner.results import Report, ScanResult, Verdict


def render(report: Report) -> str:
    """The report as one JUnit test suite."""
    open_results = [result for result in report.results if result.accepted is None]
    failures = sum(result.verdict is Verdict.FLAGGED for result in open_results)
    errors = sum(result.verdict in (Verdict.INCONCLUSIVE, Verdict.ERROR) for result in open_results)
    counts = (
        f'tests="{len(report.results)}" failures="{failures}" errors="{errors}" '
        f'skipped="{len(report.results) - len(open_results)}"'
    )
    cases = "".join(map(_case, report.results))
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name="adapter-scanner" {counts}>\n'
        f'  <testsuite name="adapter-scanner" {counts}>\n{_properties(report)}{cases}'
        "  </testsuite>\n</testsuites>\n"
    )


def _properties(report: Report) -> str:
    """The configuration in force, and each setting looser than its default."""
    found = [("configuration", report.configuration.file)] if report.configuration.file else []
    found += [(f"looser:{item.setting}", item.value) for item in report.configuration.looser]
    lines = "".join(
        f"      <property name={quoteattr(name)} value={quoteattr(printable(value))}/>\n"
        for name, value in found
    )
    return f"    <properties>\n{lines}    </properties>\n" if lines else ""


def _case(result: ScanResult) -> str:
    name = quoteattr(printable(result.target))
    head = f'    <testcase classname="adapter-scanner" name={name}'
    outcome = _outcome(result)
    return f"{head}>\n      {outcome}\n    </testcase>\n" if outcome else f"{head}/>\n"


def _outcome(result: ScanResult) -> str:
    reasons = printable("; ".join(result.reasons))
    if result.verdict is Verdict.CLEAR:
        return ""
    if result.accepted is not None:
        until = f"accepted until {result.accepted.expires}: {result.accepted.reason}"
        return f"<skipped message={quoteattr(printable(until))}/>"
    tag = "failure" if result.verdict is Verdict.FLAGGED else "error"
    message, text = quoteattr(reasons), escape("; ".join([reasons, *_evidence(result)]))
    return f'<{tag} type="{result.verdict.value}" message={message}>{text}</{tag}>'


def _evidence(result: ScanResult) -> list[str]:
    dose, cosine, overlap = result.deciding_dose, result.deciding_cosine, result.deciding_overlap
    return (
        ([f"dose {dose:+.2f}"] if dose is not None else [])
        + ([f"cosine {cosine:+.2f}"] if cosine is not None else [])
        + ([f"overlap {percent(overlap)} ({OVERLAP_WORDS})"] if overlap is not None else [])
        + unsigned_words(result)
    )
