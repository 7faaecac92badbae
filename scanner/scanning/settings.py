"""The settings of a scan, declared once: flags and configuration files are both made from this.

`scanner.cli.options` turns the fields into flags,
`scanner.scanning.configuration` reads them from a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta

from scanner.results import LooserSetting


@dataclass(frozen=True)
class About:
    """What a person is told about a setting, and how its value is treated."""

    help: str
    short: str | None = None
    metavar: str | None = None
    is_path: bool = False
    """In a configuration file, relative to that file."""
    looser: Callable[[Any], bool] | None = None
    """Whether a value may let through what the default stops; None if no value can."""


def _below_the_default_alpha(alpha: float | None) -> bool:
    from scanner.statistics.conformal import DEFAULT_ALPHA

    return alpha is not None and alpha < DEFAULT_ALPHA


FormatName = Literal["text", "json", "jsonl", "sarif", "markdown", "html", "junit", "cyclonedx"]
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
            looser=bool,
        ),
    ] = []
    base_model: Annotated[
        str | None,
        About("The adapters' base model, whatever they say.", metavar="ID", looser=bool),
    ] = None
    alpha: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        About(
            "False-positive rate on benign adapters. Default: 0.01",
            metavar="FLOAT",
            looser=_below_the_default_alpha,
        ),
    ] = None
    fail_on: Annotated[
        FailOn,
        About(
            "The mildest verdict that makes the exit status non-zero; errors count as "
            "inconclusive.",
            looser=lambda value: value != "inconclusive",
        ),
    ] = "inconclusive"
    compose: Annotated[bool, About("Score the SUM of all targets as one adapter.", looser=bool)] = (
        False
    )
    baseline: Annotated[
        str | None,
        About(
            "Findings accepted with `adapter-scanner baseline write`; they do not fail the run.",
            metavar="FILE",
            is_path=True,
            looser=bool,
        ),
    ] = None
    exclude: Annotated[
        list[str],
        About(
            "Leave files and folders of this name alone, or of this path if it has a slash "
            "(repeatable). Virtual environments, node_modules and caches are always left alone; "
            "a target that is named never is.",
            metavar="GLOB",
            looser=bool,
        ),
    ] = []
    jobs: Annotated[
        Annotated[int, Meta(ge=1, le=256)] | None, About("Threads. Default: up to 4")
    ] = None
    cache: Annotated[bool, About("Remember results of unchanged adapters.")] = True
    progress: Annotated[bool, About("Show progress, if standard error is a terminal.")] = True


def about_settings() -> dict[str, About]:
    """Field name -> what is known about every setting."""
    return {
        name: next(note for note in hint.__metadata__ if isinstance(note, About))
        for name, hint in get_type_hints(Settings, include_extras=True).items()
    }


def looser_settings(settings: Settings, *, unused: Iterable[str] = ()) -> list[LooserSetting]:
    """The settings that may let through what the defaults stop.

    Args:
        settings: Those in force.
        unused: Names of settings that mean nothing to the command.
    """
    found = []
    keys = {field.name: field.encode_name for field in msgspec.structs.fields(Settings)}
    for name, about in about_settings().items():
        value = getattr(settings, name)
        if about.looser is not None and name not in unused and about.looser(value):
            found.append(LooserSetting(setting=keys[name], value=_shown(value)))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
