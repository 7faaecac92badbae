"""What a choice does to attacks on adapters that nothing is tested on, and to benign adapters.

    python -m benchmarks.redteam.choices --base llama --lab LAB

shows what is kept of adapters for development (`benchmarks.redteam.development`) by the best
variant that scans `clear`:

- by the margin of the strongest site (`scanner.signatures.combination.STRONGEST_MARGIN`); what
  margins do to references is shown by `benchmarks.detection.real.margin`;
- by how many of the largest surprises support adds up (`scanner.detection.support.COUNTED`), beside
  the share of benign adapters that it sends to `inconclusive`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import torch

from benchmarks.detection.tables import number, table
from benchmarks.organisms.bases import base_names
from benchmarks.redteam import price
from benchmarks.redteam.development import ALL, COUNTS, Part, Tried, tries
from benchmarks.redteam.target import PACKS, Target
from scanner.detection.support import COUNTED, benign_in_common
from scanner.geometry import Matrix
from scanner.results import Shape
from scanner.signatures.combination import STRONGEST_MARGIN, combined_score
from scanner.signatures.manifest import BenignScore
from scanner.signatures.numbers import Measured, ScoreScale
from scanner.signatures.pack import Signature
from scanner.statistics.calibration import BenignScores

MARGINS = (math.inf, 4.0, 3.0, 2.0, 1.0)
ALPHA = 0.01
KEPT = 0.1
"""Attacks that keep at most this whatever is chosen are not shown."""


@dataclass(frozen=True)
class Rule:
    """What scans `clear` by a base's packs.

    Args:
        packs: The packs.
        margin: The margin of the strongest site; infinity if it is not to count.
        counted: How many of the largest surprises support adds up; one of `COUNTS`.
    """

    packs: Sequence[Signature]
    margin: float = STRONGEST_MARGIN
    counted: int = COUNTED

    @cached_property
    def _common(self) -> list[tuple[BenignScore, ...]]:
        return benign_in_common(self.packs)

    @cached_property
    def _shapes(self) -> tuple[Shape, ...]:
        return tuple(Shape.of(max(item.layers for item in row)) for row in self._common)

    def _scores(self, shape: Shape, adapters: Iterable[Sequence[Measured | None]]) -> Matrix:
        """(n, packs): scores of adapters of one shape, NaN under a pack that sees nothing."""
        scales = [pack.score_scales.get(shape.value) for pack in self.packs]
        rows = [
            [
                math.nan if item is None else self._score(item, scale)
                for item, scale in zip(row, scales, strict=True)
            ]
            for row in adapters
        ]
        return np.array(rows)

    def _score(self, measured: Measured, scale: ScoreScale | None) -> float:
        return combined_score(measured, scale, strongest_margin=self.margin)

    @cached_property
    def _known(self) -> BenignScores:
        rows = [
            self._scores(shape, [row])[0]
            for row, shape in zip(self._common, self._shapes, strict=True)
        ]
        return BenignScores(
            np.array(rows), self._shapes, tuple(row[0].family for row in self._common)
        )

    def clears(self, part: Part) -> bool:
        """Whether an adapter scans `clear`."""
        if not (part.covered and part.inside[self.counted]):
            return False
        (scores,) = self._scores(part.shape, [part.measured])
        return self._known.compare(scores, part.shape, ALPHA).p_value > ALPHA


def kept_rows(rules: Sequence[Rule], tried: Sequence[Tried]) -> list[list[str]]:
    """One row for each attack: what the best variant that scans `clear` keeps, by rule."""
    rows = []
    for name in dict.fromkeys(item.attack for item in tried):
        own = [item for item in tried if item.attack == name]
        kept = [
            max((item.kept for item in own if all(map(rule.clears, item.parts))), default=0.0)
            for rule in rules
        ]
        if max(kept) > KEPT:
            rows.append([name, *(number(value, 2) for value in kept)])
    return rows


@click.command()
@click.option("--base", "names", multiple=True, type=click.Choice(base_names()))
@click.option(
    "--lab",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/organisms"),
    show_default=True,
    help="Where the organism lab keeps its populations; what is missing is made.",
)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/redteam"),
    show_default=True,
)
def main(names: tuple[str, ...], lab: Path, cache: Path) -> None:
    """Print what the attacks keep, by margin and by the number of surprises."""
    torch.set_num_threads(1)
    for name in names or tuple(base_names()):
        tried = tries(name, lab, cache)
        packs = Target(name).packs
        click.echo(f"\n{name}: kept by the best that scans clear, by margin\n")
        rules = [Rule(packs, margin=margin) for margin in MARGINS]
        shown = ["no" if math.isinf(margin) else f"{margin:g}" for margin in MARGINS]
        click.echo(table(["attack", *shown], kept_rows(rules, tried)))
        click.echo(f"\n{name}: the same, by how many surprises are added up\n")
        rules = [Rule(packs, counted=count) for count in COUNTS]
        shown = ["all" if count == ALL else str(count) for count in COUNTS]
        click.echo(table(["", *shown], [*kept_rows(rules, tried), *_prices(name)]))


def _prices(name: str) -> list[list[str]]:
    """Benign adapters outside the support, by the number of surprises."""
    found = [price.of_base(name, PACKS, count) for count in COUNTS]
    return [
        [f"*benign adapters outside, {whose}*", *(f"{item.share(unseen):.1%}" for item in found)]
        for unseen, whose in ((False, "known families"), (True, "unseen families"))
    ]


if __name__ == "__main__":
    main()
