"""Verdicts -> reports. The format called ``sarif`` is `scanner.reports.sarif_report.render`.

Which formats there are is said once, in `scanner.scanning.settings.FormatName`: command lines,
configuration files and this room are made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast, get_args

from scanner.results import Report
from scanner.scanning.settings import FormatName

Renderer = Callable[[Report], str]

FORMATS: tuple[str, ...] = get_args(FormatName)


def renderer(name: str) -> Renderer:
    """The function that writes one format; imported when asked for, since some are slow to load.

    Raises:
        KeyError: If there is no such format.
    """
    if name not in FORMATS:
        raise KeyError(name)
    return cast(Renderer, import_module(f"scanner.reports.{name}_report").render)


def is_for_machines(name: str) -> bool:
    """Whether a format is printed in UTF-8 and alone; one for people fits the terminal."""
    return name != "text"
