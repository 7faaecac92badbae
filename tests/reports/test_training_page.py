"""The page about a training: curves, the rule in words, hostile names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.reports.curve import Point, curve
from scanner.reports.terminal import Screen
from scanner.reports.training_html import render
from scanner.reports.training_lines import change_line, summary_line
from scanner.reports.training_record import RunRuleSummary, TrainingRun, TrainingScan
from scanner.results import ScanResult, Verdict
from scanner.signatures.pack import Signature
from tests.reports.samples import CLEAR, FLAGGED, HOSTILE, INCONCLUSIVE, NASTY, TWO
from tests.reports.test_html_report import POLICY, Page

NUMBERS = st.floats(-1e6, 1e6)
PLAIN = Screen()


def look(
    step: int, result: ScanResult, *, flagged: bool = False, adapter: str = "default"
) -> TrainingScan:
    return TrainingScan(
        step=step, adapter=adapter, result=result, steps=5, run_p_value=0.5, run_flagged=flagged
    )


def record(*scans: TrainingScan) -> TrainingRun:
    rules = {"default": RunRuleSummary(level=0.0025, share=0.05)}
    return TrainingRun(total_steps=100, run_alpha=0.05, rules=rules, scans=list(scans))


def test_what_a_person_reads(pack: Signature) -> None:
    page = render(record(look(5, CLEAR), look(10, FLAGGED, flagged=True)), [pack])
    text = Page(page).text
    assert "Flagged from step 10 on (2 scans)" in text
    assert "default, step 10 of 100" in text
    assert "scans with p at most 0.0025 make up 5.0% of it" in text
    assert "a chance of at most 0.05" in text
    assert "Dose by module and layer" in text
    assert text.count("flagged at 10") == 2


def test_the_joint_score_stands_among_benign_adapters_too(pack: Signature) -> None:
    """What the adapter was compared with is known, whatever signatures the page was given."""
    page = Page(render(record(look(5, TWO)), [pack]))
    assert page.text.count("nine of ten benign adapters: ") == 2


def test_a_run_that_was_never_flagged(pack: Signature) -> None:
    page = render(record(look(5, CLEAR), look(10, INCONCLUSIVE)), [pack])
    text = Page(page).text
    assert "Never flagged (2 scans); at the end inconclusive" in text
    assert "What was not judged" in text


def test_an_empty_record_renders(pack: Signature) -> None:
    assert "Nothing was scanned" in Page(render(record(), [pack])).text


def test_it_is_self_contained_and_hostile_names_are_text(pack: Signature) -> None:
    page = render(record(look(5, NASTY, adapter=HOSTILE)), [pack])
    assert POLICY.search(page)
    assert "<script" not in page
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#)", page)


@given(
    st.lists(st.tuples(NUMBERS, st.none() | NUMBERS, st.booleans()), min_size=1, max_size=20),
    st.lists(NUMBERS, max_size=5),
)
def test_everything_lies_inside_the_drawing(
    looks: Sequence[tuple[float, float | None, bool]], benign: Sequence[float]
) -> None:
    points = [Point(5 * i, value, limit, flag) for i, (value, limit, flag) in enumerate(looks)]
    drawing = curve(points, sorted(benign), total_steps=100)
    places = [(dot.x, dot.y) for dot, _ in drawing.dots]
    places += [
        (float(x), float(y))
        for line in (drawing.line, drawing.threshold)
        for x, y in (pair.split(",") for pair in line.split())
    ]
    assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in places)
    assert len(drawing.dots) == len(points)
    if drawing.band is not None:
        top, height = drawing.band
        assert top >= 0
        assert 0 <= height <= drawing.height
    flips = sum(
        a is not b
        for a, b in zip(
            [False, *(p.flagged for p in points)], [p.flagged for p in points], strict=False
        )
    )
    assert len(drawing.changes) == flips


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (None, look(5, CLEAR), None),
        (None, look(5, INCONCLUSIVE), "was not judged"),
        (None, look(5, FLAGGED), "not the run yet"),
        (look(5, CLEAR), look(10, FLAGGED, flagged=True), "WARNING step 10"),
        (look(5, FLAGGED), look(10, FLAGGED, flagged=True), "WARNING step 10"),
        (look(5, FLAGGED, flagged=True), look(10, FLAGGED, flagged=True), None),
        (
            look(5, FLAGGED, flagged=True),
            look(10, CLEAR, flagged=True),
            "no longer scans as flagged",
        ),
        (look(5, INCONCLUSIVE), look(10, INCONCLUSIVE), None),
        (look(5, INCONCLUSIVE), look(10, CLEAR), None),
    ],
)
def test_only_changes_are_said(
    before: TrainingScan | None, now: TrainingScan, words: str | None
) -> None:
    line = change_line(now, before, stops=False, screen=PLAIN)
    assert line is None if words is None else words in (line or "")
    assert "\n" not in (line or "")


def test_reasons_and_names_cannot_write_lines_or_colours() -> None:
    bad = msgspec.structs.replace(
        INCONCLUSIVE, verdict=Verdict.ERROR, reasons=["a\nb\x1b[31m ::error::c"]
    )
    line = change_line(look(5, bad, adapter="x\ny\x1b"), None, stops=True, screen=PLAIN)
    assert line is not None
    assert line.isprintable()
    assert "::error" not in line
    assert summary_line([look(5, bad, adapter="x\ny")], None, PLAIN).isprintable()
