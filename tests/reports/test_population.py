"""The page of a whole population: ranking, comparison with the calibration, hostile names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.reports import population_html, population_markdown
from scanner.reports.histogram import histogram
from scanner.reports.population import Population, quantile, survey
from scanner.results import ScanResult, Verdict
from tests.reports.chromium import DARK, LIGHT, visit
from tests.reports.samples import ERROR, FLAGGED, HOSTILE, INCONCLUSIVE, NASTY, SIGNATURE
from tests.reports.test_html_report import CONTRAST, POLICY, Page


def judged(name: str, dose: float, p_value: float, verdict: Verdict) -> ScanResult:
    return msgspec.structs.replace(
        FLAGGED,
        target=f"hf://lab/{name}@0",
        verdict=verdict,
        dose={"base-weights": dose},
        p_value=p_value,
        q_value=min(1.0, 3 * p_value),
    )


def entries() -> Iterator[tuple[str, ScanResult]]:
    for number in range(40):
        result = judged(f"clear-{number}", 0.001 * number, 0.5, Verdict.CLEAR)
        yield f"content-{number}", result
    for number in range(4):
        result = judged(f"bad-{number}", 0.8 + 0.1 * number, 1 / 151, Verdict.FLAGGED)
        yield f"bad-{number}", result
    for copy in range(3):
        yield "bad-3", judged(f"copy-{copy}", 1.1, 1 / 151, Verdict.FLAGGED)
    yield "", ERROR
    yield "x", INCONCLUSIVE
    yield "y", msgspec.structs.replace(INCONCLUSIVE, target="hf://lab/other@0")
    yield "z", NASTY


@pytest.fixture
def population() -> Population:
    return survey(entries(), [SIGNATURE], [f"Swept {HOSTILE}."], shown=10)


def test_ranked_by_dose_each_content_once_with_its_copies(population: Population) -> None:
    assert [item.target.split("/")[-1] for item in population.ranked[:5]] == [
        "bad-3@0", "bad-2@0", "bad-1@0", "bad-0@0", "clear-39@0",
    ]  # fmt: skip
    assert [item.copies for item in population.ranked[:2]] == [3, 0]
    assert population.unranked == 44 - 10
    assert population.summary.flagged == 7


def test_the_comparison_counts_contents(population: Population) -> None:
    (comparison,) = population.comparisons
    assert len(comparison.doses) == 44
    assert comparison.share == pytest.approx(4 / 44)
    assert comparison.benign == SIGNATURE.calibration.benign_doses  # type: ignore[union-attr]


def test_reasons_are_counted_whoever_they_are_about(population: Population) -> None:
    assert ("inconclusive", "lora_magnitude_vector: DoRA", 2) in population.unjudged


def test_nothing_at_all() -> None:
    empty = survey([], [SIGNATURE], [])
    assert "No adapter was given a dose." in population_markdown.render(empty)
    assert "No adapter was given a dose." in population_html.render(empty)


def test_text_from_adapters_forms_no_markup(population: Population) -> None:
    page = population_html.render(population)
    assert "<script" not in page
    assert "\u202e" not in page
    markdown = population_markdown.render(population)
    assert "<script" not in markdown
    assert "\n#**x" not in markdown


def test_in_a_browser_no_complaint_and_no_request(population: Population, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(population_html.render(population))
    seen = visit(path, tmp_path / "profile")
    assert (seen.console, seen.requests) == ([], [])
    page = Page(seen.dom)
    assert page.count("script") == 0
    assert page.count("rect") > 10


@pytest.mark.parametrize(("scheme", "page_color"), [(LIGHT, "245"), (DARK, "16")])
def test_text_contrast_is_aa(
    population: Population, tmp_path: Path, scheme: str, page_color: str
) -> None:
    path = tmp_path / "page.html"
    path.write_text(POLICY.sub(CONTRAST, population_html.render(population)))
    seen = visit(path, tmp_path / "profile", scheme)
    text = Page(seen.dom).text
    measured = json.loads(text[text.index('{"page"') :])
    assert f"rgb({page_color}," in measured["page"]
    assert [item for item in measured["found"] if item[1] < 4.5] == []


VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=50)


@given(VALUES, st.floats(0, 1))
def test_quantiles_are_those_of_numpy(values: list[float], level: float) -> None:
    assert quantile(sorted(values), level) == pytest.approx(np.quantile(values, level), abs=1e-9)


@given(VALUES, VALUES)
def test_every_value_is_in_a_bar(above: list[float], below: list[float]) -> None:
    drawing = histogram(sorted(above), sorted(below), [("one", 1.0)], [(1.0, "mark")])
    for bars, group in ((drawing.above, above), (drawing.below, below)):
        shares = [float(bar.label.partition("%")[0]) for bar in bars]
        assert sum(shares) == pytest.approx(100.0, abs=0.051 * len(group))
        assert all(0 <= bar.x <= drawing.width and 0 < bar.height <= drawing.height for bar in bars)
