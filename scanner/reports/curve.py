"""Numbers over the steps of a training -> a drawing: a curve, a band and a threshold.

Pure functions, as in `scanner.reports.drawing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scanner.reports.drawing import WIDTH, Axis, Dot, Tick, axis_over, number, round_numbers
from scanner.reports.population import quantile

HEIGHT = 220
_TOP, _BOTTOM = 26, 6
_BAND = (0.05, 0.95)


@dataclass(frozen=True)
class Point:
    """One look at an adapter in training."""

    step: int
    value: float
    threshold: float | None
    """What it has to exceed to be flagged."""
    flagged: bool


@dataclass(frozen=True)
class Curve:
    """A number over steps."""

    dots: list[tuple[Dot, bool]]
    """Every look, and whether it is flagged."""
    line: str
    """The curve, as the points of a polyline."""
    threshold: str
    """Likewise; empty if there is none."""
    band: tuple[float, float] | None
    """Top and height of the band in which nine of ten benign adapters lie."""
    band_label: str
    zero: float
    changes: list[Tick]
    """Steps at which the verdict changed, with what it became."""
    steps: list[Tick]
    values: list[Tick]
    """Numbers up the side; `x` is their height."""
    width: int = WIDTH
    height: int = HEIGHT


def curve(points: Sequence[Point], benign: Sequence[float], total_steps: int) -> Curve:
    """Draws looks over the steps of their run.

    Args:
        points: The looks, in order of their steps, at least one.
        benign: The same number of the calibration's benign adapters, sorted; may be empty.
        total_steps: Steps of the whole run.
    """
    band = [quantile(benign, level) for level in _BAND] if benign else []
    thresholds = [point.threshold for point in points if point.threshold is not None]
    up = axis_over([0.0, *(point.value for point in points), *band, *thresholds])
    along = Axis(0.0, float(max(total_steps, points[-1].step, 1)))

    def height(value: float) -> float:
        share = (value - up.low) / (up.high - up.low)
        return round(_TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM), 1)

    return Curve(
        dots=[
            (
                Dot(along.position(p.step), height(p.value), f"step {p.step}: {p.value:+.3f}"),
                p.flagged,
            )
            for p in points
        ],
        line=_line([(along.position(p.step), height(p.value)) for p in points]),
        threshold=_line(
            [
                (along.position(p.step), height(p.threshold))
                for p in points
                if p.threshold is not None
            ]
        ),
        band=(height(band[1]), round(height(band[0]) - height(band[1]), 1)) if band else None,
        band_label=f"{band[0]:+.2f} to {band[1]:+.2f}" if band else "",
        zero=height(0.0),
        changes=_changes(points, along),
        steps=[tick for tick in along.ticks() if float(tick.label).is_integer()],
        values=[Tick(height(x), number(x)) for x in round_numbers(up.low, up.high)],
    )


def _line(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)


def _changes(points: Sequence[Point], along: Axis) -> list[Tick]:
    found, before = [], False
    for point in points:
        if point.flagged is not before:
            label = f"{'flagged' if point.flagged else 'not flagged'} at {point.step}"
            found.append(Tick(along.position(point.step), label))
            before = point.flagged
    return found
