"""The command group, and what every command does with errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from scanner.cli.status import EXIT_INCONCLUSIVE, EXIT_INTERRUPTED, EXIT_USAGE
from scanner.errors import (
    DEBUG_VARIABLE,
    AdapterScannerError,
    TargetError,
    options_by_flag,
    unforeseen,
)

_COMMANDS = {
    "scan": ("scanner.cli.scan", "Scan adapters for known misalignment directions."),
    "inspect": ("scanner.cli.inspect", "Show what is in an adapter and what was understood."),
    "signatures": (
        "scanner.cli.signatures",
        "List, make, build, calibrate, review, pull, sign and verify packs.",
    ),
    "organisms": ("scanner.cli.organisms", "Make adapters of known behaviour of a base model."),
    "baseline": ("scanner.cli.baseline", "Accept known findings, so that only new ones fail."),
    "serve": ("scanner.cli.serve", "Judge what registries report by webhook."),
    "hub": ("scanner.cli.hub", "Scan the adapters of a whole hub, and report on them."),
    "gate": ("scanner.cli.gate", "Let nothing unjudged into a registry or a hub."),
    "completion": ("scanner.cli.completion", "Print a shell's completion script."),
}

_EPILOG = """\b
Exit status:
  0  every target is clear
  1  at least one is flagged
  2  usage or configuration error
  3  at least one is inconclusive or unreadable

\b
Examples:
  adapter-scanner scan my-adapter/
  adapter-scanner scan adapters/ -f sarif -o report.sarif
  adapter-scanner inspect my-adapter/
"""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, not for `--help`."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Command names in the order users meet them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports and returns one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(_COMMANDS[cmd_name][0])
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; a misspelt one is answered with the nearest."""
        if args and not args[0].startswith("-") and args[0] not in _COMMANDS:
            from scanner.system.spelling import nearest

            near = nearest(args[0], _COMMANDS, most=1)
            hint = f"did you mean {near[0]!r}" if near else f"one of {', '.join(_COMMANDS)}"
            raise click.UsageError(f"no such command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Lists commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def main(self, args: Sequence[str] | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """Runs the program; whatever goes wrong is one line on standard error and a status."""
        kwargs["standalone_mode"] = False
        with options_by_flag():
            status = self._status(args, kwargs)
        sys.exit(status if isinstance(status, int) else 0)

    def _status(self, args: Sequence[str] | None, kwargs: dict[str, Any]) -> object:
        try:
            return super().main(args, **kwargs)
        except Exception as error:  # a traceback would exit 1, which means flagged
            if os.environ.get(DEBUG_VARIABLE) and not isinstance(error, click.ClickException):
                raise
            line, status = _line_and_status(error)
            click.echo(line, err=True)
            return status


def _line_and_status(error: Exception) -> tuple[str, int]:
    """What to say about an error, and the exit status."""
    from scanner.reports.terminal import printable

    if isinstance(error, AdapterScannerError):
        status = EXIT_INCONCLUSIVE if isinstance(error, TargetError) else EXIT_USAGE
        return f"adapter-scanner: {printable(error.line())}", status
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error.format_message(), EXIT_USAGE
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else "adapter-scanner"
        message = error.format_message().rstrip(".?").replace("\n", " ").replace(". Did", "; did")
        return f"{path}: {message[:1].lower()}{message[1:]}; see {path} --help", EXIT_USAGE
    if isinstance(error, click.ClickException):
        return f"adapter-scanner: {error.format_message()}", EXIT_USAGE
    if isinstance(error, click.Abort):
        return "adapter-scanner: interrupted", EXIT_INTERRUPTED
    return f"adapter-scanner: {printable(unforeseen(error))}", EXIT_INCONCLUSIVE


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from scanner.version import version

        click.echo(f"adapter-scanner {version()}")
        ctx.exit()


@click.group(
    "adapter-scanner",
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Scan LoRA adapters for emergent misalignment, from their weights alone.

    Loads no base model, runs no forward pass and generates no text. "clear" means no overlap
    with known misalignment directions; it does not mean aligned.
    """
