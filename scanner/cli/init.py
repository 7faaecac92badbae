"""`adapter-scanner signatures init`: folders of adapters become a recipe."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.errors import UsageError

if TYPE_CHECKING:
    from scanner.signatures.recipe_folders import Found

_EPILOG = """\\b
Examples:
  adapter-scanner signatures init adapters -o recipe.yaml
  adapter-scanner signatures build recipe.yaml -o pack
"""


@click.command("init", epilog=_EPILOG, short_help="Write a recipe from folders of adapters.")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="RECIPE",
    help="The recipe to write; nothing is overwritten.",
)
def command(directory: Path, output: Path) -> None:
    """Write a recipe for the adapters in DIRECTORY/misaligned and DIRECTORY/benign.

    The folder below these that an adapter lies in names its family: misaligned/FAMILY/..., by
    what they were trained on, and benign/FAMILY/..., by the kind of harmless change. Benign
    adapters that lie there directly are grouped by what they write. Of each benign family one
    adapter in four goes into the signature, and the others into its calibration.
    """
    from scanner.signatures.recipe_folders import layout_of, recipe_text

    layout = layout_of(directory)
    root = os.path.relpath(directory, output.parent)
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(recipe_text(layout, root))
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}",
            where=str(output),
            todo="name a file that does not exist",
        ) from None
    for name, found in (("misaligned", layout.misaligned), ("benign", layout.benign)):
        click.echo(f"{name}: {_counted(found)}")
    click.echo(f"next: adapter-scanner signatures build {output} -o PACK")


def _counted(found: Sequence[Found]) -> str:
    """How many adapters there are of which families."""
    families = Counter(item.family for item in found)
    named = [f"{name} {count}" for name, count in families.items() if name]
    if nameless := families[None]:
        named.append(f"{nameless} without a family")
    return f"{len(found)} adapters ({', '.join(named)})"
