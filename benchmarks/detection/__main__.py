"""Command line of the detection benchmark: `python -m benchmarks.detection`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.detection import goals, known, page, rule
from benchmarks.detection.data import find_populations
from benchmarks.detection.options import BASES, LAB
from benchmarks.detection.run import Bench
from benchmarks.detection.tables import GOAL_WORDS
from scanner.cli.progress import Progress
from scanner.signatures.pack import pack_names

QUICK = "quick"


@click.command()
@LAB
@BASES
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/detection"),
    show_default=True,
    help="Scores that are known already.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write.  [default: docs/detection.md; with --quick, in the cache]",
)
@click.option(
    "--readme",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Page that repeats some of the figures.",
)
@click.option("--quick", is_flag=True, help="The lab's quick population instead: under a minute.")
def main(
    lab: Path,
    names: tuple[str, ...],
    cache: Path,
    out: Path | None,
    readme: Path | None,
    quick: bool,
) -> None:
    """Measure detection on the lab's adapters and write the page with tables and figures."""
    options = [" --quick"] if quick else [f" --base {name}" for name in names]
    if quick:
        names = (QUICK,)
    out = out or (cache / "quick.md" if quick else Path("docs/detection.md"))
    try:
        populations = find_populations(lab, names)
    except FileNotFoundError as error:
        raise click.ClickException(str(error)) from None
    # Packs of another score end the command here, not after an hour.
    shipped_rule = "" if quick else rule.section(pack_names(rule.PACKS))
    bench = Bench.open(populations, cache, Progress(), quick)
    results = [bench.evaluate(scorer) for scorer in bench.scorers]
    command = "python -m benchmarks.detection" + "".join(options)
    page.write(out, command, results, shipped_rule)
    if readme:
        known.write_figures(readme, known.TOY, known.toy_figures(results))
    for result in results:
        for goal in goals.check(result):
            word = GOAL_WORDS[goal.met]
            click.echo(f"{goal.base}: {goal.what}: {goal.figure} ({word})", err=True)
    click.echo(out)


if __name__ == "__main__":
    main()
