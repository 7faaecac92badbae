"""The report a person reads in a terminal: what passed first, what needs them last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from scanner.reports.terminal import DEFAULT_WIDTH, Screen, printable, standard_output
from scanner.reports.wording import (
    ONE_DOSE,
    ORDER,
    OVERLAP_WORDS,
    common_reasons,
    comparison_words,
    configuration_in_words,
    joint_words,
    nearest_words,
    percent,
    plain_reasons,
    score_words,
    signature_words,
    site_name,
    strongest_sites,
    unsigned_words,
    used_signatures,
)
from scanner.results import DoseUnit, Report, ScanResult, Verdict

__all__ = ["printable", "render"]

_STYLES = {
    Verdict.CLEAR: ("green",),
    Verdict.FLAGGED: ("bold", "red"),
    Verdict.INCONCLUSIVE: ("yellow",),
    Verdict.ERROR: ("magenta",),
}
_SITE_BAR = 16
_SHORTEST_BAR = 4
_DOSE_BAR = 24
_SHORTEST_DOSE_BAR = 8
_VERDICT_COLUMN = 14
_LABEL_COLUMN = 12
_NOT_ALIGNED = (
    "clear: no overlap with known misalignment directions beyond that of benign adapters; it does "
    'not mean "aligned"'
)


Detail = Literal["quiet", "usual", "verbose"]
"""How much is shown: what is not clear; that with its evidence; the evidence of everything."""
_NAMED = 5
"""Targets that a line about several names at most."""


def render(report: Report, screen: Screen | None = None, detail: Detail = "usual") -> str:
    """The report as text.

    Args:
        report: The report.
        screen: What it is written to; standard output if not given.
        detail: How much is shown.
    """
    screen = screen or standard_output()
    if detail == "quiet":
        open_ones = [result for result in report.results if result.verdict is not Verdict.CLEAR]
        lines = [line for group in _alike(open_ones) for line in _group_lines(group, screen)]
        return "".join(f"{line}\n" for line in [*lines, *_stale_lines(report, screen)])
    ordered = sorted(report.results, key=lambda result: -ORDER.index(result.verdict))
    clear = [result for result in ordered if result.verdict is Verdict.CLEAR]
    lines = [] if detail == "verbose" else list(_clear_lines(clear, screen))
    rest = ordered if detail == "verbose" else ordered[len(clear) :]
    groups = [[result] for result in rest] if detail == "verbose" else _alike(rest)
    said_alike = [] if detail == "verbose" else [group[0] for group in groups]
    common = common_reasons(said_alike)
    for reason in common:
        lines += screen.wrap(f"all of the following: {printable(reason)}", "  ", "")
    for group in groups:
        if lines:
            lines.append("")
        lines += _group_lines(group, screen, common)
        if detail == "verbose":
            lines += _coverage_lines(group[0], screen)
    lines += _stale_lines(report, screen)
    lines += ["", *_signature_lines(report, screen), *_configuration_lines(report, screen)]
    lines += _summary_lines(report, screen)
    return "\n".join(lines) + "\n"


def _heading(result: ScanResult, screen: Screen) -> str:
    name = result.verdict.value
    padding = " " * (_VERDICT_COLUMN - len(name))
    target = screen.style(printable(result.target), "bold")
    return screen.style(name, *_STYLES[result.verdict]) + padding + target


def _clear_lines(results: Sequence[ScanResult], screen: Screen) -> Iterator[str]:
    """One line each where it fits: dose, overlap and p-value."""
    longest = max((len(printable(result.target)) for result in results), default=0)
    for result in results:
        dose, overlap, p_value = result.deciding_dose, result.deciding_overlap, result.p_value
        numbers = ", ".join(
            ([f"dose {dose:+.2f}"] if dose is not None else [])
            + ([f"overlap {percent(overlap)}"] if overlap is not None else [])
            + unsigned_words(result)
            + ([f"p {p_value:.2g}"] if p_value is not None else [])
        )
        padding = " " * (longest - len(printable(result.target)) + 2)
        fits = _VERDICT_COLUMN + longest + 2 + len(numbers) <= screen.width
        yield _heading(result, screen) + (padding + numbers if fits else "")
        if not fits:
            yield " " * _VERDICT_COLUMN + numbers


def _result_lines(result: ScanResult, screen: Screen, said: Sequence[str]) -> Iterator[str]:
    """One adapter, without reasons that have been said of all."""
    yield _heading(result, screen)
    for reason in plain_reasons(result, said):
        yield from screen.wrap(printable(reason), "    ", "  ")
    if result.accepted:
        accepted = f"accepted until {result.accepted.expires}: {printable(result.accepted.reason)}"
        yield from screen.wrap(accepted, "    ", "  ")
    if result.score is not None and result.comparison is not None:
        score = f"{result.score:.3f}, flagged above {result.comparison.threshold:.3f}"
        yield from _wrapped("score", f"{score}: {score_words(result)}", screen)
    if result.p_value is not None and result.alpha is not None:
        relation = "<=" if result.p_value <= result.alpha else ">"
        yield _labelled("p-value", f"{result.p_value:.4f} {relation} alpha {result.alpha:g}")
    if result.comparison is not None:
        yield from _wrapped("benign", comparison_words(result.comparison), screen)
    yield from _dose_lines(result, screen)
    yield from _evidence_lines(result, screen)
    if result.nearest_reference is not None:
        yield from _wrapped("nearest", nearest_words(result.nearest_reference), screen)
    if result.verdict in (Verdict.FLAGGED, Verdict.CLEAR):
        yield from _site_lines(result, screen)


def _alike(results: Sequence[ScanResult]) -> list[list[ScanResult]]:
    """Results in order; those that say the very same, and nothing but a reason, stand together."""
    groups: dict[object, list[ScanResult]] = {}
    for index, result in enumerate(results):
        plain = result.score is None and not result.dose and result.accepted is None
        said = tuple(plain_reasons(result))
        groups.setdefault((result.verdict, said) if plain else index, []).append(result)
    return list(groups.values())


def _group_lines(
    group: Sequence[ScanResult], screen: Screen, common: Sequence[str] = ()
) -> Iterator[str]:
    """What is said of one result, or once of several, without the reasons that were said before."""
    if len(group) == 1:
        yield from _result_lines(group[0], screen, common)
        return
    first, more = group[0], len(group) - _NAMED
    named = ", ".join(printable(result.target) for result in group[:_NAMED])
    count = f"{len(group)} adapters: {named}" + (f" and {more:,} more" if more > 0 else "")
    label = first.verdict.value
    head = screen.style(label, *_STYLES[first.verdict]) + " " * (_VERDICT_COLUMN - len(label))
    lines = screen.wrap(count, " " * _VERDICT_COLUMN)
    yield head + screen.style(lines[0].lstrip(), "bold")
    yield from (screen.style(line, "bold") for line in lines[1:])
    for reason in plain_reasons(first, common):
        yield from screen.wrap(printable(reason), "    ", "  ")


def _coverage_lines(result: ScanResult, screen: Screen) -> Iterator[str]:
    """What was read, and every tensor that was not judged."""
    facts = [result.format, result.base_model and f"base {result.base_model}"]
    facts += [result.sha256 and f"sha256 {result.sha256}"]
    if known := [printable(fact) for fact in facts if fact]:
        yield from _wrapped("read", ", ".join(known), screen)
    coverage = result.coverage
    if coverage.sites:
        yield _labelled("covered", f"{coverage.covered_sites} of {coverage.sites} sites")
    for index, item in enumerate(coverage.uncovered):
        text = printable(f"{item.tensor}: {item.reason}")
        yield from _wrapped("not judged" if index == 0 else "", text, screen)


def _labelled(label: str, text: str) -> str:
    return f"  {label:<{_LABEL_COLUMN - 2}}{text}"


def _wrapped(label: str, text: str, screen: Screen) -> list[str]:
    return screen.wrap(text, " " * _LABEL_COLUMN, _labelled(label, ""))


def _evidence_lines(result: ScanResult, screen: Screen) -> Iterator[str]:
    """Cosine and overlap, a line for every signature if there are several."""
    cosines = {name: f"{cosine:+.2f}" for name, cosine in result.cosine.items()}
    overlaps = {name: percent(overlap) for name, overlap in result.overlap.items()}
    for label, numbers in (("cosine", cosines), ("overlap", overlaps)):
        widest = max(map(len, numbers.values()), default=0)
        for name, number in numbers.items():
            whose = "" if len(_names(result)) == 1 else f"  {printable(name)}"
            yield from _wrapped(label, f"{number:<{widest}}{whose}".rstrip(), screen)
            label = ""


def _names(result: ScanResult) -> set[str]:
    """The signatures that see something of the adapter."""
    return {*result.dose, *result.cosine, *result.overlap}


def _dose_lines(result: ScanResult, screen: Screen) -> Iterator[str]:
    """A bar per signature that ends where a dose of 1 or the adapter's dose ends.

    Bars are shortened so that the names of signatures fit behind them.
    """
    mark = "│" if screen.unicode else "|"
    several = len(_names(result)) > 1
    names = [f" {printable(name)}" if several else "" for name in result.dose]
    room = screen.width - _LABEL_COLUMN - len("+0.00  ") - len(mark)
    length = min(_DOSE_BAR, max(room - max(map(len, names), default=0), _SHORTEST_DOSE_BAR))
    one = ONE_DOSE.get(result.dose_unit or DoseUnit.NONE)
    tails = [*names[:-1], *(f"{name}  {mark} = {one}" if one else name for name in names[-1:])]
    label = "dose"
    for dose, name, tail in zip(result.dose.values(), names, tails, strict=True):
        end = max(1.0, dose)
        bar = screen.bar(dose / end, length) if dose > 0 else " " * length
        at = round(length / end)
        drawn = screen.style(bar[:at], "red") + mark + screen.style(bar[at:], "red")
        beside = next((text for text in (tail, name) if length + len(text) <= room), "")
        yield _labelled(label, f"{dose:+.2f}  {drawn}{beside}")
        below = tail.removeprefix(beside).strip()
        if below:
            yield from _wrapped("", below, screen)
        label = ""


def _site_lines(result: ScanResult, screen: Screen) -> Iterator[str]:
    """The sites with the largest doses, with bars of their share."""
    top = strongest_sites(result)
    names = [printable(site_name(site)) for site in top]
    width = max(map(len, names), default=0)
    room = screen.width - _LABEL_COLUMN - width - len("  +0.000  ")
    for index, (site, name) in enumerate(zip(top, names, strict=True)):
        line = f"{name:<{width}}  {site.dose:+.3f}"
        if room >= _SHORTEST_BAR:
            bar = screen.bar(site.dose / top[0].dose, min(room, _SITE_BAR)).rstrip()
            line = f"{line}  {screen.style(bar, 'red')}"
        yield _labelled("where" if index == 0 else "", line)


def _stale_lines(report: Report, screen: Screen) -> Iterator[str]:
    if report.stale:
        yield ""
        yield "baseline entries to renew or remove:"
    for item in report.stale:
        yield from screen.wrap(f"{printable(item.target)}: {item.reason}", "    ", "  ")


def _signature_lines(report: Report, screen: Screen) -> Iterator[str]:
    for signature in used_signatures(report.results, report.signatures):
        base = printable(signature.base_model)
        basis = signature_words(signature, report.results)
        text = f"signature {printable(signature.id)} for {base}: {basis}"
        for line in screen.wrap(text, "  ", ""):
            yield screen.style(line, "dim")
    for joint in report.joint:
        for line in screen.wrap(joint_words(joint, report.results), "  ", ""):
            yield screen.style(line, "dim")


def _configuration_lines(report: Report, screen: Screen) -> Iterator[str]:
    if said := configuration_in_words(report.configuration):
        yield from screen.wrap(printable(said), "  ", "")


def _summary_lines(report: Report, screen: Screen) -> Iterator[str]:
    summary = report.summary
    if any(result.overlap for result in report.results):
        for line in screen.wrap(f"overlap: {OVERLAP_WORDS}", "  ", ""):
            yield screen.style(line, "dim")
    if summary.clear:
        for line in screen.wrap(_NOT_ALIGNED, "  ", ""):
            yield screen.style(line, "dim")
    counts = [(verdict, getattr(summary, verdict.value)) for verdict in ORDER]
    if screen.width < DEFAULT_WIDTH:
        counts = [(verdict, count) for verdict, count in counts if count]
    parts = [
        screen.style(f"{count} {verdict.value}", *(_STYLES[verdict] if count else ("dim",)))
        for verdict, count in counts
    ]
    number = sum(result.accepted is not None for result in report.results)
    accepted = f" ({number} accepted by the baseline)" if number else ""
    listed = f": {', '.join(parts)}" if parts else ""
    yield f"{len(report.results)} scanned{listed}{accepted}"
