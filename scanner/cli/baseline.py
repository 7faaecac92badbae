"""`adapter-scanner baseline ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from scanner.cli import completing
from scanner.cli.options import resolve_settings, settings_flags
from scanner.cli.output import write_atomically
from scanner.cli.packs import chosen_packs
from scanner.errors import UsageError

_NAME = "adapter-scanner-baseline.json"
_NO_REPORT = ("format", "output", "fail_on", "baseline", "compose")


@click.group("baseline")
def command() -> None:
    """Accept known findings, so that only new ones fail a run."""


@command.command("write")
@click.argument(
    "targets", nargs=-1, required=True, metavar="TARGET...", shell_complete=completing.paths
)
@click.option("--reason", required=True, help="Why the findings are acceptable.")
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Last day on which they are.  [default: 90 days from today]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The baseline: created, or renewed where it has entries.  [default: "
    f"the configured one, or {_NAME}]",
)
@settings_flags(without=_NO_REPORT)
def write(
    targets: tuple[str, ...],
    reason: str,
    expires: Any,
    output: Path | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Accept today's findings on TARGETs, by the content they have today.

    Flagged and inconclusive adapters are accepted; unreadable ones cannot be. A finding is
    accepted for these weights, this configuration and this signature, until the last day.
    Use it with `scan --baseline FILE`, or `baseline: FILE` in the configuration.
    """
    from datetime import date, timedelta

    from scanner.cli.scan import contents_of, scan_found
    from scanner.reports.terminal import printable
    from scanner.results import Verdict
    from scanner.scanning import baseline as accepted
    from scanner.scanning.exclusion import Exclusion
    from scanner.scanning.targets import find_all

    if not reason.strip():
        raise UsageError("is empty", where="--reason", todo="say why the findings are acceptable")
    today = date.today()
    last = expires.date() if expires else today + timedelta(days=90)
    if last < today:
        raise UsageError(f"{last} is in the past", where="--expires")
    in_force = resolve_settings(config, flags, targets)
    path = output or Path(in_force.settings.baseline or _NAME)
    in_force.trees.refuse(path, where="-o")
    exclusion = Exclusion(in_force.settings.exclude)
    found = find_all(targets, exclusion)
    if said := exclusion.in_words():
        click.echo(f"adapter-scanner: {printable(said)}", err=True)
    results = scan_found(found, chosen_packs(in_force), in_force)
    contents = contents_of(found, in_force)
    new = accepted.accept(
        results, path.parent, contents, reason=reason, accepted=today, expires=last
    )
    old = accepted.load_baseline(path).entries if path.exists() else []
    whole = accepted.Baseline(version=accepted.FORMAT_VERSION, entries=accepted.merge(old, new))
    write_atomically(path, accepted.encode_baseline(whole))
    unreadable = sum(result.verdict is Verdict.ERROR for result in results)
    more = f"; {unreadable} unreadable cannot be accepted" if unreadable else ""
    click.echo(f"{path}: {len(new)} findings accepted until {last}{more}", err=True)
