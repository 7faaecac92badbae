"""`adapter-scanner hub scan` and `hub report`."""

from __future__ import annotations

import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from scanner.cli import completing
from scanner.cli.options import resolve_settings, settings_flags
from scanner.cli.output import write_pieces, write_report
from scanner.cli.packs import chosen_packs
from scanner.cli.status import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, exit_status
from scanner.errors import SweepStoppedError, UsageError
from scanner.scanning.settings import FailOn, FormatName

if TYPE_CHECKING:
    from scanner.scanning.trust import InForce
    from scanner.signatures.pack import Signature
    from scanner.sweep.ledger_rows import LedgerRows
    from scanner.sweep.records import Progress

DEFAULT_LEDGER = "adapter-scanner-ledger.db"

_NOT_FOR_SWEEPS = (
    "format",
    "output",
    "base_model",
    "compose",
    "baseline",
    "exclude",
    "cache",
    "jobs",
)
_TABLES = ("csv", "parquet")
_REPORT_FORMATS = (*get_args(FormatName), *_TABLES)
_TOP = 5

_SCAN_EPILOG = """\b
Exit status:
  0    every adapter is clear
  1    at least one is flagged
  2    usage or configuration error; no pack for a base model, or nothing listed
  3    at least one is inconclusive or unreadable, or the hub stopped answering;
       --resume goes on
  130  interrupted; --resume goes on

\b
Examples:
  adapter-scanner hub scan --base-model Qwen/Qwen2.5-7B-Instruct --ledger qwen.db
  adapter-scanner hub scan --base-model Qwen/Qwen2.5-7B-Instruct --ledger qwen.db --resume
  adapter-scanner hub report qwen.db --summary -f html -o qwen.html
"""


@click.group("hub")
def command() -> None:
    """Scan the adapters of a whole hub, and report on them."""


@command.command("scan", epilog=_SCAN_EPILOG)
@click.option(
    "--base-model",
    "base_models",
    multiple=True,
    metavar="ID",
    shell_complete=completing.bases,
    help="List adapters of this base model and its quantised mirrors (repeatable). Default: the "
    "bases of the packs, unless --author or --search is given.",
)
@click.option("--author", help="List adapters of this user or organisation only.")
@click.option("--search", metavar="TEXT", help="List adapters with this in their name only.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    help="List adapters changed on this day or later only.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="List so many at most.")
@click.option(
    "--ledger",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_LEDGER,
    show_default=True,
    help="Where the sweep is written down: made if it does not exist, never emptied.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where the listing stood. Otherwise it starts anew; verdicts stay.",
)
@click.option(
    "--allow-empty",
    is_flag=True,
    help="Sweep even if no pack is for a base model, and call it a success if nothing is listed.",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where adapters are read and judged.",
)
@click.option("--address", help="A running Ray cluster. Default: one is started on this machine.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    help="Adapters read at once, by each worker of a cluster.  [default: 16]",
)
@settings_flags(without=_NOT_FOR_SWEEPS)
@click.pass_context
def scan_command(
    ctx: click.Context,
    /,
    base_models: tuple[str, ...],
    author: str | None,
    search: str | None,
    since: datetime | None,
    limit: int | None,
    ledger: Path,
    resume: bool,
    allow_empty: bool,
    engine: Literal["local", "ray"],
    address: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Scan every adapter the hub lists, and write it down.

    Reads of each adapter what the signature covers, by ranges; content that was judged
    before, under any name, is not read again. Whatever ends it, --resume goes on.
    """
    in_force = resolve_settings(config, flags, unused=_NOT_FOR_SWEEPS)
    settings = in_force.settings
    if address is not None and engine != "ray":
        raise UsageError("only a Ray cluster has an address", where="--address")
    signatures = _signatures(in_force)

    from scanner.cli.sweep_display import SweepDisplay
    from scanner.hub.client import HubClient
    from scanner.hub.query import SweepQuery
    from scanner.reports.terminal import printable
    from scanner.reports.wording import configuration_in_words
    from scanner.results import Verdict
    from scanner.sweep.running import DEFAULT_JOBS, SweepSettings, run_sweep

    bases = list(base_models)
    if not bases and author is None and search is None:
        bases = sorted({item.manifest.base_model.id for item in signatures})
    query = SweepQuery(
        endpoint=HubClient().endpoint,
        base_models=bases,
        author=author,
        search=search,
        since=since.date().isoformat() if since else None,
        limit=limit,
    )
    sweep = SweepSettings(
        query,
        signatures,
        ledger,
        alpha=settings.alpha,
        resume=resume,
        engine=engine,
        address=address,
        jobs=settings.jobs or DEFAULT_JOBS,
        allow_empty=allow_empty,
    )
    # A scheduler that ends a sweep gets the same last words as a person who does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with SweepDisplay(settings.progress) as display:
            progress = run_sweep(sweep, display)
    except KeyboardInterrupt:
        _say_how_to_go_on("interrupted", ledger)
        ctx.exit(EXIT_INTERRUPTED)
    except SweepStoppedError as error:
        _say_how_to_go_on(printable(error.line()), ledger)
        ctx.exit(EXIT_INCONCLUSIVE)
    _print_end(ledger, progress)
    if said := configuration_in_words(in_force.configuration):
        click.echo(printable(said))
    ctx.exit(exit_status({Verdict(name) for name in progress.verdicts}, settings.fail_on))


def _say_how_to_go_on(why: str, ledger: Path) -> None:
    """Says why a sweep ended early, and the command that goes on with it."""
    words = [word for word in sys.argv[1:] if word != "--resume"]
    click.echo(
        f"adapter-scanner: {why}; what was done is in {ledger}, and this goes on with it:\n"
        f"  {shlex.join(['adapter-scanner', *words, '--resume'])}",
        err=True,
    )


def _signatures(in_force: InForce) -> list[Signature]:
    """The packs, verified, and fit for the false-positive rate asked for."""
    from scanner.detection.verdict import check_alpha
    from scanner.statistics.conformal import check_supported

    settings = in_force.settings
    check_alpha(settings.alpha)
    signatures = chosen_packs(in_force)
    if not signatures:
        raise UsageError(
            "no signature pack is installed", where="-s", todo="name one, or build or pull one"
        )
    for signature in signatures:
        signature.verify()
        if settings.alpha is not None and signature.calibration is not None:
            check_supported(len(signature.calibration.benign), settings.alpha, signature.id)
    return signatures


def _print_end(ledger: Path, progress: Progress) -> None:
    """What came of it: counts, and the adapters that carry most."""
    from scanner.reports.terminal import printable
    from scanner.reports.wording import ORDER
    from scanner.sweep.ledger_rows import LedgerRows

    counts = ", ".join(f"{progress.verdicts.get(v.value, 0):,} {v.value}" for v in ORDER)
    with LedgerRows(ledger) as rows:
        for row in rows.highest(_TOP):
            q_value = "" if row.q_value is None else f", q {row.q_value:.2g}"
            numbers = f"dose {row.dose:+.2f}, p {row.p_value:.2g}{q_value}"
            click.echo(f"{row.verdict:<14}{printable(row.target)}  {numbers}")
    click.echo(f"{progress.finished:,} adapters: {counts}")
    page = shlex.quote(f"{ledger.stem}.html")
    report = f"adapter-scanner hub report {shlex.quote(str(ledger))} --summary -f html -o {page}"
    click.echo(f"ledger: {ledger}; see it with: {report}")


@command.command("report")
@click.argument("ledger", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "-f",
    "--format",
    "format_name",
    type=click.Choice(_REPORT_FORMATS),
    default="text",
    show_default=True,
    help="How to write the report.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the report to this file instead of standard output.",
)
@click.option(
    "--summary",
    is_flag=True,
    help="One page: what is flagged, what came next, and all beside the calibration (html, "
    "markdown).",
)
@click.option(
    "--fail-on",
    type=click.Choice(["flagged", "inconclusive", "never"]),
    default="inconclusive",
    show_default=True,
    help="The mildest verdict that makes the exit status non-zero.",
)
@click.pass_context
def report_command(
    ctx: click.Context,
    /,
    ledger: Path,
    format_name: str,
    output: Path | None,
    summary: bool,
    fail_on: FailOn,
) -> None:
    """Report on a sweep, with Benjamini-Hochberg q-values.

    The verdicts are those of the sweep that wrote to LEDGER last. A sweep that goes on may
    be reported on too.
    """
    from scanner.sweep.ledger_rows import LedgerRows
    from scanner.sweep.report import render_sweep

    with LedgerRows(ledger) as rows:
        swept = rows.swept()
        if format_name in _TABLES:
            _write_table(rows, format_name, output, summary)
        else:
            text = render_sweep(rows, format_name, summary=summary)
            write_report(text, output, for_machines=format_name != "text")
        verdicts = rows.verdicts()
    if swept.waiting or not swept.listing_finished:
        click.echo(
            f"{ledger}: the sweep is not finished; {swept.waiting:,} wait; "
            "hub scan with --resume goes on",
            err=True,
        )
    if not verdicts:
        click.echo(f"{ledger}: holds no adapter", err=True)
        ctx.exit(0 if fail_on == "never" else EXIT_INCONCLUSIVE)
    ctx.exit(exit_status(verdicts, fail_on))


def _write_table(rows: LedgerRows, format_name: str, output: Path | None, summary: bool) -> None:
    from scanner.sweep.table import csv_pieces, write_parquet

    packs = [signature.id for signature in rows.signatures]
    if summary:
        raise UsageError(
            f"there is no summary as {format_name}", where="--summary", todo="use html or markdown"
        )
    if format_name == "csv":
        write_pieces(csv_pieces(rows.adapters(), packs), output, for_machines=True)
    elif output is None:
        raise UsageError("Parquet is written to a file", where="-f parquet", todo="say -o FILE")
    else:
        write_parquet(output, rows.adapters(), packs)
