"""`adapter-scanner signatures harden`: a recipe's pack, with evasive organisms as references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.cli import completing
from scanner.cli.build import default_work, tell_worth
from scanner.cli.progress import Progress

if TYPE_CHECKING:
    from scanner.organisms.evasion.hardening import Evasion

_EPILOG = """\b
Example:
  adapter-scanner signatures harden my-recipe.yaml -o pack --rounds 2
"""


@click.command("harden", epilog=_EPILOG, short_help="Build a pack against adapters that evade it.")
@click.argument("recipe", shell_complete=completing.recipes)
@click.option("-o", "--output", required=True, metavar="PACK", help="Directory to write.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="How often organisms are trained against the pack, and the pack is built again.",
)
@click.option(
    "--organisms",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="Evasive organisms that join the references in each round.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=60,
    show_default=True,
    help="Steps that each organism is trained for.",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Organisms and packs made on the way; what is there is kept.  [default: PACK.work]",
)
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def command(
    recipe: str,
    output: str,
    rounds: int,
    organisms: int,
    steps: int,
    work: Path | None,
    no_progress: bool,
) -> None:
    """Build a RECIPE's pack, train adapters that evade it, add them to its references, repeat.

    Organisms learn the misaligned answers to half of the recipe's probes while a penalty keeps
    them inside the pack's score and support; the other half measures what they keep of the
    misalignment. Each is scanned under the pack before and after it became a reference, and the
    lines on standard error say whether the round helped. Needs a recipe with probes and benign
    adapters, and the base model in memory.
    """
    from scanner.errors import UsageError
    from scanner.signatures.installed import find_recipe
    from scanner.signatures.recipe_file import load_recipe

    loaded = load_recipe(find_recipe(recipe))
    try:
        from scanner.organisms.evasion.hardening import harden
        from scanner.organisms.evasion.organism import Training
    except ImportError as error:
        raise UsageError(
            f"hardening trains adapters, and {error.name} is not installed",
            todo="pip install 'adapter-scanner[build]'",
        ) from None
    signature = harden(
        loaded,
        Path(output),
        work or default_work(output),
        rounds=rounds,
        organisms=organisms,
        training=Training(steps=steps),
        tell=_tell,
        track=Progress(not no_progress),
    )
    click.echo(f"{output}: {signature.id} {signature.digest}")
    tell_worth(signature)


def _tell(made: list[Evasion]) -> None:
    """One line on a round."""
    kept = sorted(item.kept for item in made)
    flagged = [
        sum(getattr(item, when) == "flagged" for item in made) for when in ("before", "after")
    ]
    click.echo(
        f"  round {made[0].round}: {len(made)} organisms keep {kept[0]:.2f} to {kept[-1]:.2f} of "
        f"the misalignment; flagged: {flagged[0]} by the pack they evade, {flagged[1]} by the new",
        err=True,
    )
