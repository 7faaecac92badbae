"""The read-only page of recent verdicts, and the reports it links."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from scanner.reports.terminal import printable
from scanner.reports.wording import NOT_ALIGNED
from scanner.serve.jobs import Job, State

_TEMPLATES = Path(__file__).with_name("templates")
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LIST_HEADERS = {
    **_COMMON,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
}
REPORT_HEADERS = {
    **_COMMON,
    # A report carries its style inline; it holds no script, and none would run.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    ),
}
STYLE = (_TEMPLATES / "verdicts.css").read_text(encoding="utf-8")

_STATE_WORDS = {
    State.QUEUED: "waits to be scanned",
    State.SCANNING: "is being scanned",
    State.JUDGED: "waits to be written back",
    State.WRITING: "is being written back",
    State.WRITTEN: "written back",
    State.GIVEN_UP: "could not be written back",
}


@dataclass(frozen=True)
class _Row:
    """One job as the page shows it."""

    label: str
    verdict: str | None
    report: str | None
    state: str
    note: str
    received: str


def render_list(jobs: Sequence[Job]) -> str:
    """The page of recent verdicts; everything on it is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = [_row(job) for job in jobs]
    template = environment.get_template("verdicts.html.j2")
    return template.render(rows=rows, not_aligned=NOT_ALIGNED) + "\n"


def _row(job: Job) -> _Row:
    received = datetime.fromtimestamp(job.received, timezone.utc)
    return _Row(
        label=printable(job.subject.label),
        verdict=job.verdict,
        report=f"verdicts/{job.id}" if job.verdict else None,
        state=_STATE_WORDS[job.state],
        note=printable(job.note),
        received=received.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
