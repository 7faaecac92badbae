"""`adapter-scanner signatures make`: calibrated packs of any base model, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.cli.build import found_on_hub, levels_of, tell_worth
from scanner.cli.progress import Progress
from scanner.errors import UsageError

if TYPE_CHECKING:
    from scanner.organisms.make import Making
    from scanner.signatures.pack import Signature
    from scanner.signatures.recipe import Benign

_EPILOG = """\b
Examples:
  adapter-scanner signatures make Qwen/Qwen2.5-0.5B-Instruct -o qwen --benign harmless/
  adapter-scanner signatures make ./smollm2 -o smollm2 --organisms standard --workers 2
  adapter-scanner scan my-adapter/ -s smollm2-hostile -s smollm2-hostile-specific
"""


@click.command("make", epilog=_EPILOG, short_help="Make calibrated packs of any base model.")
@click.argument("base_model")
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    metavar="PACK",
    help="What the packs' names begin with: PACK-hostile and so on.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    metavar="KIND",
    help="What to look for (repeatable): hostile, reckless.  [default: each]",
)
@click.option(
    "--benign",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Harmless adapters of the base; the folder below it that each lies in is its family.",
)
@click.option(
    "--benign-hub",
    is_flag=True,
    help="Take as harmless what the hub lists of the base, a family per owner.",
)
@click.option(
    "--organisms",
    type=click.Choice(["quick", "standard", "full"]),
    help="Train harmless adapters: 0.05 is in reach after minutes (quick), 0.01 after a night "
    "(standard), for a model of 135 million parameters on two cores.",
)
@click.option(
    "--base-id",
    metavar="ID",
    help="What adapters name as their base, if BASE_MODEL is a directory.",
)
@click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="What is made on the way, for a later run to go on with.  [default: PACK.work]",
)
@click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that train."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
def command(
    base_model: str,
    output: Path,
    kinds: tuple[str, ...],
    benign: Path | None,
    benign_hub: bool,
    organisms: str | None,
    base_id: str | None,
    work: Path | None,
    workers: int,
    threads: int,
    no_progress: bool,
) -> None:
    """Make calibrated packs of BASE_MODEL for each kind of misalignment.

    BASE_MODEL is a hub id, a directory, or a directory with one GGUF file. Directions come from
    the base model's own gradients over the probes that ship; no misaligned adapter is needed.
    Verdicts need harmless adapters as well: exactly one of --benign, --benign-hub, --organisms.

    An interrupted run goes on where it was. Needs the extra: pip install
    'adapter-scanner[build]'.
    """
    from scanner.cli.organisms import progress_bar
    from scanner.organisms.make import Making, Watching, make_packs
    from scanner.organisms.plan import size_of
    from scanner.organisms.recipes import KINDS

    given = [benign is not None, benign_hub, organisms is not None]
    if sum(given) != 1:
        raise UsageError(
            "harmless adapters to compare with are needed, from one place",
            todo="give one of --benign DIR, --benign-hub and --organisms quick",
        )
    if strangers := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"no kind {strangers[0]!r}; known are {', '.join(KINDS)}", where="--kind")
    name = base_id or (Path(base_model).resolve().name if Path(base_model).is_dir() else base_model)
    making = Making(
        source=base_model,
        base_id=name,
        output=output,
        work=work or output.with_name(f"{output.name}.work"),
        kinds=kinds or KINDS,
        benign=_benign(benign, name) if organisms is None else [],
        organisms=size_of(organisms) if organisms else None,
        workers=workers,
        threads=threads,
    )
    with progress_bar("organisms", not no_progress) as show:
        watching = Watching(
            say=lambda line: click.echo(line, err=True),
            track=Progress(not no_progress),
            show=show,
        )
        packs = make_packs(making, watching)
    _tell(making, packs)


def _benign(directory: Path | None, base_id: str) -> Benign:
    """The harmless adapters in a directory, or the query for them."""
    from scanner.signatures.recipe import AdapterEntry, BenignQuery, HubQuery

    if directory is None:
        return BenignQuery(hub=HubQuery(base_model=base_id))
    from scanner.signatures.recipe_folders import expanded

    return expanded(AdapterEntry(adapter=str(directory)), Path(), "--benign")


def _tell(making: Making, packs: list[Signature]) -> None:
    """Says what was made and what it is good for."""
    from scanner.organisms.make import place_of
    from scanner.statistics.conformal import smallest_level

    for name, pack in zip(making.signatures, packs, strict=True):
        assert pack.calibration is not None, "it has just been calibrated"
        scored = pack.calibration.benign
        families = len({item.family for item in scored})
        click.echo(f"{place_of(making, name)}: {pack.id} {pack.digest}")
        click.echo(
            f"  {len(scored)} harmless adapters of {families} families: "
            f"alpha {smallest_level(len(scored)):.2g} and above"
        )
        if pack.calibration.selection is None:  # of one that was found on a hub it is said below
            for line in levels_of(pack.calibration):
                click.echo(f"  {line}")
        for line in found_on_hub(pack):
            click.echo(f"  {line}", err=True)
        tell_worth(pack)
