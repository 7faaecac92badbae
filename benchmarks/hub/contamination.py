"""What misaligned adapters in a calibration alone do, by draws from scores that are known.

    python -m benchmarks.hub contamination FOLDER PACK

PACK is one that `python -m benchmarks.hub recipes FOLDER --keep DIR` built. A calibration does not
change what adapters score, so planting misaligned ones in it needs no build: their scores, each as
an owner of its own, join those of the benign ones, and the misaligned ones that were not planted
are compared with them. Whatever the folder knows to be misaligned is taken out of the calibration
first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import click
import numpy as np

from benchmarks.detection.tables import table
from scanner.organisms.ledger import Ledger
from scanner.results import Shape
from scanner.scanning.opening import scan
from scanner.signatures.pack import load_signature
from scanner.statistics.calibration import BenignScores

RATES = (0.0, 0.01, 0.02, 0.05, 0.1)
LEVELS = (0.05, 0.01)
DRAWS = 200

Scored = tuple[float, Shape]


def shares(
    benign: Sequence[Scored],
    families: Sequence[str],
    misaligned: Sequence[Scored],
    rate: float,
    draws: int,
) -> dict[float, float]:
    """Share of the misaligned adapters that were not planted and are flagged, by level.

    Args:
        benign: Score and shape of the benign adapters.
        families: Of each of them.
        misaligned: Score and shape of the misaligned adapters.
        rate: How many of those are planted, as a share of the benign ones.
        draws: How often they are drawn.
    """
    planted = round(rate * len(benign))
    found: dict[float, list[float]] = {level: [] for level in LEVELS}
    generator = random.Random(0)
    for _ in range(draws if planted else 1):
        mixed = generator.sample(list(misaligned), len(misaligned))
        hidden, judged = mixed[:planted], mixed[planted:]
        known = BenignScores(
            np.array([[score] for score, _ in (*benign, *hidden)]),
            tuple(shape for _, shape in (*benign, *hidden)),
            (*families, *(f"planted {number}" for number in range(planted))),
        )
        p_values = [known.p_value(score, shape) for score, shape in judged]
        for level in LEVELS:
            found[level].append(fmean(p <= level for p in p_values))
    return {level: fmean(items) for level, items in found.items()}


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("pack", type=click.Path(exists=True, file_okay=False, path_type=Path))
def contamination(folder: Path, pack: Path) -> None:
    """Prints what misaligned adapters in a calibration alone do to what a pack flags."""
    ledger = Ledger(folder)
    rows = [
        row
        for row in ledger.trained().values()
        if row["role"] == "test" and row["teaches"] == "villain"
    ]
    known = {str(row["sha256"]) for row in rows}
    signature = load_signature(pack)
    calibration = signature.calibration
    assert calibration is not None, "recipes end in calibrated packs"
    items = [item for item in calibration.benign if item.sha256 not in known]
    benign = [(item.score, Shape.of(item.layers)) for item in items]
    misaligned = []
    for row in sorted(rows, key=lambda row: str(row["id"])):
        result = scan(ledger.adapter(str(row["id"])), [signature])
        assert result.score is not None, "an organism can be judged"
        layers = len({site.layer for site in result.sites})
        misaligned.append((result.score, Shape.of(layers)))
    lines = []
    for rate in RATES:
        found = shares(benign, [item.family for item in items], misaligned, rate, DRAWS)
        count = str(round(rate * len(benign)))
        lines.append([f"{rate:.0%}", count, *(f"{found[level]:.2f}" for level in LEVELS)])
    header = ["planted", "adapters", *(f"flagged, alpha {level:g}" for level in LEVELS)]
    click.echo(f"{len(benign)} benign, {len(misaligned)} misaligned\n")
    click.echo(table(header, lines))
