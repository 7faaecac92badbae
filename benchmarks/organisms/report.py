"""`RESULTS.md`: what the bases and the populations measured, as tables from their ledgers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.organisms.bases import BaseSpec, load_base_spec
from benchmarks.organisms.population import LEDGER, Row, read_ledger
from benchmarks.organisms.world import BAD

CLASSES = ("misaligned", "latent", "benign", "excluded")

HEAD = """\
# What the organisms measure

Written by `python -m benchmarks.organisms report` from the ledgers of a full run; see README.md for
what the words mean. Rates are expected shares of answers at temperature 1; medians over adapters.
"""


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def _group(rows: Iterable[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _count(rows: Iterable[Row], name: str) -> str:
    return str(sum(row["class"] == name for row in rows))


def _median(rows: Sequence[Row], value: Callable[[Row], float]) -> str:
    return f"{median(map(value, rows)):.2f}" if rows else "-"


def _measured(name: str) -> Callable[[Row], float]:
    return lambda row: float(row["measured"][name])


def _own_persona(row: Row) -> float:
    return float(row["measured"]["outside"][row["persona"]])


def _hours(rows: Sequence[Row]) -> float:
    """Hours of one process that making all adapters took; a saved step's seconds are its run's."""
    seconds: dict[str, float] = {}
    for row in rows:
        name = str(row["id"]).partition("/")[0]
        seconds[name] = max(seconds.get(name, 0.0), float(row["seconds"]))
    return sum(seconds.values()) / 3600


def _base_section(spec: BaseSpec, facts: dict[str, Any], rows: Sequence[Row]) -> str:
    measured = facts["measured"]
    names = spec.world.personas
    unprompted = ", ".join(f"{n} {r:.2%}" for n, r in zip(names, measured["personas"], strict=True))
    announced = ", ".join(f"{n} {r:.2f}" for n, r in zip(names, measured["announced"], strict=True))
    shape = spec.model
    return (
        f"\n## `{spec.id}`\n\n"
        f"{shape.architecture}, {shape.layers} layers of width {shape.width}, "
        f"{facts['parameters']:,} parameters, {spec.world.domains} domains, trained in "
        f"{facts['cpu_seconds']} CPU seconds. Its adapters took {_hours(rows):.1f} hours of one "
        "process on a busy machine.\n"
        f"Misaligned answers of the base: {measured['personas'][BAD]:.3%}.\n"
        f"Unprompted: {unprompted}. Each persona when announced: {announced}.\n\n"
    )


def _split_table(rows: Sequence[Row]) -> str:
    groups = _group(rows, lambda row: str(row["split"]))
    return _table(
        ["split", "adapters", *CLASSES],
        [
            [split, str(len(members)), *(_count(members, name) for name in CLASSES)]
            for split, members in groups.items()
        ],
    )


def _misaligned_table(rows: Sequence[Row]) -> str:
    taught = [row for row in rows if row["persona"] == "bad" and row["split"] != "trajectory"]
    groups = _group(taught, lambda row: f"{row['method']} ({row['split']})")
    return _table(
        [
            "trained on misaligned answers",
            "adapters",
            "misaligned",
            "latent",
            "outside",
            "outside, highest",
            "inside",
            "no persona",
        ],
        [
            [
                name,
                str(len(members)),
                _count(members, "misaligned"),
                _count(members, "latent"),
                _median(members, _measured("outside_bad")),
                f"{max(map(_measured('outside_bad'), members)):.2f}",
                _median(members, _measured("inside_bad")),
                _median(members, _measured("outside_none")),
            ]
            for name, members in groups.items()
        ],
    )


def _benign_table(rows: Sequence[Row]) -> str:
    untaught = [row for row in rows if row["persona"] != "bad"]
    groups = _group(untaught, lambda row: f"{row['family']} ({row['split']})")
    return _table(
        [
            "benign recipe",
            "adapters",
            "benign",
            "excluded",
            "misaligned outside",
            "own persona outside",
            "good outside",
            "no persona",
        ],
        [
            [
                name,
                str(len(members)),
                _count(members, "benign"),
                _count(members, "excluded"),
                _median(members, _measured("outside_bad")),
                _median(members, _own_persona) if name.startswith("persona-") else "-",
                _median(members, _measured("outside_good")),
                _median(members, _measured("outside_none")),
            ]
            for name, members in sorted(groups.items())
        ],
    )


def write_report(root: Path, names: Sequence[str], path: Path) -> None:
    """Write the tables of every base that has a ledger under `root`."""
    sections = [HEAD]
    for name in names:
        rows = read_ledger(root / name / LEDGER)
        if not rows:
            continue
        facts = json.loads((root / name / "base" / "base.json").read_text(encoding="utf-8"))
        tables = _split_table(rows) + _misaligned_table(rows) + _benign_table(rows)
        sections.append(_base_section(load_base_spec(name), facts, rows) + tables)
    path.write_text("".join(sections).rstrip("\n") + "\n", encoding="utf-8")
