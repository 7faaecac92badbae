"""The command line. Parsing and wiring only; one module per command group."""

from __future__ import annotations


def main() -> None:
    """Entry point of the `adapter-scanner` command."""
    from scanner.system.processor import settle

    settle()
    from scanner.cli.root import cli

    cli(prog_name="adapter-scanner")
