from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import msgspec

from scanner.reports import jsonl_report
from scanner.reports.junit_report import render
from scanner.results import Acceptance
from tests.reports.samples import CLEAR, FLAGGED, mixed, report_of


def test_it_parses_and_counts() -> None:
    suite = ET.fromstring(render(mixed()))[0]
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "3",
        "skipped": "0",
    }
    cases = suite.findall("testcase")
    assert [len(case) for case in cases] == [1, 0, 1, 1, 1]
    failure = cases[0].find("failure")
    assert failure is not None
    assert "a dose of 0.87" in failure.get("message", "")
    assert "dose +0.87; cosine +0.61; overlap 30% (the share of" in str(failure.text)


def test_an_accepted_finding_is_skipped_not_failed() -> None:
    accepted = Acceptance(reason='said "fine"', accepted="2026-01-01", expires="2027-01-01")
    suite = ET.fromstring(
        render(report_of(msgspec.structs.replace(FLAGGED, accepted=accepted), CLEAR))
    )[0]
    assert (suite.get("failures"), suite.get("skipped")) == ("0", "1")
    skipped = suite[0].find("skipped")
    assert skipped is not None
    assert 'said "fine"' in skipped.get("message", "")


def test_json_lines_are_the_run_and_then_its_results() -> None:
    lines = [json.loads(line) for line in jsonl_report.render(mixed()).splitlines()]
    assert len(lines) == 6
    assert lines[0]["summary"]["flagged"] == 1
    assert lines[0]["results"] == []
    assert [line["verdict"] for line in lines[1:3]] == ["flagged", "clear"]
