"""`python -m benchmarks.hub`."""

from __future__ import annotations

import click

from benchmarks.hub.compare import compare
from benchmarks.hub.finish import finish
from benchmarks.hub.ledger import ledger
from benchmarks.hub.memory import memory
from benchmarks.hub.planted import planted
from benchmarks.hub.recipes import recipes
from benchmarks.hub.scale import scale


@click.group()
def main() -> None:
    """Sweeps of a local hub."""


main.add_command(memory)
main.add_command(compare)
main.add_command(scale)
main.add_command(planted)
main.add_command(recipes)
main.add_command(finish)
main.add_command(ledger)

if __name__ == "__main__":
    main()
