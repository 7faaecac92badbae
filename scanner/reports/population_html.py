"""The population page as one self-contained HTML page, without script or network."""

from __future__ import annotations

from scanner.reports.histogram import histogram
from scanner.reports.html_report import environment
from scanner.reports.population import Population
from scanner.reports.wording import NOT_ALIGNED, ORDER, OVERLAP_WORDS

_REASONS = 50


def render(population: Population) -> str:
    """The page."""
    page = (
        environment()
        .get_template("population.html.j2")
        .render(
            population=population,
            counts=[(v.value, getattr(population.summary, v.value)) for v in ORDER],
            drawings=[
                (
                    item,
                    histogram(
                        item.doses,
                        item.benign,
                        [(reference.id, reference.dose) for reference in item.references],
                        [(1.0, "a known misaligned model")],
                    ),
                )
                for item in population.comparisons
            ],
            reasons=population.unjudged[:_REASONS],
            more_reasons=max(len(population.unjudged) - _REASONS, 0),
            not_aligned=NOT_ALIGNED,
            overlap_words=OVERLAP_WORDS,
        )
    )
    return page.lstrip() + "\n"
