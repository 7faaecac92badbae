"""`adapter-scanner signatures compare`."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli import completing
from scanner.cli.written import written_as, written_to


@click.command("compare")
@click.argument("first", shell_complete=completing.packs)
@click.argument("second", shell_complete=completing.packs)
@click.option(
    "--alpha",
    type=float,
    metavar="X",
    help="False-positive rate of the verdicts.  [default: 0.01, or what both support]",
)
@written_as("text", "json", "html")
@written_to
def command(
    first: str, second: str, alpha: float | None, format_name: str, output: Path | None
) -> None:
    """Compare two packs of one base: directions, scores of the same adapters, verdicts.

    FIRST and SECOND are directories, or names of installed packs. Adapters that both packs were
    calibrated on or made from are compared; none is opened.
    """
    from scanner.cli.output import write_report
    from scanner.reports import compare_html, compare_text
    from scanner.signatures.comparing import compare_packs
    from scanner.signatures.installed import find_pack
    from scanner.signatures.pack import load_signature
    from scanner.signatures.summary import as_json

    packs = [load_signature(find_pack(name)) for name in (first, second)]
    comparison = compare_packs(packs[0], packs[1], alpha)
    if format_name == "json":
        text = f"{as_json(comparison)}\n"
    else:
        page = compare_html if format_name == "html" else compare_text
        text = page.render(comparison)
    write_report(text, output, for_machines=format_name != "text")
