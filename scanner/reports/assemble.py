"""Results -> the report record that every format renders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from scanner.formats.base_identity import normalise_base_name
from scanner.results import (
    SCHEMA_VERSION,
    CalibrationSummary,
    Configuration,
    JointSummary,
    PowerSummary,
    ReferenceSummary,
    Report,
    ScanResult,
    SignatureSummary,
    StaleAcceptance,
    Tool,
    summarise,
)
from scanner.signatures.joint import joint_power
from scanner.signatures.manifest import grouped_adapters
from scanner.signatures.match import names_of
from scanner.signatures.pack import Signature
from scanner.signatures.power import Power, power_levels
from scanner.statistics.conformal import smallest_level
from scanner.statistics.thinning import rounded, thinned
from scanner.version import version


def signature_summary(signature: Signature, alphas: Iterable[float] = ()) -> SignatureSummary:
    """What a report says of a signature.

    Args:
        signature: The signature.
        alphas: False-positive rates that it was used at.
    """
    calibration = signature.calibration
    return SignatureSummary(
        id=signature.id,
        digest=signature.digest,
        base_model=signature.manifest.base_model.id,
        method=signature.manifest.method,
        calibration=CalibrationSummary(
            n=len(calibration.benign),
            families=len({item.family for item in calibration.benign}),
            dropped=len(calibration.dropped),
            grouped=grouped_adapters(signature.manifest, calibration),
            cross_fitted_by=calibration.cross_fitted_by,
            smallest_alpha=smallest_level(len(calibration.benign)),
            benign_scores=thinned([item.score for item in calibration.benign]),
            benign_doses=thinned([item.dose for item in calibration.benign]),
            references=[
                ReferenceSummary(id=item.id, score=rounded(item.score), dose=rounded(item.dose))
                for item in calibration.references
            ],
        )
        if calibration
        else None,
        power=_power(signature.power, alphas),
    )


def _power(power: Power | None, alphas: Iterable[float]) -> PowerSummary | None:
    """What a signature finds at common false-positive rates, and at those it was used at."""
    if power is None or not power.references:
        return None
    return PowerSummary(held_out=power.held_out, levels=power_levels(power, alphas))


def joint_summaries(
    results: Sequence[ScanResult], signatures: Sequence[Signature]
) -> list[JointSummary]:
    """What the signatures find together whose joint score some result rests on.

    Args:
        results: The results.
        signatures: The signatures that were used.
    """
    by_id = {item.id: item for item in signatures}
    sets = dict.fromkeys(result.judged_by for result in results if len(result.judged_by) > 1)
    alphas = {result.alpha for result in results if result.alpha is not None}
    return [_joint(ids, [by_id[name] for name in ids if name in by_id], alphas) for ids in sets]


def _joint(
    ids: Sequence[str], signatures: Sequence[Signature], alphas: Iterable[float]
) -> JointSummary:
    if len(signatures) < len(ids):  # their results come from elsewhere, such as a cache
        return JointSummary(signatures=[*ids], why_unknown="not all of them are at hand")
    found = joint_power(signatures)
    power = _power(found.power, alphas)
    if power is not None:
        power = msgspec.structs.replace(power, at_least=found.at_least)
    return JointSummary(signatures=[*ids], power=power, why_unknown=found.why_unknown)


def in_utf8(result: ScanResult) -> ScanResult:
    """A result whose file names, which may be any bytes, can be written in UTF-8."""

    def visible(text: str) -> str:
        return text.encode("utf-8", "backslashreplace").decode()

    return msgspec.structs.replace(
        result,
        target=visible(result.target),
        reasons=[visible(reason) for reason in result.reasons],
    )


def assemble(
    results: Sequence[ScanResult],
    signatures: Sequence[Signature],
    stale: Sequence[StaleAcceptance] = (),
    configuration: Configuration | None = None,
) -> Report:
    """Builds the report of a run, without the signatures of other bases."""
    results = [in_utf8(result) for result in results]
    bases = {normalise_base_name(result.base_model) for result in results}
    used = [
        signature
        for signature in signatures
        if signature.is_open or bases & names_of(signature.manifest.base_model)
    ]
    alphas = {result.alpha for result in results if result.alpha is not None}
    return Report(
        schema_version=SCHEMA_VERSION,
        tool=Tool(name="adapter-scanner", version=version()),
        configuration=configuration or Configuration(),
        signatures=[signature_summary(signature, alphas) for signature in used],
        joint=joint_summaries(results, used),
        results=results,
        summary=summarise(results),
        stale=list(stale),
    )
