"""Statistics compared without a single misaligned adapter: each harmless persona as the target.

    python -m benchmarks.detection.proxies --base llama

How to read a signature is a choice that neither the test split nor the few references should
decide. Harmless personas are as broad a change as the misaligned one and there are many adapters
of each: a `weights` signature is made of some of a persona's calibration adapters, and its
others, of every method, are to be told from those of the other personas and of plain changes.
Nothing here is a result about misalignment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.detection.data import Population, Row, Updates, find_populations
from benchmarks.detection.measuring import as_cosine
from benchmarks.detection.metrics import threshold_at_fpr
from benchmarks.detection.options import BASES, LAB
from scanner import geometry
from scanner.cli.progress import Progress
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank, SiteProjection
from scanner.results import Shape
from scanner.signatures.building.nulling import stack_updates
from scanner.signatures.building.scoring import Track
from scanner.signatures.building.weights import WeightsExtraction
from scanner.signatures.score import signed_write_score

NULLED = 2
RANK = 1
FPR = 0.01
BROAD, SINGLE = "cal-persona-broad", "cal-persona-single"
"""Groups of the population that targets' signatures are made of: all of one, half of the other."""

Projections = Mapping[Site, SiteProjection]


def whole_cosines(projections: Projections) -> float:
    """Liptak-Stouffer sum of the sites' cosines <dW, D> / (||dW|| ||D||), weights ||D||^2."""
    return geometry.site_score(as_cosine(item) for item in projections.values())


STATISTICS: Mapping[str, Callable[[Projections], float]] = {
    "whole cosines, added up": whole_cosines,
    "signed writes, added up": lambda projections: geometry.site_score(projections.values()),
    "signed writes, strongest of one layer": signed_write_score,
}


@dataclass(frozen=True)
class Found:
    """How many of a method's adapters a statistic puts above the threshold of its shape."""

    above: int
    of: int


def group_of(row: Row) -> str:
    """The group of the population's declaration that an adapter belongs to."""
    return row.id.rsplit("-", 1)[0]


def references_of(rows: Sequence[Row], persona: str) -> list[Row]:
    """The adapters that a persona's signature is made of."""
    own = [row for row in rows if row.family == persona]
    single = [row for row in own if group_of(row) == SINGLE]
    return [row for row in own if group_of(row) == BROAD] + single[::2]


def directions(
    references: Sequence[tuple[Row, Updates]], nulling: Sequence[tuple[Row, Updates]]
) -> dict[Site, Direction]:
    """A plain `weights` signature: mean unit updates, benign-nulled, no contrast."""
    extraction = WeightsExtraction([], frozenset())
    found = {}
    for site in sorted({site for _, updates in references for site in updates}):
        there = _at(references, site, lambda row: f"domain-{row.domains[0]}")
        benign = _at(nulling, site, lambda row: row.family)
        raw = extraction.raw_site(site, there, benign)
        if raw is not None:
            common = stack_updates(benign, raw.shape[0]).common_directions(NULLED)
            found[site] = raw.direction(common, RANK)
    return {site: direction for site, direction in found.items() if direction.norm_squared > 0}


def _at(
    adapters: Sequence[tuple[Row, Updates]], site: Site, label: Callable[[Row], str]
) -> list[tuple[LowRank, str]]:
    return [(updates[site], label(row)) for row, updates in adapters if site in updates]


def compare(population: Population, track: Track[Row]) -> dict[str, dict[str, Found]]:
    """Method of the target's adapters -> statistic -> what it finds, over all personas."""
    calibration = population.select("calibration", "benign")
    read = {
        row.id: population.read(row)
        for row in track(
            [*calibration, *population.select("nulling", "benign")],
            f"{population.name}: reading adapters",
        )
    }
    counts: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for persona in population.harmless_families:
        references = references_of(calibration, persona)
        others = [r for r in population.select("nulling", "benign") if r.family != persona]
        signature = directions(
            [(row, read[row.id]) for row in references], [(row, read[row.id]) for row in others]
        )
        rest = [row for row in calibration if row not in references]
        _count(counts, persona, rest, {row.id: _project(read[row.id], signature) for row in rest})
    return {
        method: {name: Found(sum(hits), len(hits)) for name, hits in by_statistic.items()}
        for method, by_statistic in sorted(counts.items())
    }


def _project(updates: Updates, signature: Mapping[Site, Direction]) -> Projections:
    return {
        site: geometry.project(update, signature[site])
        for site, update in updates.items()
        if site in signature
    }


def _count(
    counts: dict[str, dict[str, list[bool]]],
    persona: str,
    rows: Sequence[Row],
    projected: Mapping[str, Projections],
) -> None:
    for name, statistic in STATISTICS.items():
        scores = {row.id: statistic(projected[row.id]) for row in rows if projected[row.id]}
        for shape in Shape:
            alike = [row for row in rows if row.shape is shape and row.id in scores]
            benign = np.array([scores[row.id] for row in alike if row.family != persona])
            threshold = threshold_at_fpr(benign, FPR)
            for row in alike:
                if row.family == persona:
                    counts[row.method][name].append(scores[row.id] > threshold)


@click.command()
@BASES
@LAB
def main(names: tuple[str, ...], lab: Path) -> None:
    """Share of each persona's adapters above 1% of all others of their shape, by statistic."""
    for population in find_populations(lab, names):
        click.echo(f"\n{population.name}: {', '.join(STATISTICS)}")
        for method, found in compare(population, Progress()).items():
            shares = "  ".join(f"{item.above / item.of:.2f}" for item in found.values())
            click.echo(f"{method:10} {shares}  of {next(iter(found.values())).of}")


if __name__ == "__main__":
    main()
