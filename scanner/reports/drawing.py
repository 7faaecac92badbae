"""Numbers -> positions: scales with a cloud of benign adapters, and heat maps.

Pure functions; what a page does with the positions is its template's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scanner.results import SiteResult

WIDTH = 760
"""Width of a drawing in its own units; a page scales it."""
_MARGIN = 16
_DOT = 5.0
_DIAMOND = 12.0
CLOUD_HEIGHT = 56
_NO_SPAN = 1e-9
"""Numbers that differ by less than this are drawn at one place."""
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 6
_LABEL = 215
"""Room the adapter's own label takes beside its dot, at the larger size of a small screen."""


@dataclass(frozen=True)
class Dot:
    """One adapter in a drawing."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Tick:
    """A number on an axis."""

    x: float
    label: str


@dataclass(frozen=True)
class Axis:
    """Numbers from `low` to `high` over the width of a drawing."""

    low: float
    high: float

    def position(self, number: float) -> float:
        """Place of a number on the axis, in pixels."""
        share = (number - self.low) / (self.high - self.low)
        return round(_MARGIN + share * (WIDTH - 2 * _MARGIN), 1)

    def ticks(self) -> list[Tick]:
        """Round numbers along the axis."""
        return [Tick(self.position(x), number(x)) for x in round_numbers(self.low, self.high)]


def axis_over(numbers: Sequence[float]) -> Axis:
    """An axis that holds some numbers, with a little room at both ends."""
    low, high = min(numbers), max(numbers)
    span = high - low
    if span <= _NO_SPAN * max(1.0, abs(low), abs(high)):
        span = 1.0
    return Axis(low - 0.03 * span, high + 0.03 * span)


@dataclass(frozen=True)
class Scale:
    """One adapter among benign adapters and misaligned references."""

    benign: list[Dot]
    references: list[Dot]
    adapter: Dot
    ticks: list[Tick]
    marks: list[Tick]
    """Values with a meaning: the reference dose, the threshold."""
    label_left: bool = False
    """Whether the adapter's label stands to the left of its dot."""
    width: int = WIDTH


def scale(
    value: float,
    benign: Sequence[float],
    references: Sequence[tuple[str, float]],
    marks: Sequence[tuple[float, str]],
) -> Scale:
    """Places an adapter on an axis that also holds everything it is compared with.

    Args:
        value: The adapter's number.
        benign: Those of the benign adapters, sorted.
        references: Names and numbers of the misaligned references.
        marks: Values to mark, with what they mean.
    """
    axis = axis_over([value, 0.0, *benign, *(x for _, x in references), *(x for x, _ in marks)])
    position = axis.position
    meant = [Tick(position(x), label) for x, label in marks]
    return Scale(
        benign=_swarm([(position(x), f"benign adapter, {_signed(x)}") for x in benign], _DOT),
        references=_swarm(
            [(position(x), f"misaligned reference {name}, {_signed(x)}") for name, x in references],
            _DIAMOND,
        ),
        adapter=Dot(position(value), 0.0, _signed(value)),
        ticks=axis.ticks(),
        marks=meant,
        label_left=_label_left(position(value), [mark.x for mark in meant]),
    )


def _label_left(x: float, marks: Sequence[float]) -> bool:
    """Whether a label beside a dot is better on its left: no line through it, all of it shown."""

    def faults(start: float, end: float) -> tuple[bool, int]:
        return not 0 <= start <= end <= WIDTH, sum(start < mark < end for mark in marks)

    return faults(x - _LABEL, x) < faults(x, x + _LABEL)


def number(value: float) -> str:
    """A number on an axis."""
    return f"{value:g}".replace("-", "\u2212")


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def round_numbers(low: float, high: float) -> list[float]:
    """About `_TICKS` round numbers in a range."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * s for s in _STEPS if power * s >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _swarm(points: Sequence[tuple[float, str]], size: float) -> list[Dot]:
    """Piles dots that would hide each other into columns as wide as a dot.

    The highest pile is squeezed to the cloud's height.
    """
    piles: dict[int, int] = {}
    placed = []
    for x, label in points:
        column = round(x / size)
        level = piles.get(column, 0)
        piles[column] = level + 1
        placed.append((column * size, level, label))
    step = min(size, (CLOUD_HEIGHT - size) / max(max(piles.values(), default=1) - 1, 1))
    return [Dot(round(x, 1), round(level * step, 1), label) for x, level, label in placed]


@dataclass(frozen=True)
class Cell:
    """The number at one site."""

    number: float
    strength: float
    """|number| as a share of the largest of the scale, in [0, 1]."""
    words: str
    """The number in words, for those who do not see the colour."""


@dataclass(frozen=True)
class HeatMap:
    """Numbers by module (rows) and layer (columns); None where there is none."""

    layers: list[str]
    rows: list[tuple[str, list[Cell | None]]]
    largest: float
    """|number| that is shown at full strength."""


def largest_dose(sites: Iterable[SiteResult]) -> float:
    """The largest |dose| at a site; 0 if there is none."""
    return max((abs(site.dose) for site in sites), default=0.0)


def heat_map(sites: Sequence[SiteResult], largest: float) -> HeatMap | None:
    """The heat map of an adapter's sites; sites outside the blocks stand in a column "-".

    Args:
        sites: The sites.
        largest: |dose| at full strength: the `largest_dose` of everything that a reader may
            compare with this map.
    """
    if not sites:
        return None
    layers = sorted({site.layer for site in sites}, key=lambda x: -1 if x is None else x)
    modules = list(dict.fromkeys(site.module for site in sites))
    cells = {
        (site.module, site.layer): Cell(
            site.dose, abs(site.dose) / largest if largest else 0.0, f"dose {site.dose:+.4f}"
        )
        for site in sites
    }
    return HeatMap(
        layers=["-" if layer is None else str(layer) for layer in layers],
        rows=[(module, [cells.get((module, layer)) for layer in layers]) for module in modules],
        largest=largest,
    )
