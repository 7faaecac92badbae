"""What several formats say in the same words."""

from __future__ import annotations

from collections.abc import Sequence

from scanner.reports.terminal import printable
from scanner.results import (
    Comparison,
    Configuration,
    DoseUnit,
    JointSummary,
    NearestReference,
    PowerLevel,
    PowerSummary,
    ScanResult,
    SignatureSummary,
    SiteResult,
    Verdict,
)
from scanner.signatures.power_words import found_in_words, listed

ORDER = (Verdict.FLAGGED, Verdict.ERROR, Verdict.INCONCLUSIVE, Verdict.CLEAR)
"""Verdicts in the order reports list them, the gravest first."""

NOT_ALIGNED = (
    "Clear means no overlap with known misalignment directions beyond that of benign adapters; "
    'it does not mean "aligned".'
)
VERDICT_WORDS = {
    Verdict.FLAGGED: "Moves its base model towards known misalignment, more than benign "
    "adapters do.",
    Verdict.ERROR: "Could not be read, so nothing is known about it.",
    Verdict.INCONCLUSIVE: "Could not be judged. This is not a clear.",
    Verdict.CLEAR: "Shows no overlap with known misalignment directions beyond that of benign "
    "adapters. That does not mean it is aligned.",
}
OVERLAP_WORDS = (
    "the share of the update that its column space writes into the misalignment directions"
)
_TOP_SITES = 3
_SMALLEST_SHARE = 0.001
_WHOLE_PERCENT_FROM = 0.0995

ONE_DOSE = {
    DoseUnit.REFERENCE: "a known misaligned model",
    DoseUnit.LOG_ODDS: DoseUnit.LOG_ODDS.value,
}
"""What a dose of 1 is, for a legend; imported vectors have no unit."""


def site_name(site: SiteResult) -> str:
    """A site as a person says it."""
    return site.module if site.layer is None else f"layer {site.layer} {site.module}"


def percent(share: float) -> str:
    """A share as a percentage: two digits, from 10% on none after the point; never 0 for some."""
    if 0 < share < _SMALLEST_SHARE:
        return "below 0.1%"
    return f"{100 * share:.1f}%" if share < _WHOLE_PERCENT_FROM else f"{100 * share:.0f}%"


def comparison_words(comparison: Comparison) -> str:
    """How many benign adapters score as high, in a sentence."""
    count = "None" if comparison.as_high == 0 else f"{comparison.as_high}"
    verb = "scores" if comparison.as_high == 1 else "score"
    alike = f" that change {comparison.shape.value}" if comparison.shape else ""
    return f"{count} of the {comparison.n} benign adapters{alike} {verb} as high."


def score_words(result: ScanResult) -> str:
    """Whose the score is that decides, as the end of a sentence."""
    if len(result.dose) <= 1:
        return "the signature's own score"
    return f"the joint score of {len(result.dose)} signatures"


def nearest_words(nearest: NearestReference) -> str:
    """The reference that is most alike, with how alike it is."""
    return f"{printable(nearest.id)}, cosine {nearest.cosine:+.2f} of the whole updates"


def signature_words(signature: SignatureSummary, results: Sequence[ScanResult]) -> str:
    """What a signature's verdicts rest on, what was taken out of it, and what it finds."""
    calibration = signature.calibration
    if calibration is None:
        return "not calibrated"
    families = "1 family" if calibration.families == 1 else f"{calibration.families} families"
    parts = [f"calibrated on {calibration.n} benign adapters, {families}"]
    if calibration.grouped:
        parts[0] += f" (those of {calibration.grouped} were not named but found by what they write)"
    if calibration.dropped:
        one = calibration.dropped == 1
        taken = "1 adapter was" if one else f"{calibration.dropped} adapters were"
        parts.append(f"{taken} taken out later as not benign (signatures show gives the reasons)")
    return "; ".join([*parts, power_words(signature, results)])


def unsigned_words(result: ScanResult) -> list[str]:
    """The overlap with each signature without a sign, beside the one that decided."""
    return [
        f"overlap {percent(overlap)} with {printable(name)} (no sign)"
        for name, overlap in result.overlap.items()
        if name not in result.dose and name != result.decided_by
    ]


def under_several(result: ScanResult) -> list[str]:
    """The signatures that see an adapter, the one that decided first; none if it is alone."""
    names = list(dict.fromkeys((*result.dose, *result.cosine, *result.overlap)))
    ordered = sorted(names, key=lambda name: name != result.decided_by)
    return ordered if len(ordered) > 1 else []


def evidence_words(result: ScanResult, name: str) -> str:
    """Dose, cosine and overlap under one signature."""
    dose = result.dose.get(name)
    found = ["no sign" if dose is None else f"dose {dose:+.2f}"]
    if (cosine := result.cosine.get(name)) is not None:
        found.append(f"cosine {cosine:+.2f}")
    if (overlap := result.overlap.get(name)) is not None:
        found.append(f"overlap {percent(overlap)}")
    return ", ".join(found)


def strongest_sites(result: ScanResult) -> list[SiteResult]:
    """The sites with the largest doses towards misalignment."""
    ordered = sorted(result.sites, key=lambda site: site.dose, reverse=True)
    return [site for site in ordered[:_TOP_SITES] if site.dose > 0]


def used_signatures(
    results: Sequence[ScanResult], signatures: Sequence[SignatureSummary]
) -> list[SignatureSummary]:
    """The signatures made for a base that something was judged for."""
    deciding = {result.decided_by for result in results}
    bases = {item.base_model for item in signatures if item.id in deciding}
    return [item for item in signatures if item.base_model in bases]


def common_reasons(results: Sequence[ScanResult]) -> list[str]:
    """Reasons that all of several results give, which are the pack's and are said once."""
    judged = [plain_reasons(result) for result in results if result.verdict is not Verdict.ERROR]
    if len(judged) < 2:
        return []
    return [reason for reason in judged[0] if all(reason in others for others in judged)]


def plain_reasons(result: ScanResult, said: Sequence[str] = ()) -> list[str]:
    """A result's reasons as they hold for any target: without its name, where they start with it.

    Args:
        result: The result.
        said: Reasons that were said before, which are left out.
    """
    names = (f"{result.target}:", f"{result.target}/")
    plain = (
        reason[len(result.target) :].lstrip("/: ") if reason.startswith(names) else reason
        for reason in result.reasons
    )
    return [reason for reason in plain if reason not in said]


def configuration_in_words(configuration: Configuration) -> str:
    """The file in force and what is looser than the defaults; empty if there is neither."""
    parts = [f"configuration: {configuration.file}"] if configuration.file else []
    if configuration.looser:
        settings = ", ".join(f"{item.setting} = {item.value}" for item in configuration.looser)
        parts.append(f"looser than the default: {settings}")
    return "; ".join(parts)


def power_words(signature: SignatureSummary, results: Sequence[ScanResult]) -> str:
    """What a signature finds at the strictest alpha of the results, after its name."""
    power, level = signature.power, _level(signature.power, results)
    if power is None or level is None:
        return "its power is not known"
    return found_in_words(level, power.held_out)


def joint_words(joint: JointSummary, results: Sequence[ScanResult]) -> str:
    """What several signatures find together at the strictest alpha of the results."""
    names, power = listed([printable(name) for name in joint.signatures]), joint.power
    level = _level(power, results)
    if power is None or level is None:
        why = f": {printable(joint.why_unknown)}" if joint.why_unknown else ""
        return f"what the signatures {names} find together is not known{why}"
    found = found_in_words(level, power.held_out, together=True, at_least=power.at_least)
    return f"the signatures {names} together {found}"


def _level(power: PowerSummary | None, results: Sequence[ScanResult]) -> PowerLevel | None:
    """What is found at the strictest alpha of the results, if that is known."""
    alpha = min((result.alpha for result in results if result.alpha is not None), default=None)
    levels = power.levels if power else []
    return next((item for item in levels if item.alpha == alpha), None)


def one_dose_words(results: Sequence[ScanResult]) -> str:
    """A sentence on what a dose of 1 is in these results, and a space; empty if nothing is."""
    found = {ONE_DOSE[unit] for item in results if (unit := item.dose_unit) in ONE_DOSE}
    return f"A dose of 1 is {' or '.join(sorted(found))}. " if found else ""
