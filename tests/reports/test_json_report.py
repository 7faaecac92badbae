from __future__ import annotations

import json
import math
import re
from pathlib import Path

import jsonschema
import pytest

from scanner.reports.json_report import SCHEMA_PATH, render, schema
from scanner.results import Report, ScanResult
from scanner.signatures.pack import Signature
from tests.cli.program import run
from tests.reports.samples import CLEAR, mixed, report_of
from tools.project import ROOT


def validate(text: str) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text()))
    assert list(validator.iter_errors(json.loads(text))) == []


def test_the_shipped_schema_is_the_records_own() -> None:
    """If this fails: python -m scanner.reports.json_report > scanner/reports/report.schema.json."""
    assert json.loads(SCHEMA_PATH.read_text()) == schema()
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("report", [mixed(), report_of(CLEAR), report_of()])
def test_reports_satisfy_the_schema(report: Report) -> None:
    validate(render(report))


def test_a_real_run_satisfies_the_schema(
    pack: Signature, misaligned: Path, benign: Path, tmp_path: Path
) -> None:
    done = run("scan", misaligned, benign, tmp_path / "missing", "-s", pack.path, "-f", "json")
    validate(done.stdout)
    report = json.loads(done.stdout)
    assert [r["verdict"] for r in report["results"]] == ["flagged", "clear", "error"]
    assert report["summary"] == {"clear": 1, "flagged": 1, "inconclusive": 0, "error": 1}


def test_what_is_not_known_is_null_and_never_nan() -> None:
    text = render(mixed())
    values = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    unreadable = values["results"][3]
    assert unreadable["p_value"] is None
    assert unreadable["score"] is None
    assert math.isfinite(values["results"][0]["score"])


def test_the_reference_page_names_every_field_of_a_report_and_a_result() -> None:
    page = (ROOT / "docs" / "reference" / "json.md").read_text("utf-8")
    for title, record in (("A report", Report), ("A result", ScanResult)):
        table = page.split(f"## {title}\n")[1].split("\n## ")[0]
        names = {
            name
            for line in table.splitlines()
            if line.startswith("| `")
            for name in re.findall(r"`(\w+)`", line.split("|")[1])
        }
        assert names == set(record.__struct_fields__)
