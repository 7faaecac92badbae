"""What each size of the shipped plan costs to train, by what some of it took.

    python -m benchmarks.organisms.plan_cost FOLDER

FOLDER is one of organisms (`adapter-scanner organisms train`). An organism's processor seconds are
taken to be its steps and batch times what a step and an answer took with those of its group, or,
where none of the group is in the folder, with those of its method: the median of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import click

from benchmarks.detection.tables import table
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.organism import Organism
from scanner.organisms.plan import Size, expand, shipped_plan

SIZES: tuple[Size, ...] = ("quick", "standard", "full")
FOR_PACKS = ("calibration", "reference")
"""Roles of the adapters that a pack needs."""


def seconds_each(rows: Sequence[Row]) -> dict[str, float]:
    """Group or method -> median processor seconds of a step and an answer."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if seconds := row.get("cpu_seconds"):
            each = seconds / (row["steps"] * row["batch"])
            found[_group(str(row["id"]))].append(each)
            found[row["method"]].append(each)
    return {name: median(items) for name, items in found.items()}


def hours(organisms: Sequence[Organism], each: Mapping[str, float]) -> float:
    """Processor hours that training some organisms takes."""
    return sum(
        item.steps * item.batch * each.get(_group(item.id), each[item.method]) / 3600
        for item in organisms
    )


def _group(identity: str) -> str:
    return identity.rpartition("-")[0]


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Prints a table."""
    rows = list(Ledger(folder).trained().values())
    each = seconds_each(rows)
    lines = []
    for size in SIZES:
        plan = expand(shipped_plan(), size)
        needed = [item for item in plan if item.role in FOR_PACKS]
        lines.append(
            [
                size,
                str(len(plan)),
                f"{hours(plan, each):.1f}",
                str(len(needed)),
                f"{hours(needed, each):.1f}",
            ]
        )
    click.echo(f"by {len(rows)} organisms that were trained\n")
    click.echo(table(["size", "organisms", "hours", "for packs", "hours"], lines))


if __name__ == "__main__":
    main()
