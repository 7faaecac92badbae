"""Two packs beside each other, as one self-contained HTML page: `signatures compare -f html`."""

from __future__ import annotations

from dataclasses import dataclass

from scanner.formats.model import Site, site_order
from scanner.reports.compare_words import adapters_words, directions_words, verdicts_words
from scanner.reports.drawing import Axis, Cell, Dot, HeatMap, Tick, axis_over, number, round_numbers
from scanner.reports.html_report import environment
from scanner.reports.wording import NOT_ALIGNED, percent
from scanner.results import Shape, Tool
from scanner.signatures.comparing import ComparedAdapter, PackComparison, SiteAgreement
from scanner.version import version

_SIDE = 460
_PAD = 62
_MARGIN = 12


@dataclass(frozen=True)
class Scatter:
    """Scores of the same adapters by two packs: the first across, the second up."""

    shape: Shape
    benign: list[Dot]
    references: list[Dot]
    threshold: tuple[float, float]
    """Where either flags from: across, up."""
    across: list[Tick]
    up: list[Tick]
    """`x` is their height."""
    low: float = _PAD
    high: float = _PAD + _SIDE
    bottom: float = _MARGIN + _SIDE


def render(comparison: PackComparison) -> str:
    """The page."""
    page = (
        environment()
        .get_template("compare.html.j2")
        .render(
            tool=Tool(name="adapter-scanner", version=version()),
            item=comparison,
            words=[
                words(comparison) for words in (directions_words, adapters_words, verdicts_words)
            ],
            scatters=_scatters(comparison),
            map=_map(comparison.sites),
            not_aligned=NOT_ALIGNED,
        )
    )
    return page.lstrip() + "\n"


def _scatters(comparison: PackComparison) -> list[Scatter]:
    """By shape, that of most adapters first: scores of two shapes are on two scales."""
    by_shape = {
        shape: [item for item in comparison.adapters if item.shape is shape] for shape in Shape
    }
    ordered = sorted(by_shape, key=lambda shape: -len(by_shape[shape]))
    return [
        _scatter(shape, by_shape[shape], comparison.thresholds[shape.value])
        for shape in ordered
        if by_shape[shape]
    ]


def _scatter(
    shape: Shape, adapters: list[ComparedAdapter], thresholds: tuple[float, float]
) -> Scatter:
    across = axis_over([thresholds[0], *(item.first.score for item in adapters)])
    up = axis_over([thresholds[1], *(item.second.score for item in adapters)])

    def x(score: float) -> float:
        return round(_PAD + _SIDE * (score - across.low) / (across.high - across.low), 1)

    def y(score: float) -> float:
        return round(_MARGIN + _SIDE * (up.high - score) / (up.high - up.low), 1)

    def dots(role: str) -> list[Dot]:
        return [
            Dot(x(item.first.score), y(item.second.score), _label(item))
            for item in adapters
            if item.role == role
        ]

    def ticks(axis: Axis) -> list[float]:
        return round_numbers(axis.low, axis.high)

    return Scatter(
        shape=shape,
        benign=dots("benign"),
        references=dots("misaligned"),
        threshold=(x(thresholds[0]), y(thresholds[1])),
        across=[Tick(x(score), number(score)) for score in ticks(across)],
        up=[Tick(y(score), number(score)) for score in ticks(up)],
    )


def _label(item: ComparedAdapter) -> str:
    family = f" of {item.family}" if item.family else ""
    return f"{item.role} {item.id}{family}: {item.first.score:+.3f}, {item.second.score:+.3f}"


def _map(sites: list[SiteAgreement]) -> HeatMap | None:
    """Cosines by module and layer; where one has no sign, the share of the columns in common."""
    if not sites:
        return None
    layers = sorted({site.layer for site in sites}, key=lambda x: -1 if x is None else x)
    cells = {(site.module, site.layer): _cell(site) for site in sites}
    ordered = sorted(sites, key=lambda site: site_order(Site(site.layer, site.module)))
    return HeatMap(
        layers=["-" if layer is None else str(layer) for layer in layers],
        rows=[
            (module, [cells.get((module, layer)) for layer in layers])
            for module in sorted({site.module for site in ordered})
        ],
        largest=1.0,
    )


def _cell(site: SiteAgreement) -> Cell:
    if site.cosine is None:
        words = f"{percent(site.shared_columns)} of the column space in common"
        return Cell(site.shared_columns, min(site.shared_columns, 1.0), words)
    return Cell(site.cosine, min(abs(site.cosine), 1.0), f"cosine {site.cosine:+.2f}")
