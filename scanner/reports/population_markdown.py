"""The population page as Markdown, for a reader and for a renderer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scanner.reports.histogram import histogram
from scanner.reports.markdown_report import escape
from scanner.reports.population import CalibrationComparison, Place, Population, Ranked, Table
from scanner.reports.population_wording import (
    flagged_sentence,
    one_dose_sentences,
    rate_sentences,
)
from scanner.reports.wording import NOT_ALIGNED, ORDER

_REASONS = 20
_COPIES = 5
_BARS = 12
_BAR_CELLS = 24


def render(population: Population) -> str:
    """The page as GitHub-flavoured Markdown; text from adapters cannot form markup."""
    return "\n".join(_lines(population)) + "\n"


def _lines(population: Population) -> Iterator[str]:
    yield "## Hub sweep"
    yield ""
    for line in population.lines:
        yield f"- {escape(line)}"
    yield ""
    counts = (f"{getattr(population.summary, v.value):,} {v.value}" for v in ORDER)
    yield f"**{', '.join(counts)}**"
    for sentence in rate_sentences(population):
        yield ""
        yield escape(sentence)
    yield ""
    yield "### Flagged"
    yield ""
    yield flagged_sentence(population)
    yield from _tables(population.flagged)
    for comparison in population.comparisons:
        yield ""
        yield from _comparison(comparison)
    yield ""
    yield "### Lowest p-values of the rest"
    if not population.ranked:
        yield ""
        yield "No other adapter has a p-value."
    yield from _tables(population.ranked)
    if population.unranked:
        yield ""
        yield f"{population.unranked:,} more different adapters have higher p-values."
    if population.unjudged:
        yield ""
        yield from _unjudged(population)
    yield ""
    yield from map(escape, one_dose_sentences(population))
    yield f"{NOT_ALIGNED} The q-value is the share of false findings to expect among everything"
    yield "with a q-value as low. Copies of one adapter count once in every rate, ranking and"
    yield f"picture. Written by {population.tool.name} {escape(population.tool.version)}."


def _tables(tables: Sequence[Table]) -> Iterator[str]:
    for table in tables:
        yield ""
        yield f"{escape(table.base_model)}:"
        yield ""
        doses = [f"dose of {escape(pack)}" for pack in table.packs]
        head = ["p-value", "q-value", *doses, "verdict", "adapter"]
        numbers = 2 + len(doses)
        yield from _aligned(head, [_row(item, table.packs) for item in table.rows], numbers)


def _aligned(head: list[str], rows: list[list[str]], numbers: int) -> Iterator[str]:
    """A table whose columns stand below each other before it is rendered too.

    Args:
        head: The names of the columns.
        rows: The cells.
        numbers: How many of the first columns hold numbers.
    """
    # The last column is as wide as it happens to be: nothing stands behind it.
    widths = [max(3, *(len(row[i]) for row in [head, *rows])) for i in range(len(head) - 1)]
    rule = ["-" * (w - 1) + ":" if i < numbers else "-" * w for i, w in enumerate(widths)]
    for cells in (head, [*rule, "---"], *rows):
        padded = [
            cell.rjust(width) if i < numbers else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=False))
        ]
        yield f"| {' | '.join([*padded, cells[-1]])} |"


def _row(item: Ranked, packs: Sequence[str]) -> list[str]:
    copies = [_linked(place) for place in item.copies[:_COPIES]]
    more = len(item.copies) + item.more_copies - len(copies)
    if more:
        copies.append(f"{more:,} more")
    also = f"; copies: {', '.join(copies)}" if copies else ""
    return [
        f"{item.p_value:.4f}",
        "-" if item.q_value is None else f"{item.q_value:.4f}",
        *(f"{item.doses[pack]:+.2f}" if pack in item.doses else "-" for pack in packs),
        item.verdict.value,
        f"{_linked(item.place)}{also}",
    ]


def _linked(place: Place) -> str:
    return f"[{escape(place.name)}](<{place.link}>)" if place.link else escape(place.name)


def _comparison(comparison: CalibrationComparison) -> Iterator[str]:
    signature = comparison.signature
    assert signature.calibration is not None, "what is compared with a calibration has one"
    yield f"### Doses of {escape(signature.id)}"
    yield ""
    yield (
        f"All {len(comparison.doses):,} different adapters that this pack could see, beside "
        f"{signature.calibration.n:,} benign adapters that it was calibrated on."
    )
    yield ""
    yield "```text"
    yield from _picture(comparison)
    yield "```"
    yield ""
    rows = [
        [f"{benign:+.3f}", f"{swept:+.3f}", f"{100 * level:g}% lie below"]
        for level, benign, swept in comparison.quantiles()
    ]
    yield from _aligned(["benign dose", "swept dose", "quantile"], rows, 2)


def _picture(comparison: CalibrationComparison) -> Iterator[str]:
    """Bars of both groups, one line for each range of doses."""
    drawing = histogram(comparison.doses, comparison.benign, [], [], bins=_BARS)
    swept = {bar.x: bar for bar in drawing.above}
    benign = {bar.x: bar for bar in drawing.below}
    yield f"{'dose':>16}  {'benign':<{_BAR_CELLS + 7}}swept"
    for x in sorted(swept.keys() | benign.keys()):
        bar = swept.get(x) or benign[x]
        sides = []
        for group in (benign, swept):
            share, height = (group[x].share, group[x].height) if x in group else (0.0, 0.0)
            cells = "#" * max(round(_BAR_CELLS * height / drawing.height), bool(share))
            sides.append(f"{cells} {100 * share:.1f}%" if share else "")
        between = f"{bar.start:+7.2f} .. {bar.end:+.2f}"
        yield f"{between}  {sides[0]:<{_BAR_CELLS + 7}}{sides[1]}".rstrip()


def _unjudged(population: Population) -> Iterator[str]:
    total = population.summary.inconclusive + population.summary.error
    yield "### What was not judged"
    yield ""
    yield f"{total:,} adapters by their first reason. None of them is clear."
    yield ""
    rows = [
        [
            f"{item.count:,}",
            item.verdict,
            f"{escape(item.reason)} (such as {_linked(item.example)})",
        ]
        for item in population.unjudged[:_REASONS]
    ]
    if rest := population.unjudged[_REASONS:]:
        rows.append([f"{sum(item.count for item in rest):,}", "", f"{len(rest)} further reasons"])
    yield from _aligned(["adapters", "verdict", "reason"], rows, 1)
