"""CONTRIBUTING's table of rooms is the order that import-linter holds."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_table_of_rooms_is_the_contract() -> None:
    contract = (ROOT / "pyproject.toml").read_text().partition("layers = [")[2].partition("]")[0]
    layers = [re.findall(r"\w+", layer) for layer in re.findall(r'"([^"]+)"', contract)]
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`(\w+)/?`", line.split("|")[1]) for line in table.splitlines()[2:]]
    assert rows == [sorted(layer) for layer in reversed(layers)]
    assert {name for row in rows for name in row} == {
        path.stem
        for path in (ROOT / "scanner").iterdir()
        if (path / "__init__.py").is_file() or path.suffix == ".py"
    } - {"__init__", "__main__"}
