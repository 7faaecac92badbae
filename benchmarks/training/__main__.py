"""Watched trainings of the organism lab, and what a scan in memory costs.

    python -m benchmarks.training runs --base llama     # tables of docs/training.md
    python -m benchmarks.training cost

Runs are kept in `.cache/training`; what is there is not trained again.
"""

from __future__ import annotations

import re
from pathlib import Path

import click

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training.md"
MARKERS = "<!-- python -m benchmarks.training: {} -->"


@click.group()
def main() -> None:
    """What watching a training finds, how often it is wrong, and what it costs."""


@main.command()
@click.option("--base", default="llama", show_default=True, help="Base of the organism lab.")
@click.option("--signature", help="Pack that watches; the base's `weights` pack if not given.")
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    default=Path(".cache/training"),
    show_default=True,
    help="Where runs are kept.",
)
@click.option("--part", default=0, help="Which part of the runs, from 0, with --parts.")
@click.option("--parts", default=1, help="Processes that share the runs.")
@click.option("--no-more", is_flag=True, help="Train nothing: tables of the runs that are there.")
@click.option("--write", is_flag=True, help="Write the tables into docs/training.md.")
def runs(
    base: str,
    signature: str | None,
    root: Path,
    part: int,
    parts: int,
    no_more: bool,
    write: bool,
) -> None:
    """Trains and watches the declared runs, and prints the tables."""
    from benchmarks.training.report import tables
    from benchmarks.training.runs import known, run_all

    chosen = signature or f"persona-{base}-weights"
    ledger = root / f"{chosen}.jsonl"
    text = tables(base, known(ledger) if no_more else run_all(base, chosen, ledger, part, parts))
    click.echo(text)
    if write:
        _write(base, text)


def _write(base: str, text: str) -> None:
    """Puts tables between the page's markers for a base."""
    begin, end = (MARKERS.format(f"{edge} {base}") for edge in ("begin", "end"))
    page = PAGE.read_text(encoding="utf-8")
    between = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if not between.search(page):
        raise click.ClickException(f"{PAGE} has no markers for {base}")
    PAGE.write_text(between.sub(lambda _: f"{begin}\n{text}{end}", page), encoding="utf-8")


@main.command()
@click.option("--times", default=3, show_default=True, help="Timed scans and steps.")
@click.option("--threads", default=1, show_default=True, help="Threads of torch and of the scan.")
def cost(times: int, threads: int) -> None:
    """Times a scan of a 7B model's rank-16 adapter in memory beside a step of its training."""
    import torch

    from benchmarks.training.cost import RANK, TOKENS, seconds_per_scan, seconds_per_step

    torch.set_num_threads(threads)
    scan, step = seconds_per_scan(times), seconds_per_step(times)
    click.echo(
        f"7B, rank {RANK}, all projections, {threads} thread(s), processor time: {scan:.2f} s "
        f"a scan, {step:.0f} s a step of {TOKENS} tokens: {scan / step:.2%}"
    )


if __name__ == "__main__":
    main()
