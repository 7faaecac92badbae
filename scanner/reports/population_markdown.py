"""The population page as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.reports.markdown_report import escape
from scanner.reports.population import CalibrationComparison, Population, Ranked
from scanner.reports.wording import NOT_ALIGNED, ORDER, OVERLAP_WORDS, percent

_REASONS = 20


def render(population: Population) -> str:
    """The page as GitHub-flavoured Markdown; text from adapters cannot form markup."""
    return "\n".join(_lines(population)) + "\n"


def _lines(population: Population) -> Iterator[str]:
    yield "## Hub sweep"
    yield ""
    for line in population.lines:
        yield f"{escape(line)}  "
    yield ""
    counts = (f"{getattr(population.summary, v.value)} {v.value}" for v in ORDER)
    yield f"**{', '.join(counts)}**"
    yield ""
    yield "### By dose"
    yield ""
    if population.ranked:
        yield "| dose | cosine | overlap | adapter | verdict | p-value | q-value | copies | base |"
        yield "|---:|---:|---:|---|---|---:|---:|---:|---|"
        yield from map(_row, population.ranked)
    else:
        yield "No adapter was given a dose."
    if population.unranked:
        yield ""
        yield f"{population.unranked:,} more adapters carry less than these."
    for comparison in population.comparisons:
        yield ""
        yield from _comparison(comparison)
    if population.unjudged:
        yield ""
        yield from _unjudged(population)
    yield ""
    yield f"<sub>A dose of 1 is a known misaligned model. Overlap is {OVERLAP_WORDS}."
    yield f"{NOT_ALIGNED} The q-value is the share of"
    yield "false findings to expect among everything with a q-value as low. Written by"
    yield f"{population.tool.name} {escape(population.tool.version)}.</sub>"


def _row(item: Ranked) -> str:
    q_value = "-" if item.q_value is None else f"{item.q_value:.4f}"
    cells = (
        f"{item.dose:+.2f}",
        "-" if item.cosine is None else f"{item.cosine:+.2f}",
        "-" if item.overlap is None else percent(item.overlap),
        escape(item.target),
        item.verdict.value,
        f"{item.p_value:.4f}",
        q_value,
        str(item.copies),
        escape(item.base_model or "-"),
    )
    return f"| {' | '.join(cells)} |"


def _comparison(comparison: CalibrationComparison) -> Iterator[str]:
    signature = comparison.signature
    yield f"### Against the calibration of {escape(signature.id)}"
    yield ""
    yield (
        f"{100 * comparison.share:.1f}% of {len(comparison.doses):,} different adapters have "
        f"p <= {comparison.alpha:g}; of benign ones like those of the calibration, "
        f"{100 * comparison.alpha:g}% would."
    )
    yield ""
    yield "| quantile | benign dose | swept dose |"
    yield "|---:|---:|---:|"
    for level, benign, swept in comparison.quantiles():
        yield f"| {100 * level:g}% | {benign:+.3f} | {swept:+.3f} |"


def _unjudged(population: Population) -> Iterator[str]:
    yield "### What was not judged"
    yield ""
    yield "| verdict | reason | adapters |"
    yield "|---|---|---:|"
    for verdict, reason, count in population.unjudged[:_REASONS]:
        yield f"| {verdict} | {escape(reason)} | {count:,} |"
    if len(population.unjudged) > _REASONS:
        rest = sum(count for _, _, count in population.unjudged[_REASONS:])
        yield f"| | {len(population.unjudged) - _REASONS} further reasons | {rest:,} |"
