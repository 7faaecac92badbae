"""What a comparison of two packs says, in sentences that text and page share."""

from __future__ import annotations

from scanner.reports.terminal import printable
from scanner.signatures.comparing import PackComparison


def directions_words(comparison: PackComparison) -> str:
    """How the directions agree."""
    count = len(comparison.sites)
    sites = "1 site" if count == 1 else f"{count} sites"
    only = [
        f"{number} {'has' if number == 1 else 'have'} a direction in {printable(name)} alone"
        for number, name in (
            (comparison.only_first, comparison.first),
            (comparison.only_second, comparison.second),
        )
        if number
    ]
    beside = f" {' and '.join(only)}." if only else ""
    if not count:
        return f"Directions: no site has one in both packs.{beside}"
    if comparison.cosine is None:
        return (
            f"Directions: at {sites} both have one, and one of the packs has no sign, so only "
            f"column spaces can be compared.{beside}"
        )
    return (
        f"Directions: cosine {comparison.cosine:+.2f} over the {sites} that both have; directions "
        f"that have nothing to do with each other have one of about 0.{beside}"
    )


def adapters_words(comparison: PackComparison) -> str:
    """How the scores of the same adapters agree."""
    if comparison.alpha is None:
        return "Scores: one of the packs is not calibrated, so no adapter was scored by both."
    benign, known = comparison.count("benign"), comparison.count("misaligned")
    text = f"Scores: {benign} benign adapters and {known} references were scored by both packs"
    if comparison.benign_correlation is None:
        return f"{text}."
    return (
        f"{text}; the rank correlation of the benign adapters' scores is "
        f"{comparison.benign_correlation:+.2f}."
    )


def verdicts_words(comparison: PackComparison) -> str:
    """Where the verdicts differ."""
    if comparison.alpha is None:
        return "Verdicts: none to compare."
    count = len(comparison.differing)
    total = len(comparison.adapters)
    return (
        f"Verdicts: at alpha {comparison.alpha:.3g} {count or 'none'} of {total} adapters "
        f"{'is' if count == 1 else 'are'} flagged by one pack and not by the other, each compared "
        "with the pack's other benign adapters."
    )
