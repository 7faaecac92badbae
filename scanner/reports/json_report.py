"""The JSON report, and the schema it satisfies.

`python -m scanner.reports.json_report` prints the schema; `report.schema.json` beside this
file is its output, and a test keeps the two equal.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import msgspec

from scanner.reports.terminal import safe_json
from scanner.results import SCHEMA_VERSION, Report
from scanner.version import DOCUMENTATION

SCHEMA_PATH = Path(__file__).with_name("report.schema.json")
SCHEMA_ID = f"{DOCUMENTATION}reference/report-{SCHEMA_VERSION}.schema.json"
"""Names the schema, and is where the documentation site keeps a copy of it."""


def render(report: Report) -> str:
    """The whole report as one indented JSON document."""
    return safe_json(msgspec.json.format(msgspec.json.encode(report), indent=2).decode()) + "\n"


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the report."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        "title": "adapter-scanner report",
        **_with_clean_descriptions(msgspec.json.schema(Report)),
    }


def _with_clean_descriptions(value: Any) -> Any:
    """A schema whose descriptions are not indented as their docstrings are.

    From Python 3.13 on docstrings come without their indentation: the schema is to be the same
    whatever Python prints it.
    """
    if isinstance(value, list):
        return [_with_clean_descriptions(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inspect.cleandoc(item)
        if key == "description" and isinstance(item, str)
        else _with_clean_descriptions(item)
        for key, item in value.items()
    }


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n")
