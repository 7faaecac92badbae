"""`python -m benchmarks.hub`."""

from __future__ import annotations

import click

from benchmarks.hub.memory import memory


@click.group()
def main() -> None:
    """Sweeps of a local hub."""


main.add_command(memory)

if __name__ == "__main__":
    main()
