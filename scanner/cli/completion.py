"""`adapter-scanner completion`."""

from __future__ import annotations

import click

_EPILOG = """\b
Examples:
  adapter-scanner completion bash > ~/.local/share/bash-completion/completions/adapter-scanner
  adapter-scanner completion zsh > ~/.zfunc/_adapter-scanner
  adapter-scanner completion fish > ~/.config/fish/completions/adapter-scanner.fish
"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, /, shell: str) -> None:
    """Print the script that completes commands and flags in a SHELL."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None, "click completes every shell in the choice"
    script = kind(ctx.find_root().command, {}, "adapter-scanner", "_ADAPTER_SCANNER_COMPLETE")
    click.echo(script.source())
