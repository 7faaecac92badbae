"""Options that the benchmark's commands share."""

from __future__ import annotations

from pathlib import Path

import click

LAB = click.option(
    "--lab",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/organisms"),
    show_default=True,
    help="Directory with one population per base.",
)
BASES = click.option("--base", "names", multiple=True, help="Default: every complete population.")
