"""Command line of the defences: `python -m benchmarks.redteam.trained.defences`."""

from __future__ import annotations

from pathlib import Path

import click
import torch

from benchmarks.organisms.bases import base_names
from benchmarks.redteam.trained.defences import page, run

COST = """\
Trains a few strong attackers of lab bases, and judges what they submit under each defence.

An attacker takes 9 to 21 seconds of a core, a private pack 10; there are 17 attackers, six private
packs, four that are nulled, and two hardened ones for a base. Nulled packs need the lab's nulling
set (`python -m benchmarks.organisms population --split nulling`); without it their rows are left
out. What benign adapters are sent to is counted last, and takes minutes.

Results are written as they come, and what is there is not done again: after a kill the same
command goes on where it was.
"""


@click.command(help=COST)
@click.option(
    "--base", "bases", multiple=True, type=click.Choice(base_names()), default=tuple(base_names())
)
@click.option(
    "--lab",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(".cache/organisms"),
    show_default=True,
    help="The lab's populations, for references and calibration adapters.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/defences"),
    show_default=True,
    help="Adapters, packs and results.",
)
@click.option(
    "--attacker",
    "attackers",
    multiple=True,
    help="Only attackers with this in `NAME | SETTINGS`; those with own packs end in `own packs`.",
)
@click.option("--defence", "defences", multiple=True, help="Only defences with this in the name.")
@click.option("--page-only", is_flag=True, help="Write the page from what is there.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page whose section on defences is written from all results in the cache.",
)
def main(
    bases: tuple[str, ...],
    lab: Path,
    cache: Path,
    attackers: tuple[str, ...],
    defences: tuple[str, ...],
    page_only: bool,
    out: Path | None,
) -> None:
    """Attacks, defends and counts the price, base by base; `COST` is its help."""
    torch.set_num_threads(1)
    choice = run.Choice(attackers, defences)
    for base in bases if not page_only else ():
        run.attack(base, lab, cache, choice, click.echo)
        packs = run.packs_of(base, lab, cache, choice.packs)
        run.defend(base, packs, cache, choice, click.echo)
        run.price(base, packs, cache, choice, click.echo)
    if out is not None:
        page.SECTION.write(out, page.section(cache, base_names()))
        click.echo(out)


if __name__ == "__main__":
    main()
