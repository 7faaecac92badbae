"""Two groups of numbers -> bars on one axis, the one above it and the other below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.reports.drawing import WIDTH, Dot, Tick, axis_over
from scanner.reports.population import quantile

_BINS = 48
_HEIGHT = 90.0
_TAIL = 0.005
"""Share at either end that may lie in the outermost bars, so that one outlier squeezes nothing."""


@dataclass(frozen=True)
class Bar:
    """One bar."""

    x: float
    width: float
    height: float
    share: float
    """Of its group."""
    start: float
    end: float
    """Values from here to there."""

    @property
    def label(self) -> str:
        """The bar in words."""
        return f"{100 * self.share:.1f}% between {_signed(self.start)} and {_signed(self.end)}"


@dataclass(frozen=True)
class Histogram:
    """Both groups, each by its own share."""

    above: list[Bar]
    below: list[Bar]
    references: list[Dot]
    ticks: list[Tick]
    marks: list[Tick]
    height: float = _HEIGHT
    width: int = WIDTH


def histogram(
    above: Sequence[float],
    below: Sequence[float],
    references: Sequence[tuple[str, float]],
    marks: Sequence[tuple[float, str]],
    bins: int = _BINS,
) -> Histogram:
    """Draws two groups; what lies beyond the axis is in its outermost bars.

    Args:
        above: The one group, sorted, at least one.
        below: The other, likewise.
        references: Names and numbers to point out.
        marks: Values to mark, with what they mean.
        bins: Bars along the axis.
    """
    inner = [quantile(group, level) for group in (above, below) for level in (_TAIL, 1 - _TAIL)]
    axis = axis_over([*inner, 0.0, *(x for _, x in references), *(x for x, _ in marks)])
    low, place = axis.low, axis.position
    step = (axis.high - low) / bins
    shares = [_shares(group, low, step, bins) for group in (above, below)]
    tallest = max(map(max, shares))

    def bars(group: list[float]) -> list[Bar]:
        return [
            Bar(
                x=place(low + index * step),
                width=round(place(low + step) - place(low), 2),
                height=round(_HEIGHT * share / tallest, 2),
                share=share,
                start=low + index * step,
                end=low + (index + 1) * step,
            )
            for index, share in enumerate(group)
            if share
        ]

    return Histogram(
        above=bars(shares[0]),
        below=bars(shares[1]),
        references=[Dot(place(x), 0.0, f"{name}, {_signed(x)}") for name, x in references],
        ticks=axis.ticks(),
        marks=[Tick(place(x), label) for x, label in marks],
    )


def _shares(group: Sequence[float], low: float, step: float, bins: int) -> list[float]:
    counts = [0] * bins
    for value in group:
        counts[min(max(int((value - low) // step), 0), bins - 1)] += 1
    return [count / len(group) for count in counts]


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")
