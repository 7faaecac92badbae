"""Verdicts -> reports. Each format is a module with one function, listed in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, cast

from scanner.results import Report

Renderer = Callable[[Report], str]


class ReportFormat(NamedTuple):
    """One way to write a report."""

    module: str
    """Module below `scanner.reports` with a `render(report) -> str`."""
    for_machines: bool
    """Printed to standard output alone, nothing before or after it."""


FORMATS = {
    "text": ReportFormat("text", for_machines=False),
    "json": ReportFormat("json_report", for_machines=True),
    "jsonl": ReportFormat("jsonl", for_machines=True),
    "sarif": ReportFormat("sarif", for_machines=True),
    "markdown": ReportFormat("markdown", for_machines=True),
    "html": ReportFormat("html_report", for_machines=True),
    "junit": ReportFormat("junit", for_machines=True),
}


def renderer(name: str) -> Renderer:
    """The function that writes one format.

    Raises:
        KeyError: If there is no such format.
    """
    module = import_module(f"scanner.reports.{FORMATS[name].module}")
    return cast(Renderer, module.render)
