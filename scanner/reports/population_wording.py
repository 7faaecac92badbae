"""What the population page says in HTML and in Markdown alike."""

from __future__ import annotations

from collections.abc import Iterator

from scanner.reports.population import Population, Rate
from scanner.reports.wording import ONE_DOSE, percent


def rate_sentences(population: Population) -> Iterator[str]:
    """How many adapters stand out, all packs of a base together, and how many would by chance."""
    alpha = population.alpha
    if alpha is None:
        return
    for rate in population.rates:
        of_base = f" of {rate.base_model}" if len(population.rates) > 1 else ""
        yield (
            f"{_count(rate)} different adapters{of_base} have p <= {alpha:g}, all packs taken "
            f"together. Were all of them harmless, and like those of the calibration, about "
            f"{alpha * rate.n:,.1f} would."
        )


def _count(rate: Rate) -> str:
    share = f" ({percent(rate.share)})" if rate.extreme else ""
    return f"{rate.extreme:,}{share} of {rate.n:,}"


def flagged_sentence(population: Population) -> str:
    """How many different adapters are flagged, at how many addresses."""
    different, addresses = population.flagged_contents, population.summary.flagged
    if not different:
        return "No adapter is flagged."
    listed = different - population.more_flagged
    if different == 1:
        where = "one address" if addresses == 1 else f"{addresses:,} addresses"
        return f"One adapter is flagged, at {where}."
    text = f"{different:,} different adapters are flagged, at {addresses:,} addresses."
    if population.more_flagged:
        text += (
            f" The {listed:,} with the lowest p-values are listed; the other "
            f"{population.more_flagged:,} are in the table (hub report -f csv)."
        )
    return text


def one_dose_sentences(population: Population) -> Iterator[str]:
    """What a dose of 1 is, for each pack that says so."""
    for item in population.comparisons:
        if item.unit in ONE_DOSE:
            yield f"A dose of 1 of {item.signature.id} is {ONE_DOSE[item.unit]}."
