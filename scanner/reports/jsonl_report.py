"""JSON Lines: the run on the first line, then one result per line.

The first line is the JSON report without its results; every other line is one of them. A
report of thousands of adapters can be read a line at a time.
"""

from __future__ import annotations

import msgspec

from scanner.reports.terminal import safe_json
from scanner.results import Report


def render(report: Report) -> str:
    """The report as JSON Lines."""
    run = msgspec.structs.replace(report, results=[])
    lines = [msgspec.json.encode(item) for item in (run, *report.results)]
    return safe_json(b"\n".join(lines).decode()) + "\n"
