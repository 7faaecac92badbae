"""The report as Markdown: for a model card, or as a comment on a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from scanner.reports.terminal import printable
from scanner.reports.wording import (
    NOT_ALIGNED,
    ORDER,
    OVERLAP_WORDS,
    VERDICT_WORDS,
    common_reasons,
    comparison_words,
    configuration_in_words,
    evidence_words,
    joint_words,
    nearest_words,
    one_dose_words,
    percent,
    plain_reasons,
    signature_words,
    site_name,
    strongest_sites,
    under_several,
    unsigned_words,
    used_signatures,
)
from scanner.results import Report, ScanResult, Verdict

_MARKS = {
    Verdict.FLAGGED: "🚩",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.ERROR: "⚠️",
    Verdict.CLEAR: "✅",
}
_MARKUP = re.compile(
    r"[\\`*\[\]|~&]|<(?=[A-Za-z/!?])"  # emphasis, code, links, cells, entities, HTML
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside a word an underscore is one
    r"|#(?=\d)|:(?=\S)"  # issues; addresses and emoji
    r"|(?<=www)\."
    r"|^[#+=>-]|^\d+[.)](?=\s|$)"  # headings and lists, where a line begins
)


_MENTION = re.compile(r"(?<!\w)@")
"""An @ that tells somebody where comments are read: a backslash before it does not stop that."""
_JOINER = "\u2060"
"""Has no width, and no name begins with it."""


def render(report: Report) -> str:
    """The report as GitHub-flavoured Markdown; text from adapters cannot form markup."""
    return "\n".join(_lines(report)) + "\n"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, and that can be read without being rendered."""

    def escaped(match: re.Match[str]) -> str:
        if match[0] == "<":  # so that nothing looks like an element to any other program either
            return "&lt;"
        return f"{match[0][:-1]}\\{match[0][-1]}"

    return _MENTION.sub(f"@{_JOINER}", _MARKUP.sub(escaped, printable(text).strip()))


def _lines(report: Report) -> Iterator[str]:
    yield "## Adapter scan"
    yield ""
    counts = [
        f"{getattr(report.summary, verdict.value)} {verdict.value}"
        for verdict in ORDER
        if getattr(report.summary, verdict.value)
    ]
    yield f"**{', '.join(counts) or 'nothing scanned'}**"
    ordered = sorted(report.results, key=lambda result: ORDER.index(result.verdict))
    if ordered:
        yield ""
        yield "| | adapter | verdict | dose | cosine | overlap | p-value | base model |"
        yield "|---|---|---|---:|---:|---:|---:|---|"
        yield from map(_row, ordered)
    unclear = [result for result in ordered if result.verdict is not Verdict.CLEAR]
    common = common_reasons(unclear)
    if common:
        yield ""
        yield from (f"- all of the following: {escape(reason)}" for reason in common)
    for result in unclear:
        yield ""
        yield from _details(result, common)
    if report.stale:
        yield ""
        yield "### Baseline entries to renew or remove"
        yield ""
        for item in report.stale:
            yield f"- {escape(item.target)}: {escape(item.reason)}"
    yield ""
    yield from _footer(report)


def _row(result: ScanResult) -> str:
    dose, cosine, overlap = (
        result.deciding_dose,
        result.deciding_cosine,
        result.deciding_overlap,
    )
    p_value = "-" if result.p_value is None else f"{result.p_value:.4f}"
    base = escape(result.base_model or "-")
    accepted = ", accepted" if result.accepted else ""
    target, verdict = escape(result.target), f"{result.verdict.value}{accepted}"
    numbers = (
        "-" if dose is None else f"{dose:+.2f}",
        "-" if cosine is None else f"{cosine:+.2f}",
        "; ".join(
            [
                *([] if overlap is None else [percent(overlap)]),
                *map(escape, unsigned_words(result)),
            ]
        )
        or "-",
    )
    cells = (_MARKS[result.verdict], target, verdict, *numbers, p_value, base)
    return f"| {' | '.join(cells)} |"


def _details(result: ScanResult, said: Sequence[str]) -> Iterator[str]:
    """One adapter, without reasons that have been said of all."""
    yield f"### {_MARKS[result.verdict]} {escape(result.target)}"
    yield ""
    yield f"{VERDICT_WORDS[result.verdict]}"
    yield ""
    for reason in plain_reasons(result, said):
        yield f"- {escape(reason)}"
    if result.accepted:
        yield f"- accepted until {result.accepted.expires}: {escape(result.accepted.reason)}"
    if result.comparison:
        yield f"- {comparison_words(result.comparison)}"
    for name in under_several(result):
        mark = " (stood out most)" if name == result.decided_by else ""
        yield f"- {escape(name)}{mark}: {escape(evidence_words(result, name))}"
    if result.nearest_reference:
        yield f"- most like the reference {escape(nearest_words(result.nearest_reference))}"
    sites = strongest_sites(result)
    if result.verdict is Verdict.FLAGGED and sites:
        yield ""
        yield "| where it moves the base most | dose |"
        yield "|---|---:|"
        for site in sites:
            yield f"| {escape(site_name(site))} | {site.dose:+.3f} |"


def _footer(report: Report) -> Iterator[str]:
    yield "<sub>"
    for signature in used_signatures(report.results, report.signatures):
        basis = escape(signature_words(signature, report.results))
        yield f"Signature {escape(signature.id)} for {escape(signature.base_model)}: {basis}."
    for joint in report.joint:
        words = escape(joint_words(joint, report.results))
        yield f"{words[:1].upper() + words[1:]}."
    if said := configuration_in_words(report.configuration):
        yield f"{escape(said[:1].upper() + said[1:])}."
    yield f"{one_dose_words(report.results)}Overlap is {OVERLAP_WORDS}. {NOT_ALIGNED}"
    yield f"Written by {report.tool.name} {escape(report.tool.version)}."
    yield "</sub>"
