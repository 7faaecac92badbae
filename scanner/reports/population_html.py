"""The population page as one self-contained HTML page, without script or network."""

from __future__ import annotations

from scanner.reports.histogram import Histogram, histogram
from scanner.reports.html_report import environment
from scanner.reports.population import CalibrationComparison, Population
from scanner.reports.population_wording import (
    flagged_sentence,
    one_dose_sentences,
    rate_sentences,
)
from scanner.reports.wording import NOT_ALIGNED, ONE_DOSE, ORDER

_REASONS = 50


def render(population: Population) -> str:
    """The page."""
    page = (
        environment()
        .get_template("population.html.j2")
        .render(
            population=population,
            counts=[(v.value, getattr(population.summary, v.value)) for v in ORDER],
            rates=list(rate_sentences(population)),
            flagged=flagged_sentence(population),
            drawings=[(item, drawing_of(item)) for item in population.comparisons],
            reasons=population.unjudged[:_REASONS],
            more_reasons=population.unjudged[_REASONS:],
            not_aligned=NOT_ALIGNED,
            one_dose=list(one_dose_sentences(population)),
        )
    )
    return page.lstrip() + "\n"


def drawing_of(item: CalibrationComparison) -> Histogram:
    """The swept doses of one pack above the axis, its calibration below."""
    return histogram(
        item.doses,
        item.benign,
        [(reference.id, reference.dose) for reference in item.references],
        [(1.0, ONE_DOSE[item.unit])] if item.unit in ONE_DOSE else [],
    )
