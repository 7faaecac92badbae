"""A ledger -> the reports of its sweep."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from urllib.parse import quote

from scanner.errors import UsageError
from scanner.formats.rules import WEIGHT_SUFFIXES
from scanner.reports import renderer
from scanner.reports.population import Entry, Place, Population, survey
from scanner.reports.wording import used_signatures
from scanner.results import SCHEMA_VERSION, Report, Tool, summarise
from scanner.sweep.ledger_rows import FinishedAdapter, LedgerRows, Swept
from scanner.sweep.question import describe
from scanner.version import version

SUMMARIES = {"html": "population_html", "markdown": "population_markdown"}
"""Formats of the page that ranks instead of showing each adapter, and the modules."""


def sweep_report(rows: LedgerRows) -> Report:
    """Every verdict of the sweep, as the record that all formats render."""
    results = list(rows.results())
    return Report(
        schema_version=SCHEMA_VERSION,
        tool=Tool(name="adapter-scanner", version=version()),
        signatures=used_signatures(results, rows.signatures),
        results=results,
        summary=summarise(results),
    )


def population(rows: LedgerRows) -> Population:
    """The sweep as one population."""
    swept = rows.swept()
    endpoint = swept.queries[0].endpoint
    entries = (Entry(row.result, row.content, _place(row, endpoint)) for row in rows.adapters())
    return survey(entries, rows.signatures, list(_sentences(swept)))


def _place(row: FinishedAdapter, endpoint: str) -> Place:
    """An adapter's name, and the hub's page of its files at the commit that was scanned."""
    name = "/".join(filter(None, (row.repository, row.subfolder)))
    if not endpoint.startswith(("https://", "http://")):
        return Place(name)
    view = "blob" if row.subfolder.endswith(WEIGHT_SUFFIXES) else "tree"
    path = "/".join(filter(None, (row.repository, view, row.revision, row.subfolder)))
    return Place(name, f"{endpoint}/{quote(path)}")


def render_sweep(rows: LedgerRows, format_name: str, *, summary: bool) -> str:
    """The sweep in one of the text formats.

    Raises:
        UsageError: If there is no summary in this format.
    """
    if not summary:
        return renderer(format_name)(sweep_report(rows))
    if format_name not in SUMMARIES:
        raise UsageError(
            f"there is no summary as {format_name}", where="--summary", todo="use html or markdown"
        )
    page: str = import_module(f"scanner.reports.{SUMMARIES[format_name]}").render(population(rows))
    return page


def _sentences(swept: Swept) -> Iterator[str]:
    for query in swept.queries:
        yield f"Swept {describe(query)}."
    yield (
        f"{swept.adapters:,} adapters in {swept.repositories:,} repositories, "
        f"{swept.contents:,} of them different; {swept.requests:,} requests, "
        f"{swept.received / 1e6:,.1f} MB."
    )
    if swept.waiting or not swept.listing_finished:
        yield (
            f"The sweep is not finished: {swept.waiting:,} known repositories and adapters wait"
            + ("." if swept.listing_finished else ", and the listing goes on.")
        )
