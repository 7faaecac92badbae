"""The page of a whole population: ranking, comparison with the calibration, hostile names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.reports import population_html, population_markdown
from scanner.reports.histogram import histogram
from scanner.reports.population import (
    COPIES_SHOWN,
    FLAGGED_SHOWN,
    Entry,
    Place,
    Population,
    Table,
    quantile,
    survey,
)
from scanner.results import ScanResult, Verdict
from tests.reports.chromium import DARK, LIGHT, visit
from tests.reports.samples import ERROR, FLAGGED, HOSTILE, INCONCLUSIVE, NASTY, SIGNATURE
from tests.reports.test_html_report import CONTRAST, POLICY, Page

OTHER = msgspec.structs.replace(SIGNATURE, id="base-gradients")
ELSEWHERE = msgspec.structs.replace(SIGNATURE, id="other-weights", base_model="lab/other")


def judged(
    name: str,
    dose: float,
    p_value: float,
    verdict: Verdict,
    decided_by: str = "base-weights",
    **doses: float,
) -> ScanResult:
    return msgspec.structs.replace(
        FLAGGED,
        target=f"hf://lab/{name}@0",
        verdict=verdict,
        dose={decided_by: dose, **{pack.replace("_", "-"): x for pack, x in doses.items()}},
        decided_by=decided_by,
        p_value=p_value,
        q_value=min(1.0, 3 * p_value),
    )


def entry(content: str, result: ScanResult) -> Entry:
    name = result.target.removeprefix("hf://").partition("@")[0]
    return Entry(result, content, Place(name, f"https://hub.example/{quote(name)}/tree/0"))


def entries() -> Iterator[Entry]:
    for number in range(40):
        result = judged(f"clear-{number}", 0.001 * number, 0.5, Verdict.CLEAR)
        yield entry(f"content-{number}", result)
    for number in range(4):
        result = judged(f"bad-{number}", 0.8 + 0.1 * number, 1 / 151, Verdict.FLAGGED)
        yield entry(f"bad-{number}", result)
    for copy in range(3):
        yield entry("bad-3", judged(f"copy-{copy}", 1.1, 1 / 151, Verdict.FLAGGED))
    yield entry("", ERROR)
    yield entry("x", INCONCLUSIVE)
    yield entry("y", msgspec.structs.replace(INCONCLUSIVE, target="hf://lab/other@0"))
    yield entry("z", NASTY)


@pytest.fixture
def population() -> Population:
    return survey(entries(), [SIGNATURE], [f"Swept {HOSTILE}."], shown=10)


def names(tables: list[Table]) -> list[str]:
    return [row.place.name for table in tables for row in table.rows]


def test_what_is_flagged_is_listed_once_for_each_content_with_its_copies_by_name(
    population: Population,
) -> None:
    assert names(population.flagged) == [f"lab/bad-{number}" for number in (3, 2, 1, 0)]
    (table,) = population.flagged
    assert [place.name for place in table.rows[0].copies] == [f"lab/copy-{i}" for i in range(3)]
    assert (population.flagged_contents, population.summary.flagged) == (4, 7)
    assert names(population.ranked)[:2] == ["lab/clear-39", "lab/clear-38"]
    assert population.unranked == 40 - 10
    for page in (population_html.render(population), population_markdown.render(population)):
        assert "4 different adapters are flagged, at 7 addresses." in page
        assert all(f"https://hub.example/lab/copy-{i}/tree/0" in page for i in range(3))


def test_flagged_adapters_beyond_those_listed_are_counted() -> None:
    many = [
        entry(f"c{i}", judged(f"bad-{i}", 1.0, 1e-4 * i, Verdict.FLAGGED))
        for i in range(FLAGGED_SHOWN + 7)
    ]
    found = survey(reversed(many), [SIGNATURE], [])
    assert names(found.flagged) == [f"lab/bad-{i}" for i in range(FLAGGED_SHOWN)]
    assert found.more_flagged == 7
    assert "the other 7 are in the table" in population_markdown.render(found)


def test_copies_beyond_those_named_are_counted() -> None:
    same = [
        entry("c", judged(f"n-{i:03d}", 1.0, 0.001, Verdict.FLAGGED))
        for i in range(COPIES_SHOWN + 6)
    ]
    ((row,),) = (table.rows for table in survey(same, [SIGNATURE], []).flagged)
    assert (len(row.copies), row.more_copies) == (COPIES_SHOWN, 5)
    assert f"{COPIES_SHOWN} more" in population_markdown.render(survey(same, [SIGNATURE], []))


def test_several_packs_have_one_rate_and_each_all_doses() -> None:
    """Which pack decided says nothing about how many would be flagged by chance."""
    results = [
        judged("a", 0.9, 0.002, Verdict.FLAGGED, base_gradients=0.4),
        judged("b", 0.7, 0.004, Verdict.FLAGGED, "base-gradients", base_weights=0.1),
        judged("c", 0.0, 0.6, Verdict.CLEAR, base_gradients=-0.2),
        judged("d", 0.1, 0.5, Verdict.CLEAR, "base-gradients", base_weights=-0.3),
    ]
    found = survey([entry(r.target, r) for r in results], [SIGNATURE, OTHER], [])
    (rate,) = found.rates
    assert (rate.extreme, rate.n, rate.base_model) == (2, 4, "lab/base")
    by_pack = {item.signature.id: item.doses for item in found.comparisons}
    assert by_pack == {
        "base-weights": [-0.3, 0.0, 0.1, 0.9],
        "base-gradients": [-0.2, 0.1, 0.4, 0.7],
    }
    (table,) = found.flagged
    assert table.packs == ["base-weights", "base-gradients"]
    for page in (population_html.render(found), population_markdown.render(found)):
        assert page.count("2 (50%) of 4 different adapters have p") == 1


def test_bases_have_tables_and_rates_of_their_own() -> None:
    results = [
        judged("a", 0.9, 0.002, Verdict.FLAGGED),
        judged("b", 0.8, 0.003, Verdict.FLAGGED, "other-weights"),
        judged("c", 0.1, 0.5, Verdict.CLEAR, "other-weights"),
    ]
    found = survey([entry(r.target, r) for r in results], [SIGNATURE, ELSEWHERE], [])
    assert {(rate.base_model, rate.extreme, rate.n) for rate in found.rates} == {
        ("lab/base", 1, 1),
        ("lab/other", 1, 2),
    }
    assert [(table.base_model, table.packs) for table in found.flagged] == [
        ("lab/base", ["base-weights"]),
        ("lab/other", ["other-weights"]),
    ]


def test_the_comparison_counts_contents(population: Population) -> None:
    (comparison,) = population.comparisons
    assert len(comparison.doses) == 44
    assert [(rate.extreme, rate.n) for rate in population.rates] == [(4, 44)]
    assert comparison.benign == SIGNATURE.calibration.benign_doses  # type: ignore[union-attr]


def test_every_unjudged_adapter_is_counted_by_its_reason(population: Population) -> None:
    counts = {(item.verdict, item.reason): item.count for item in population.unjudged}
    assert counts["inconclusive", "lora_magnitude_vector: DoRA"] == 2
    assert sum(counts.values()) == population.summary.inconclusive + population.summary.error


def test_reasons_that_differ_in_numbers_alone_are_one() -> None:
    def stopped(number: int) -> Entry:
        reason = f"hf://lab/n{number}@0: 4096 x {number}, not a multiple of {number + 1}"
        result = msgspec.structs.replace(ERROR, target=f"hf://lab/n{number}@0", reasons=[reason])
        return entry("", result)

    (several,) = survey(map(stopped, range(2, 7)), [SIGNATURE], []).unjudged
    assert (several.count, several.reason) == (5, "… x …, not a multiple of …")
    (alone,) = survey([stopped(2), stopped(2)], [SIGNATURE], []).unjudged
    assert (alone.count, alone.reason) == (2, "4096 x 2, not a multiple of 3")


def test_the_markdown_reads_well_before_it_is_rendered(population: Population) -> None:
    page = population_markdown.render(population)
    assert "&#" not in page
    rows = [line for line in page.splitlines() if "lab/bad-" in line]
    assert len({line.index("flagged") for line in rows}) == 1, "columns stand below each other"
    assert rows[0].startswith(f"| {1 / 151:7.4f} | ")
    bars = [line for line in page.splitlines() if "#" in line and "%" in line]
    assert len(bars) > 2


def test_nothing_at_all() -> None:
    empty = survey([], [SIGNATURE], [])
    for page in (population_markdown.render(empty), population_html.render(empty)):
        assert "No adapter is flagged." in page
        assert "No other adapter has a p-value." in page


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
