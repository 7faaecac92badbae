"""The read-only page of recent verdicts, and the reports it links."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from scanner.reports.terminal import printable
from scanner.reports.wording import NOT_ALIGNED, ORDER
from scanner.serve.jobs import ANY, Job, State, Wanted

_TEMPLATES = Path(__file__).with_name("templates")
_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
LIST_HEADERS = {
    **_COMMON,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; "
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
    link: str | None
    """The model's own page, on the hub or in MLflow."""
    verdict: str | None
    report: str | None
    state: str
    note: str
    received: str


@dataclass(frozen=True)
class Places:
    """Where models have pages of their own, and where webhooks are taken."""

    hub: str | None = None
    mlflow: str | None = None
    """Only an http(s) address has pages."""
    routes: tuple[str, ...] = ()
    """The paths that webhooks are sent to."""


@dataclass(frozen=True)
class _Filter:
    """One choice of a filter."""

    label: str
    count: int | None
    link: str
    chosen: bool


def render_list(
    jobs: Sequence[Job],
    wanted: Wanted = ANY,
    counts: Mapping[str, Mapping[str, int]] | None = None,
    places: Places = Places(),
    *,
    more: bool = False,
) -> str:
    """The page of recent verdicts; everything on it is escaped.

    Args:
        jobs: Those that are shown, the newest first.
        wanted: How they were chosen.
        counts: ``verdict`` and ``state`` -> value -> jobs that have it.
        places: Where the models have pages of their own.
        more: Whether there are older ones that were asked for too.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = list(_filters(wanted, counts or {}))
    older = _link(msgspec.structs.replace(wanted, before=jobs[-1].id)) if more and jobs else None
    return (
        environment.get_template("verdicts.html.j2").render(
            rows=[_row(job, places) for job in jobs],
            filters=filters,
            total=sum((counts or {}).get("state", {}).values()),
            wanted=wanted,
            is_filtered=wanted != ANY,
            older=older,
            routes=places.routes,
            not_aligned=NOT_ALIGNED,
        )
        + "\n"
    )


def _filters(
    wanted: Wanted, counts: Mapping[str, Mapping[str, int]]
) -> Iterator[tuple[str, list[_Filter]]]:
    """The choices by verdict and by state, with how many jobs each has."""
    names = {
        "verdict": {**{item.value: item.value for item in ORDER}, "none": "none yet"},
        "state": {item.value: words for item, words in _STATE_WORDS.items()},
    }
    for field, labels in names.items():
        found = counts.get(field, {})
        first = msgspec.structs.replace(wanted, before=ANY.before)
        choices = [_Filter("all", None, _link(_with(first, field, "")), not getattr(wanted, field))]
        choices += [
            _Filter(
                label,
                found[value],
                _link(_with(first, field, value)),
                getattr(wanted, field) == value,
            )
            for value, label in labels.items()
            if found.get(value)
        ]
        yield field, choices


def _with(wanted: Wanted, field: str, value: str) -> Wanted:
    return msgspec.structs.replace(wanted, **{field: value})


def _link(wanted: Wanted) -> str:
    """The page's own address with a filter."""
    defaults = msgspec.structs.asdict(ANY)
    given = {k: v for k, v in msgspec.structs.asdict(wanted).items() if v != defaults[k]}
    return f"./?{urlencode(given)}" if given else "./"


def _page_of(job: Job, places: Places) -> str | None:
    """The page of a model version in MLflow, or of a commit on the hub."""
    subject = job.subject
    if subject.platform == "mlflow":
        if not places.mlflow:
            return None
        return (
            f"{places.mlflow}/#/models/{quote(subject.name, safe='')}/versions/"
            f"{quote(subject.revision, safe='')}"
        )
    if not places.hub:
        return None
    return f"{places.hub}/{quote(subject.name)}/tree/{quote(subject.revision, safe='')}"


def _row(job: Job, places: Places) -> _Row:
    received = datetime.fromtimestamp(job.received, timezone.utc)
    return _Row(
        link=_page_of(job, places),
        label=printable(job.subject.label),
        verdict=job.verdict,
        report=f"verdicts/{job.id}" if job.verdict else None,
        state=_STATE_WORDS[job.state],
        note=printable(job.note),
        received=received.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )
