"""One self-contained HTML page that a person can read without training.

It holds no script and asks the network for nothing (its own policy forbids both), so it can
be mailed, archived and opened anywhere. All text is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scanner.reports.article import view
from scanner.reports.drawing import largest_dose
from scanner.reports.terminal import printable
from scanner.reports.wording import (
    NOT_ALIGNED,
    ORDER,
    OVERLAP_WORDS,
    configuration_in_words,
    joint_words,
    nearest_words,
    one_dose_words,
    percent,
    signature_words,
    used_signatures,
)
from scanner.results import DoseUnit, Report

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).with_name("templates")


def environment() -> Environment:
    """What renders the pages: everything is escaped, and what is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["printable"] = printable
    found.filters["percent"] = percent
    found.filters["signature_words"] = signature_words
    found.filters["joint_words"] = joint_words
    found.filters["nearest_words"] = nearest_words
    found.filters["signed"] = lambda x: f"{x:+.2f}".replace("-", "\u2212")
    return found


def render(report: Report) -> str:
    """The report as one HTML page."""
    ordered = sorted(report.results, key=lambda result: ORDER.index(result.verdict))
    by_id = {signature.id: signature for signature in report.signatures}
    largest = _largest_doses(report)
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            views=[
                view(
                    result,
                    f"adapter-{index}",
                    by_id.get(result.decided_by or ""),
                    largest.get(result.dose_unit, 0.0),
                )
                for index, result in enumerate(ordered, 1)
            ],
            several=any(len(result.dose) > 1 for result in ordered),
            counts=[(verdict.value, getattr(report.summary, verdict.value)) for verdict in ORDER],
            signatures=used_signatures(report.results, report.signatures),
            not_aligned=NOT_ALIGNED,
            overlap_words=OVERLAP_WORDS,
            one_dose=one_dose_words(report.results),
            configuration=configuration_in_words(report.configuration),
        )
    )
    return page.lstrip() + "\n"


def _largest_doses(report: Report) -> Mapping[DoseUnit | None, float]:
    """Per unit of dose, the largest at a site: one scale for all heat maps of the page."""
    units = {result.dose_unit for result in report.results}
    return {
        unit: largest_dose(
            site for result in report.results if result.dose_unit is unit for site in result.sites
        )
        for unit in units
    }
