"""`adapter-scanner signatures build`: a recipe, one's own or one that ships, becomes a pack."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.cli import completing
from scanner.cli.progress import Progress

if TYPE_CHECKING:
    from scanner.signatures.manifest import Calibration, Selection
    from scanner.signatures.pack import Signature

MOST_REASONS = 3
"""Reasons why repositories were left out that are named; the pack has them all."""
ALPHAS = (0.05, 0.01)
"""False-positive rates that a pack is expected to reach."""

WORK = click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="What is found on the hub on the way, for a later run to go on with.  "
    "[default: PACK.work]",
)

_EPILOG = """\b
Examples:
  adapter-scanner signatures recipes
  adapter-scanner signatures build qwen2.5-7b-instruct -o qwen
  adapter-scanner signatures build my-recipe.yaml -o pack
"""


@click.command("build", epilog=_EPILOG, short_help="Build a pack from a recipe.")
@click.argument("recipe", shell_complete=completing.recipes)
@click.option("-o", "--output", required=True, metavar="PACK", help="Directory to write.")
@WORK
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def command(recipe: str, output: str, work: Path | None, no_progress: bool) -> None:
    """Build a pack from a RECIPE, calibrated if the recipe says on which benign adapters.

    RECIPE is a YAML file, the name of a recipe that ships, or the base model's id. Adapters that
    a recipe looks for on the hub are read one at a time, and none is kept on disk. An interrupted
    build that is run again goes on where it was.
    """
    from scanner.signatures.building.build import build_pack
    from scanner.signatures.installed import find_recipe
    from scanner.signatures.recipe import BenignQuery
    from scanner.signatures.recipe_file import load_recipe

    loaded = load_recipe(find_recipe(recipe))
    searches = any(isinstance(found, BenignQuery) for found in (loaded.aligned, loaded.benign))
    place = (work or default_work(output)) if searches else None
    signature = build_pack(loaded, output, Progress(not no_progress), place)
    click.echo(f"{output}: {signature.id} {signature.digest}")
    if signature.calibration is None:
        click.echo(
            "not calibrated: every verdict will be inconclusive until "
            f'"adapter-scanner signatures calibrate {output}" has seen benign adapters',
            err=True,
        )
    for line in found_on_hub(signature):
        click.echo(f"  {line}", err=True)
    tell_worth(signature)


def tell_worth(signature: Signature) -> None:
    """Says on standard error what a pack finds and misses, and what is probably wrong with it.

    Names of adapters are others' words, so nothing in a line is obeyed by a terminal.
    """
    from scanner.reports.terminal import printable
    from scanner.signatures.cautions import cautions_of
    from scanner.signatures.power_words import power_rows

    rows = power_rows(signature.power) if signature.calibration is not None else []
    rows += [("warning", caution.line()) for caution in cautions_of(signature)]
    for label, text in rows:
        click.echo(f"  {label:<17} {printable(text)}", err=True)


def default_work(pack: str) -> Path:
    """Where the work on a pack is kept unless somebody says where."""
    path = Path(pack)
    return path.with_name(f"{path.resolve().name}.work")


def found_on_hub(signature: Signature) -> list[str]:
    """What a hub gave for a pack, and what is missing; nothing if no hub was searched.

    Reasons quote what strangers have written, so nothing in a line is obeyed by a terminal.
    """
    from scanner.reports.terminal import printable
    from scanner.signatures.building.build import WITHOUT_REFERENCE

    limitations = signature.manifest.limitations
    lines = [item for item in limitations if item.startswith(WITHOUT_REFERENCE)]
    if (nulling := signature.nulling) is not None:
        members = [item for item in signature.manifest.references if item.role == "aligned"]
        owners = len({item.family for item in members})
        lines.append(f"nulled with {len(members)} adapters of {owners} owners")
        lines += _left_out(nulling, len(members))
    calibration = signature.calibration
    if calibration is not None and calibration.selection is not None:
        lines += _calibrated(calibration, calibration.selection)
    return [printable(line) for line in lines]


def levels_of(calibration: Calibration) -> list[str]:
    """From which alpha on adapters of each shape can be clear; nothing if all are of one shape.

    An adapter is cleared by benign adapters of its own shape alone.
    """
    from scanner.results import Shape
    from scanner.statistics.calibration import GROUP_FLOOR
    from scanner.statistics.conformal import smallest_level

    n = len(calibration.benign)
    alike = Counter(Shape.of(item.layers) for item in calibration.benign)
    lines = []
    for shape in Shape:
        count = alike[shape]
        can = f"can be clear at alpha {smallest_level(count):.2g} and above"
        if count < GROUP_FLOOR:
            can = f"cannot be clear, which takes {GROUP_FLOOR}"
        if count < n:
            lines.append(f"{count} of them change {shape.value}: an adapter that does {can}")
    return lines


def _calibrated(calibration: Calibration, selection: Selection) -> list[str]:
    from scanner.results import Shape
    from scanner.statistics.conformal import needed_for, smallest_level, supports

    n = len(calibration.benign)
    owners = len({item.family for item in calibration.benign})
    lines = [
        f"calibrated on {n} adapters of {owners} owners: alpha {smallest_level(n):.2g} and above",
        *levels_of(calibration),
    ]
    # Most adapters change several layers: what is missing is said of those.
    alike = sum(Shape.of(item.layers) is Shape.SEVERAL_LAYERS for item in calibration.benign)
    lines += [
        f"missing: {needed_for(alpha) - alike} benign adapters for alpha {alpha:g}"
        for alpha in ALPHAS
        if not supports(alike, alpha)
    ]
    return lines + _left_out(selection, n)


def _left_out(selection: Selection, used: int) -> list[str]:
    """Why there are fewer than were wanted."""
    reasons = Counter(selection.left_out.values()).most_common()
    if used >= selection.limit or not reasons:
        return []
    told = [f"{count} x {reason}" for reason, count in reasons[:MOST_REASONS]]
    others = sum(count for _, count in reasons[MOST_REASONS:])
    told += [f"{others} for other reasons"] if others else []
    return [f"{len(selection.left_out)} repositories were left out: {'; '.join(told)}"]
