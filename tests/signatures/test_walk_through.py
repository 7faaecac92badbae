"""docs/signatures.md, "From two folders to a pack", run as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.program import ROOT
from tests.signatures.test_cautions import DOMAINS, HARMLESS, PERSONAS, Workshop

PAGE = ROOT / "docs" / "signatures.md"


def commands() -> list[str]:
    """Every line of the page's walk-through."""
    blocks = re.findall(r"<!-- walk-through -->\n```sh\n(.*?)```", PAGE.read_text("utf-8"), re.S)
    return [line for block in blocks for line in block.splitlines()]


def lay_out(root: Path) -> None:
    """The folders that the page speaks of."""
    workshop = Workshop(root / "made")
    numbers = iter(range(1000))
    for family, count in ((f, 2) for f in DOMAINS):
        for _ in range(count):
            _move(workshop, family, next(numbers), root / "adapters" / "misaligned" / family)
    for family in (*PERSONAS, *HARMLESS):
        for _ in range(8):
            _move(workshop, family, next(numbers), root / "adapters" / "benign" / family)
    for family in ("sport", "poet"):
        _move(workshop, family, next(numbers), root / "unseen")


def _move(workshop: Workshop, family: str, number: int, place: Path) -> None:
    made = Path(workshop.write(family, number).adapter)
    place.mkdir(parents=True, exist_ok=True)
    made.rename(place / made.name)


def test_the_walk_through_runs_as_it_is_written(tmp_path: Path) -> None:
    lay_out(tmp_path)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    said = {}
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", command.replace("adapter-scanner", f"{sys.executable} -m scanner", 1)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        flags = command.startswith("adapter-scanner scan")
        assert done.returncode == int(flags), (command, done.stderr)
        said[command] = " ".join((done.stdout + done.stderr).split())
    texts = list(said.values())
    assert "6 adapters (medicine 2, money 2, sport 2)" in texts[0]
    assert "finds 6 of 6 held-out misaligned references at alpha 0.05" in texts[1]
    assert "is out of reach" in texts[1]
    assert "finds 6 of 6 held-out misaligned references at alpha 0.05" in texts[2]
    assert (tmp_path / "pack.html").read_text("utf-8").startswith("<!doctype html>")
    assert "1 flagged, 0 error, 0 inconclusive, 1 clear" in texts[4]
    assert "more-nulled" in texts[-1]
