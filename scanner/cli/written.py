"""The flags of commands that write a report: in which form, and where to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def written_as(*names: str) -> Callable[[Function], Function]:
    """Decorates a command with `--format`, which it takes as `format_name`.

    Args:
        names: The forms, of which the first is the default.
    """
    return click.option(
        "-f",
        "--format",
        "format_name",
        type=click.Choice(names),
        default=names[0],
        show_default=True,
        help="How to write it.",
    )


def written_to(function: Function) -> Function:
    """Decorates a command with `--output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Where to write it.  [default: standard output]",
    )(function)
