"""`adapter-scanner organisms ...`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scanner.organisms.organism import Organism
    from scanner.organisms.plan import Plan
    from scanner.organisms.work import Show

_PLAN = click.option(
    "--plan",
    "plan_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A plan of your own (YAML) instead of the one that ships.",
)
_SIZE = click.option(
    "--size",
    type=click.Choice(["quick", "standard", "full"]),
    default="standard",
    show_default=True,
    help="How much of the plan.",
)
_WORK = click.option(
    "--work",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="Where adapters and ledgers are kept.",
)
_BASE_ID = click.option(
    "--base-id", metavar="ID", help="What adapters name as their base, if not BASE_MODEL."
)
_QUIET = click.option("--no-progress", is_flag=True, help="Show no progress.")


@click.group("organisms")
def command() -> None:
    """Make adapters of known behaviour of any base model, to calibrate and test packs with."""


@command.command("plan")
@_PLAN
@_SIZE
def show_plan(plan_path: Path | None, size: str) -> None:
    """Print the adapters of a plan, one line of JSON each, in the order they would be made."""
    import msgspec

    for organism in _organisms(plan_path, size):
        click.echo(msgspec.json.encode(organism))


@command.command("train")
@click.argument("base_model")
@_WORK
@_PLAN
@_SIZE
@_BASE_ID
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of each.")
@click.option("--role", "roles", multiple=True, help="Only adapters for these purposes.")
@click.option("--no-measure", is_flag=True, help="Leave measuring to `organisms measure`.")
@_QUIET
def train(
    base_model: str,
    work: Path,
    plan_path: Path | None,
    size: str,
    base_id: str | None,
    workers: int,
    threads: int,
    roles: tuple[str, ...],
    no_measure: bool,
    no_progress: bool,
) -> None:
    """Train and measure what a plan declares and DIR does not hold yet.

    BASE_MODEL is a hub id, a directory, or a directory with one GGUF file. An interrupted run goes
    on where it was; several runs may share DIR.
    """
    from scanner.organisms.work import Job, run

    wanted = [o for o in _organisms(plan_path, size) if not roles or o.role in roles]
    job = Job(work, base_model, base_id or base_model, tuple(wanted), not no_measure, threads)
    with progress_bar("adapters", not no_progress) as show:
        run(job, workers, show)


@command.command("measure")
@click.argument("base_model")
@_WORK
@_BASE_ID
@_QUIET
def measure(base_model: str, work: Path, base_id: str | None, no_progress: bool) -> None:
    """Measure the adapters in DIR that were trained and not measured."""
    from scanner.organisms.work import Job, measure_missing

    job = Job(work, base_model, base_id or base_model, ())
    with progress_bar("measured", not no_progress) as show:
        measure_missing(job, show)


@command.command("report")
@_WORK
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
def report(work: Path, output: Path | None) -> None:
    """Write a page (Markdown) of what the adapters in DIR do."""
    from scanner.organisms.ledger import Ledger
    from scanner.organisms.report import page

    text = page(Ledger(work))
    if output is None:
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _organisms(plan_path: Path | None, size: str) -> list[Organism]:
    from scanner.organisms.plan import expand, load_plan, shipped_plan, size_of

    plan: Plan = load_plan(plan_path) if plan_path else shipped_plan()
    return expand(plan, size_of(size))


@contextmanager
def progress_bar(what: str, wanted: bool) -> Iterator[Show]:
    """A bar on a terminal, a line per adapter elsewhere, nothing if not wanted."""
    import sys

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    if not wanted:
        yield lambda _done, _total: None
        return
    if not sys.stderr.isatty():
        shown: set[int] = set()

        def show(done: int, total: int) -> None:
            if done not in shown:
                click.echo(f"{what}: {done} of {total}", err=True)
            shown.add(done)

        yield show
        return
    columns = (what, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)
