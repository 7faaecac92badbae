"""Command line of the red team: `python -m benchmarks.redteam`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
import torch

from benchmarks.organisms.bases import base_names
from benchmarks.redteam import adapters, page, price, run
from benchmarks.redteam.target import PACKS, Target
from benchmarks.redteam.trained import page as trained_page
from benchmarks.redteam.trained.defences import page as defences_page

QUICK_ATTACKS = (
    "as trained",
    "diluted with a benign adapter",
    "other factors, cancelling columns",
    "one site overloaded",
    "values and outputs of heads in another basis",
)


@click.command()
@click.option(
    "--lab",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/organisms"),
    show_default=True,
    help="Where the organism lab keeps its populations; what is missing is made.",
)
@click.option("--base", "names", multiple=True, type=click.Choice(base_names()))
@click.option("--attack", "wanted", multiple=True, help="Only attacks with this in their name.")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/redteam"),
    show_default=True,
    help="Raw results, from which the page is written.",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page to write.  [default: docs/redteam.md; with --quick, in the cache]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="A few attacks on two of the repository's example adapters: seconds.",
)
@click.option("--page-only", is_flag=True, help="Write the page from results that are there.")
def main(
    lab: Path,
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    cache: Path,
    out: Path | None,
    quick: bool,
    page_only: bool,
) -> None:
    """Attack the shipped packs, and write what the attacks keep of the misalignment."""
    torch.set_num_threads(1)
    bases = ("llama",) if quick else (names or tuple(base_names()))
    attacks = [
        attack
        for attack in run.ATTACKS
        if (not quick or attack.name in QUICK_ATTACKS)
        and (not wanted or any(word in attack.name for word in wanted))
    ]
    results = []
    for name in bases:
        path = cache / f"{'quick' if quick else name}.json"
        if not page_only:
            found = adapters.from_examples() if quick else adapters.from_lab(name, lab)
            run.save(run.run(Target(name), *found, attacks, click.echo), path)
        results.append(msgspec.json.decode(path.read_bytes(), type=run.BaseOutcomes))
    out = out or (cache / "quick.md" if quick else Path("docs/redteam.md"))
    prices = [price.of_base(name, PACKS) for name in bases]
    options = [" --quick"] if quick else [f" --base {name}" for name in names]
    command = "python -m benchmarks.redteam" + "".join(options)
    trained = trained_page.section(cache) or trained_page.section_of(out)
    defences = defences_page.section_of(out)
    page.write(out, command, results, prices, with_figure=not quick)
    text = trained_page.with_section(out.read_text(encoding="utf-8"), trained)
    out.write_text(defences_page.with_section(text, defences), "utf-8")
    click.echo(out)


if __name__ == "__main__":
    main()
