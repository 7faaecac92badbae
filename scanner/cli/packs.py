"""The packs a command uses: those named, or all that are installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from scanner.errors import SignatureError
    from scanner.scanning.trust import InForce
    from scanner.signatures.pack import Signature


def chosen_packs(in_force: InForce) -> list[Signature]:
    """Opens the packs a run is to use: those it names, or every installed one.

    An installed one that cannot be used, or that lies in what is scanned, is left out with a
    line on standard error.

    Raises:
        UsageError: If a named pack cannot be used.
    """
    from scanner.signatures.installed import find_pack, installed_signatures, shipped_root
    from scanner.signatures.manifest import MANIFEST_NAME
    from scanner.signatures.pack import load_signature

    if names := in_force.settings.signature:
        return [load_signature(find_pack(name)) for name in names]
    packs = []
    for pack in installed_signatures(_say_left_out):
        ships = pack.path.parent == shipped_root()  # it is believed as the program beside it is
        if in_force.trees.hold(pack.path / MANIFEST_NAME) and not ships:
            click.echo(
                f"adapter-scanner: pack left out: {pack.path} lies in what is scanned", err=True
            )
        else:
            packs.append(pack)
    return packs


def _say_left_out(error: SignatureError) -> None:
    click.echo(f"adapter-scanner: pack left out: {error.line()}", err=True)
