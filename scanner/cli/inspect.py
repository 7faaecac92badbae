"""`adapter-scanner inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from scanner.cli import completing
from scanner.cli.output import write_report
from scanner.cli.written import written_as, written_to


@click.command("inspect")
@click.argument("target", shell_complete=completing.paths)
@written_as("text", "json")
@written_to
def command(target: str, format_name: str, output: Path | None) -> None:
    """Show what is in an adapter and what was understood of it.

    TARGET is a weight file, a directory that holds one adapter, or an address on the hub:
    hf://owner/name[@revision][/subfolder].
    """
    from scanner.detection.inspection import inspect_adapter
    from scanner.scanning.opening import open_adapter

    with open_adapter(target) as adapter:
        inspection = inspect_adapter(adapter)
    if format_name == "json":
        import msgspec

        from scanner.reports.terminal import safe_json

        encoded = msgspec.json.encode(inspection)
        text = safe_json(msgspec.json.format(encoded, indent=2).decode()) + "\n"
    else:
        from scanner.reports.inspection_text import render_inspection

        text = render_inspection(inspection)
    write_report(text, output)
