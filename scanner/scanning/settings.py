"""The settings of a scan, declared once: flags and configuration files are both made from this.

`scanner.cli.options` turns the fields into flags,
`scanner.scanning.configuration` reads them from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta


@dataclass(frozen=True)
class About:
    """What a person is told about a setting, and how its value is treated."""

    help: str
    short: str | None = None
    metavar: str | None = None
    is_path: bool = False
    """In a configuration file, relative to that file."""


FormatName = Literal["text", "json", "jsonl", "sarif", "markdown", "html", "junit"]
"""The report formats; `scanner.reports` has a module for each."""
FailOn = Literal["flagged", "inconclusive", "never"]


class Settings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"
):
    """How a run scans and reports. In a file, the keys are the names of the flags."""

    format: Annotated[FormatName, About("How to write the report.", short="-f")] = "text"
    output: Annotated[
        str | None,
        About(
            "Write the report to this file instead of standard output.",
            short="-o",
            metavar="FILE",
            is_path=True,
        ),
    ] = None
    signature: Annotated[
        list[str],
        About(
            "Signature pack to use (repeatable). Default: every installed one for the base.",
            short="-s",
            metavar="PACK",
            is_path=True,
        ),
    ] = []
    base_model: Annotated[
        str | None, About("The adapters' base model, whatever they say.", metavar="ID")
    ] = None
    alpha: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        About("False-positive rate on benign adapters. Default: 0.01", metavar="FLOAT"),
    ] = None
    fail_on: Annotated[
        FailOn,
        About(
            "The mildest verdict that makes the exit status non-zero; errors count as inconclusive."
        ),
    ] = "inconclusive"
    compose: Annotated[bool, About("Score the SUM of all targets as one adapter.")] = False
    baseline: Annotated[
        str | None,
        About(
            "Findings accepted with `adapter-scanner baseline write`; they do not fail the run.",
            metavar="FILE",
            is_path=True,
        ),
    ] = None
    jobs: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, About("Threads. Default: up to 4")
    ] = None
    cache: Annotated[bool, About("Remember results of unchanged adapters.")] = True
    progress: Annotated[bool, About("Show progress, if standard error is a terminal.")] = True
