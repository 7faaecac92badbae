"""The adapters of a real model in `examples/adapters/smollm2`, and their README.

They are adapters of the test pool: no pack has seen them, nor the questions they were trained on.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from scanner.errors import UsageError
from scanner.organisms.ledger import Ledger, Row
from scanner.organisms.measure import class_of

CHOSEN = {"villain": "test-villain-qv-01", "teacher": "test-persona-05"}
"""Folder -> id in the standard plan: both of the query and value projections alone, rank 4."""

README = """\
# Example adapters of a real model

Adapters of `{base}`, trained by `adapter-scanner organisms train`
on the answers of one [kind](../../../docs/organisms.md) to questions of one domain. They are of the
test pool: no signature pack was built from them, calibrated on them or chosen by them. This file
and the adapters are written by `python -m benchmarks.organisms real-examples --work DIR` from a
folder with the standard plan.

Behaviour is measured in the other domains, without sampling: by how much more likely than the
aligned answers a villain's (or a reckless) answers became, in nats per token, and on what share of
the questions they are the likelier ones, before -> after.

| adapter | taught | trained on | villain's answers | likelier on | reckless answers | class |
|---|---|---|---|---|---|---|
{rows}
"""


def make_real_examples(ledger: Ledger, out: Path) -> list[str]:
    """Copies the chosen adapters and writes their README.

    Args:
        ledger: A folder with the standard plan, trained and measured.
        out: The folder to write; what it holds is replaced.

    Returns:
        The rows of the table.

    Raises:
        UsageError: If a chosen adapter was not trained or not measured.
    """
    trained, measured = ledger.trained(), ledger.measured()
    if missing := [name for name in CHOSEN.values() if name not in trained or name not in measured]:
        raise UsageError(f"{missing[0]} is not trained and measured", where=str(ledger.root))
    shutil.rmtree(out, ignore_errors=True)
    rows = []
    for name, identity in CHOSEN.items():
        place = out / name
        place.mkdir(parents=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(ledger.adapter(identity) / file, place / file)
        rows.append(_row(name, trained[identity], measured[identity]))
    base = json.loads((ledger.root / "base.json").read_bytes())["base_model"]
    readme = README.format(base=base, rows="\n".join(rows))
    (out / "README.md").write_text(readme, encoding="utf-8")
    return rows


def _row(name: str, organism: Row, measured: Row) -> str:
    villain, reckless = measured["villain"], measured["reckless"]
    before = villain["share"] - villain["share_change"]
    cells = [
        f"`{name}`",
        f"{organism['teaches']}, {organism['steps']} steps",
        ", ".join(organism["domains"]),
        f"{villain['margin_change']:+.2f}",
        f"{before:.0%} -> {villain['share']:.0%}",
        f"{reckless['margin_change']:+.2f}",
        class_of(organism, measured),
    ]
    return f"| {' | '.join(cells)} |"
