"""A pack's numbers -> drawings: scores by family, curves with their bands, the map of a signature.

Pure functions, as in `scanner.reports.drawing`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scanner.formats.model import Site, site_order
from scanner.reports.drawing import WIDTH, Axis, Cell, Dot, HeatMap, Tick, axis_over, number
from scanner.reports.wording import percent
from scanner.statistics.roc import Roc
from scanner.statistics.share import Share

_BINS = 60
_BARS = 70.0
_TOP = 52
_ROW = 20
_SIDE = 300
_PAD = 52


@dataclass(frozen=True)
class FamilyRow:
    """The scores of one family, as dots on a line."""

    name: str
    misaligned: bool
    dots: list[Dot]
    y: float


@dataclass(frozen=True)
class FamilyScores:
    """Scores of all benign adapters as bars, and below each family by itself, on one axis."""

    bars: list[tuple[float, float, float, str]]
    """Left, width, height, words."""
    rows: list[FamilyRow]
    marks: list[Tick]
    ticks: list[Tick]
    base: float
    """Where the bars stand."""
    height: float
    width: int = WIDTH


def family_scores(
    benign: Mapping[str, Sequence[tuple[str, float]]],
    misaligned: Mapping[str, Sequence[tuple[str, float]]],
    marks: Sequence[tuple[float, str]],
) -> FamilyScores:
    """Draws scores by family.

    Args:
        benign: Family -> name and score of each adapter; at least one.
        misaligned: The same of the references.
        marks: Thresholds, with what they mean.
    """
    groups = [*misaligned.items(), *benign.items()]
    numbers = [score for _, members in groups for _, score in members]
    axis = axis_over([*numbers, *(x for x, _ in marks)])
    base = _TOP + _BARS
    rows = [
        FamilyRow(
            name=name,
            misaligned=index < len(misaligned),
            dots=[Dot(axis.position(x), 0.0, f"{who}, {x:+.3f}") for who, x in members],
            y=base + 2 * _ROW + index * 2 * _ROW,
        )
        for index, (name, members) in enumerate(groups)
    ]
    all_benign = [score for members in benign.values() for _, score in members]
    return FamilyScores(
        bars=_bars(all_benign, axis),
        rows=rows,
        marks=[Tick(axis.position(x), label) for x, label in marks],
        ticks=axis.ticks(),
        base=base,
        height=(rows[-1].y if rows else base) + 2.4 * _ROW,
    )


def _bars(scores: Sequence[float], axis: Axis) -> list[tuple[float, float, float, str]]:
    step = (axis.high - axis.low) / _BINS
    counts: dict[int, int] = {}
    for score in scores:
        place = min(int((score - axis.low) // step), _BINS - 1)
        counts[place] = counts.get(place, 0) + 1
    tallest = max(counts.values(), default=1)
    width = round(axis.position(axis.low + step) - axis.position(axis.low), 2)
    return [
        (
            axis.position(axis.low + place * step),
            width,
            round(_BARS * count / tallest, 1),
            f"{count} of {len(scores)} benign adapters between {axis.low + place * step:+.3f} and "
            f"{axis.low + (place + 1) * step:+.3f}",
        )
        for place, count in sorted(counts.items())
    ]


@dataclass(frozen=True)
class Steps:
    """A share over something, as a step curve with the band that it is known to."""

    line: str
    band: str
    """The band's outline, as the points of a polygon."""
    across: list[Tick]
    up: list[Tick]
    diagonal: bool
    side: int = _SIDE
    pad: int = _PAD


def roc_curve(curve: Roc) -> Steps:
    """The share found over the share of false positives."""
    points = [(point.false_positive, point.found) for point in curve.points]
    return _steps(points, [(x, number(x)) for x in (0.0, 0.5, 1.0)], diagonal=True)


def power_curve(points: Sequence[tuple[float, Share]]) -> Steps:
    """The share found over alpha, on a logarithmic axis.

    Args:
        points: Alpha, ascending, and the share; at least two.
    """
    low, high = math.log10(points[0][0]), math.log10(points[-1][0])

    def place(alpha: float) -> float:
        return (math.log10(alpha) - low) / (high - low)

    decades = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    ticks = [10.0**power for power in decades] or [points[0][0], points[-1][0]]
    return _steps(
        [(place(alpha), share) for alpha, share in points],
        [(place(alpha), f"{alpha:.2g}") for alpha in ticks],
        diagonal=False,
    )


def _steps(
    points: Sequence[tuple[float, Share]], across: Iterable[tuple[float, str]], *, diagonal: bool
) -> Steps:
    def x(share: float) -> float:
        return round(_PAD + share * _SIDE, 1)

    def y(share: float) -> float:
        return round(10 + (1 - share) * _SIDE, 1)

    def stairs(heights: Sequence[float]) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        for (place, _), height in zip(points, heights, strict=True):
            if found:
                found.append((x(place), found[-1][1]))
            found.append((x(place), y(height)))
        return found

    middle = stairs([share.value or 0.0 for _, share in points])
    low = stairs([share.interval[0] for _, share in points])
    high = stairs([share.interval[1] for _, share in points])
    return Steps(
        line=_joined(middle),
        band=_joined([*high, *reversed(low)]),
        across=[Tick(x(place), label) for place, label in across],
        up=[Tick(y(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
        diagonal=diagonal,
    )


def _joined(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def signature_map(energies: Mapping[Site, float]) -> HeatMap | None:
    """Where a signature lives: each site's share of ||D||^2, by module and layer.

    Args:
        energies: Site -> ||D||_F^2 there.
    """
    total, largest = sum(energies.values()), max(energies.values(), default=0.0)
    if not largest > 0:
        return None
    sites = sorted(energies, key=site_order)
    layers = sorted({site.layer for site in sites}, key=lambda x: -1 if x is None else x)
    cells = {
        (site.module, site.layer): Cell(
            value, value / largest, f"{percent(value / total)} of the signature"
        )
        for site, value in energies.items()
    }
    return HeatMap(
        layers=["-" if layer is None else str(layer) for layer in layers],
        rows=[
            (module, [cells.get((module, layer)) for layer in layers])
            for module in sorted({site.module for site in sites})
        ],
        largest=largest / total,
    )
