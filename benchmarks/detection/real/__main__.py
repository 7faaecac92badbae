"""Command line: `python -m benchmarks.detection.real`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.detection.real import goals, others, page, short
from benchmarks.detection.real.cases import read_cases
from benchmarks.detection.real.run import evaluate
from benchmarks.detection.real.seen import Sights
from benchmarks.detection.real.unseen import find_crossfit
from benchmarks.detection.tables import GOAL_WORDS
from scanner.cli.progress import Progress
from scanner.errors import AdapterScannerError
from scanner.signatures.pack import load_signature


@click.command()
@click.option(
    "--work",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Work folder of `adapter-scanner organisms`.",
)
@click.option(
    "--pack",
    "packs",
    required=True,
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Calibrated pack of the base (repeatable), the one for hostile answers first.",
)
@click.option(
    "--built",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the packs as `signatures make` built them (its PACK.work/packs), if the packs "
    "have lost the directions that leave a family out.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs/real-model.md"),
    show_default=True,
    help="Page to write.",
)
@click.option(
    "--readme",
    "repeating",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Page that repeats what is known in short (repeatable): README.md, docs/evidence.md.",
)
@click.option(
    "--without",
    multiple=True,
    type=click.Choice(list(others.FAMILIES)),
    help="Methods of others to leave out (repeatable); they read every adapter into memory.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/detection-real"),
    show_default=True,
    help="What was seen in adapters, and what the methods of others said of them, before.",
)
def main(
    work: Path,
    packs: tuple[Path, ...],
    built: Path | None,
    out: Path,
    repeating: tuple[Path, ...],
    without: tuple[str, ...],
    cache: Path,
) -> None:
    """Measure detection on the organisms of a real base and write the page."""
    signatures = []
    try:
        cases = read_cases(work)
        for path in packs:
            signature = load_signature(path)
            if signature.calibration is None:
                raise click.ClickException(f"{path}: is not calibrated")
            signatures.append(signature)
        families = [name for name in others.FAMILIES if name not in without]
        theirs = others.scores(cases, families, cache, Progress())
        crossfit = find_crossfit(signatures, built)
        sights = Sights(cache / "seen")
        result = evaluate(cases, signatures, crossfit, sights, Progress(), theirs)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    except AdapterScannerError as error:
        raise click.ClickException(error.line()) from None
    named = "".join(f" --pack {path}" for path in packs)
    named += " --built WORK/packs" if built else ""
    named += "".join(f" --without {family}" for family in without)
    out.parent.mkdir(parents=True, exist_ok=True)
    page.write(out, f"python -m benchmarks.detection.real --work WORK/organisms{named}", result)
    for path in repeating:
        short.put_into(path, short.block(result), short.figures(result))
    for goal in goals.check(result):
        click.echo(f"{goal.what}: {goal.figure} ({GOAL_WORDS[goal.met]})", err=True)
    click.echo(out)


if __name__ == "__main__":
    main()
