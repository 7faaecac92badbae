"""The packs a command uses: those named, or all that are installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scanner.errors import SignatureError
    from scanner.signatures.pack import Signature


def chosen_packs(names: Sequence[str]) -> list[Signature]:
    """Opens the packs a user means.

    Args:
        names: Directories, or names of installed packs; empty for every installed one. One of
            those that cannot be used is left out, with a line on standard error.

    Raises:
        UsageError: If a named pack cannot be used.
    """
    from scanner.signatures.installed import find_pack, installed_signatures
    from scanner.signatures.pack import load_signature

    if names:
        return [load_signature(find_pack(name)) for name in names]
    return installed_signatures(_say_skipped)


def _say_skipped(error: SignatureError) -> None:
    click.echo(f"adapter-scanner: pack left out: {error.line()}", err=True)
