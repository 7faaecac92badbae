"""Two packs beside each other, in a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.reports.compare_words import adapters_words, directions_words, verdicts_words
from scanner.reports.terminal import Screen, printable, standard_output
from scanner.signatures.comparing import ComparedAdapter, PackComparison, SiteAgreement

_EXTREMES = 3


def render(comparison: PackComparison, screen: Screen | None = None) -> str:
    """The comparison as text.

    Args:
        comparison: The comparison.
        screen: What it is written to; standard output if not given.
    """
    return "\n".join(_lines(comparison, screen or standard_output())) + "\n"


def _lines(comparison: PackComparison, screen: Screen) -> Iterator[str]:
    for label, name in (("first", comparison.first), ("second", comparison.second)):
        yield f"{label:<8}{printable(name)}"
    yield f"{'base':<8}{printable(comparison.base_model)}"
    for words in (directions_words, adapters_words, verdicts_words):
        yield ""
        yield from screen.wrap(words(comparison), "  ", "")
        if words is directions_words:
            yield from _site_lines(comparison)
    yield from _table(comparison.differing, screen)


def _site_lines(comparison: PackComparison) -> Iterator[str]:
    """The sites at which the signatures agree most and least."""
    told = [(site, site.cosine) for site in comparison.sites if site.cosine is not None]
    ordered = sorted(told, key=lambda pair: -pair[1])
    all_of_them = len(ordered) <= 2 * _EXTREMES
    shown = ordered if all_of_them else ordered[:_EXTREMES] + ordered[-_EXTREMES:]
    labels = {0: "by site"} if all_of_them else {0: "most", _EXTREMES: "least"}
    for index, (site, cosine) in enumerate(shown):
        yield f"  {labels.get(index, ''):<9}{cosine:+.2f}  {_site(site)}"


def _site(site: SiteAgreement) -> str:
    return site.module if site.layer is None else f"layer {site.layer} {site.module}"


def _table(adapters: list[ComparedAdapter], screen: Screen) -> Iterator[str]:
    """The adapters on which the verdicts differ."""
    for item in adapters:
        by, other = ("first", "second") if item.first.flagged else ("second", "first")
        said = {"first": item.first, "second": item.second}
        text = (
            f"{printable(item.id)} ({item.role}): flagged by the {by} (p {said[by].p_value:.4f}), "
            f"not by the {other} (p {said[other].p_value:.4f})"
        )
        yield from screen.wrap(text, "    ", "  ")
