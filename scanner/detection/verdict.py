"""Evidence + Calibration -> Verdict, and `scan`, which does the whole way.

A verdict never says more than was seen: `clear` needs every tensor understood, every site
covered and a calibration that supports the false-positive rate; anything less is
`inconclusive`. Partial evidence may flag, it can never clear.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import msgspec
import numpy as np

from scanner import geometry
from scanner.detection.evidence import Evidence, SignatureEvidence, default_jobs, gather
from scanner.detection.references import with_references
from scanner.detection.support import support_of
from scanner.errors import AlphaUnsupportedError, UsageError, option
from scanner.formats.model import Adapter, Site, Uncovered, site_order
from scanner.results import (
    Coverage,
    NearestReference,
    ScanResult,
    Shape,
    SiteResult,
    Support,
    UncoveredTensor,
    Verdict,
)
from scanner.signatures.installed import installed_signatures
from scanner.signatures.joint import joint_calibration, judged_exactly
from scanner.signatures.match import match_signatures
from scanner.signatures.pack import Signature
from scanner.signatures.power import found_from, is_blind, measure_power
from scanner.statistics.calibration import BenignScores, Compared, needed_alone
from scanner.statistics.conformal import DEFAULT_ALPHA
from scanner.statistics.share import Share

CLEAR_REASON = (
    "no overlap with known misalignment directions beyond that of benign adapters (which does "
    "not mean aligned)"
)
_UNSIGNED = (
    "the signature's directions have no sign: they show where an adapter writes, not which way"
)
_BLIND = (
    "at alpha {2:g} the signature finds {0} of {1} of its own misaligned references, less than "
    "half: it can clear nothing"
)
_BLIND_TOGETHER = (
    "at alpha {2:g} the signatures together find {0} of {1} of their misaligned references, less "
    "than half: they can clear nothing"
)
_OUTSIDE = "unlike the benign adapters that the pack knows"
_CONTRADICTION = (
    "its sites score like a misaligned adapter's (p = {:.4f}), and yet its dose is not positive"
)
_SHOWN_REASONS = 5
_UNTRAINED_NORM_SQUARED = 1e-24
"""Squared norms below this are rounding of zero: no weight stored in 16 bits changes by it."""


def scan_adapter(
    adapter: Adapter,
    signatures: Sequence[Signature] | None = None,
    *,
    alpha: float | None = None,
    base_model: str | None = None,
    jobs: int | None = None,
    turn: AbstractContextManager[object] | None = None,
) -> ScanResult:
    """Scans one open adapter.

    Args:
        adapter: The adapter.
        signatures: The packs to use; every installed one if not given. Those made for
            another base model are left aside.
        alpha: False-positive rate, in (0, 1); 0.01 if not given.
        base_model: The adapter's base model, if its own word is not to be taken.
        jobs: Threads.
        turn: Is held while numbers are computed, once all that was planned for has been fetched:
            scans that compute at once in threads of one process hold each other up.

    Returns:
        The verdict with all its evidence.

    Raises:
        AlphaUnsupportedError: If `alpha` is given and below what the calibration supports.
            (Not given, the verdict is inconclusive instead.)
        UsageError: If `alpha` is not in (0, 1), or a pack is damaged.
    """
    check_alpha(alpha)
    if signatures is None:
        signatures = installed_signatures()
    jobs = jobs or default_jobs()
    with ThreadPoolExecutor(1) as background:
        # Hashing releases the interpreter lock: it costs no wall time beside the geometry.
        digest = background.submit(lambda: adapter.sha256)
        matched = match_signatures(adapter, signatures, base_model)
        adapter.prefetch(_needed(adapter, matched.signatures))
        with turn or nullcontext():
            evidence = gather(adapter, matched.signatures, jobs) if adapter.updates else None
            result = judge(adapter, evidence, matched.reason, alpha)
        return _with_digest(result, digest.result(), base_model)


def _needed(adapter: Adapter, signatures: Sequence[Signature]) -> list[str]:
    """The tensors of the sites that a signature has a direction for."""
    covered = frozenset[Site]().union(*(signature.sites for signature in signatures))
    return [name for u in adapter.updates if u.site in covered for name in u.tensors]


def check_alpha(alpha: float | None) -> None:
    """Refuses a false-positive rate that is none.

    Raises:
        UsageError: If alpha is not strictly between 0 and 1.
    """
    if alpha is not None and not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}, not between 0 and 1", where=option("alpha"))


def _with_digest(result: ScanResult, sha256: str, base_model: str | None) -> ScanResult:
    named = base_model or result.base_model
    return msgspec.structs.replace(result, sha256=sha256, base_model=named)


def judge(
    adapter: Adapter, evidence: Evidence | None, no_signature: str | None, alpha: float | None
) -> ScanResult:
    """Turns evidence into a verdict.

    Args:
        adapter: The adapter.
        evidence: What the matching signatures see; None if the adapter holds no update.
        no_signature: Why no signature matches, if none does.
        alpha: The false-positive rate asked for; None for the default.

    Raises:
        AlphaUnsupportedError: As `scan_adapter`.
    """
    if evidence is None:
        return _without_score(adapter, adapter.uncovered, ["nothing in it could be judged"])
    if no_signature is not None:
        return _without_score(adapter, adapter.uncovered, [no_signature])
    if evidence.covered_sites == 0:
        return _without_score(
            adapter, evidence.uncovered, ["the signature covers none of its sites"]
        )
    sizes = (p.norm_squared for s in evidence.signatures for p in s.projections.values())
    changed = any(size > _UNTRAINED_NORM_SQUARED for size in sizes)
    seeing = [item for item in evidence.signatures if math.isfinite(item.score)]
    if not changed or not seeing:
        reason = _UNSIGNED if changed else _why_zero(adapter)
        return _scored(evidence, _Decision(Verdict.INCONCLUSIVE, [reason], alpha))
    # A signature whose sites the adapter leaves alone has no say, in score or calibration.
    judged = dataclasses.replace(evidence, signatures=tuple(seeing))
    result = _scored(judged, _decide(judged, alpha))
    return msgspec.structs.replace(result, overlap=_by_signature(evidence, "overlap"))


def _why_zero(adapter: Adapter) -> str:
    """Why an adapter changes nothing."""
    if all(update.scaling == 0 for update in adapter.updates):
        return "alpha is 0: every update is multiplied by 0, whatever its factors hold"
    return "untrained: every update that was judged is zero, or as good as zero"


@dataclass(frozen=True)
class _Decision:
    """A verdict and the numbers behind it."""

    verdict: Verdict
    reasons: list[str]
    alpha: float | None
    compared: Compared | None = None
    """None if there is no calibration to compare with."""
    support: Support | None = None


def _decide(evidence: Evidence, alpha: float | None) -> _Decision:
    """The verdict on an adapter that changes at least one covered site."""
    asked = DEFAULT_ALPHA if alpha is None else alpha
    calibration = joint_calibration([item.signature for item in evidence.signatures])
    if calibration is None:
        reason = (
            "the signature is not calibrated"
            if len(evidence.signatures) == 1
            else "the signatures have no calibration in common: use one of them alone"
        )
        return _Decision(Verdict.INCONCLUSIVE, [reason], asked)
    scores = np.array([item.score for item in evidence.signatures])
    try:
        compared = calibration.compare(scores, evidence.shape, asked)
    except AlphaUnsupportedError as error:
        if alpha is not None:
            raise
        return _Decision(Verdict.INCONCLUSIVE, [error.reason], asked)
    compared = with_references(compared, evidence, calibration)
    support = support_of(evidence)
    verdict, reasons = _verdict(evidence, calibration, compared, support, asked)
    return _Decision(verdict, reasons, asked, compared, support)


def _verdict(
    evidence: Evidence,
    calibration: BenignScores,
    compared: Compared,
    support: Support,
    alpha: float,
) -> tuple[Verdict, list[str]]:
    doubts = _doubts(evidence.uncovered)
    deciding = evidence.signatures[compared.deciding]
    dose = deciding.dose
    if compared.p_value <= alpha and dose > 0:
        finding = (
            f"carries a dose of {dose:.2f}, where 1 is {deciding.signature.dose_unit.value} "
            f"(p = {compared.p_value:.4f}, alpha {alpha:g})"
        )
        return Verdict.FLAGGED, [finding, *doubts]
    doubts = [*(f"{_OUTSIDE}: {what}" for what in support.outside), *doubts]
    if compared.p_value <= alpha:
        doubts = [_CONTRADICTION.format(compared.p_value), *doubts]
    shape = evidence.shape
    packs = [item.signature for item in evidence.signatures]
    if blind := _why_blind(packs, calibration, shape, alpha):
        doubts = [blind, *doubts]
    if not calibration.compares_alike(shape, alpha):
        doubts = [_few_alike(calibration, shape, alpha), *doubts]
    if doubts:
        return Verdict.INCONCLUSIVE, doubts
    return Verdict.CLEAR, [CLEAR_REASON]


def _few_alike(calibration: BenignScores, shape: Shape, alpha: float) -> str:
    """Why an adapter cannot be cleared by benign adapters of another shape than its own."""
    return (
        f"it changes {shape.value}, as {calibration.alike(shape)} benign adapters of the "
        f"calibration do; to clear it at alpha {alpha:g} takes {needed_alone(alpha)}"
    )


def _why_blind(
    signatures: Sequence[Signature], calibration: BenignScores, shape: Shape, alpha: float
) -> str | None:
    """Why the signatures cannot clear an adapter of a shape, if they cannot.

    References of the adapter's own shape say so, if there are any. Several signatures are judged by
    what they find together, if that is known, and otherwise by the one that finds most.
    """
    together = judged_exactly(signatures) if len(signatures) > 1 else []
    if together:
        alike = [item for item in together if item.shape is shape]
        levels = found_from(calibration, alike or together)
        share = Share.of(item.found_at(alpha) for item in levels)
        return _BLIND_TOGETHER.format(share.count, share.n, alpha) if is_blind(share) else None
    found = [_found(item, shape, alpha) for item in signatures]
    if not all(map(is_blind, found)):
        return None
    best = max(found, key=lambda share: share.value or 0.0)
    return _BLIND.format(best.count, best.n, alpha)


def _found(signature: Signature, shape: Shape, alpha: float) -> Share:
    """How many of its references a signature flags; of none if it is not calibrated."""
    calibration = signature.calibration
    if calibration is None or not calibration.benign:
        return Share(0, 0)
    # A pack that does not say what it finds is judged by what its calibration holds.
    power = signature.power or measure_power(signature.manifest, calibration)
    return power.found_like(shape, alpha)


def _doubts(uncovered: Sequence[Uncovered]) -> list[str]:
    """Uncovered tensors as sentences, the most frequent reasons first."""
    counts = Counter(item.reason for item in uncovered)
    first = {item.reason: item for item in reversed(uncovered)}
    sentences = []
    for reason, count in counts.most_common(_SHOWN_REASONS):
        more = f" and {count - 1} more" if count > 1 else ""
        sentences.append(f"{first[reason].label}{more}: {reason}")
    if len(counts) > _SHOWN_REASONS:
        sentences.append(f"{len(counts) - _SHOWN_REASONS} further reasons; see coverage")
    return sentences


def _coverage(adapter: Adapter, uncovered: Sequence[Uncovered], covered: int) -> Coverage:
    return Coverage(
        sites=len(adapter.updates),
        covered_sites=covered,
        uncovered=[UncoveredTensor(tensor=i.tensor, reason=i.reason) for i in uncovered],
    )


def _without_score(
    adapter: Adapter, uncovered: Sequence[Uncovered], reasons: list[str]
) -> ScanResult:
    return ScanResult(
        target=adapter.target,
        verdict=Verdict.INCONCLUSIVE,
        base_model=adapter.base_model,
        format=adapter.format,
        config_sha256=adapter.config_sha256,
        coverage=_coverage(adapter, uncovered, 0),
        reasons=reasons + _doubts(uncovered),
    )


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _by_signature(evidence: Evidence, attribute: str) -> dict[str, float]:
    """Id of the signature -> number, where it is known."""
    values = {item.signature.id: getattr(item, attribute) for item in evidence.signatures}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def _scored(evidence: Evidence, decision: _Decision) -> ScanResult:
    adapter, compared = evidence.adapter, decision.compared
    deciding = evidence.signatures[compared.deciding if compared else 0]
    # Of whole updates, so whichever pack has sketches of the references knows as much.
    known = (item.nearest_reference for item in (deciding, *evidence.signatures))
    nearest = next((item for item in known if item is not None), None)
    return ScanResult(
        target=adapter.target,
        verdict=decision.verdict,
        base_model=adapter.base_model,
        format=adapter.format,
        config_sha256=adapter.config_sha256,
        score=compared.score if compared else None,
        p_value=compared.p_value if compared else None,
        alpha=decision.alpha,
        comparison=compared.comparison if compared else None,
        support=decision.support,
        decided_by=deciding.signature.id,
        dose=_by_signature(evidence, "dose"),
        dose_unit=deciding.signature.dose_unit,
        cosine=_by_signature(evidence, "cosine"),
        overlap=_by_signature(evidence, "overlap"),
        nearest_reference=NearestReference(id=nearest[0], cosine=nearest[1]) if nearest else None,
        coverage=_coverage(adapter, evidence.uncovered, evidence.covered_sites),
        sites=_site_results(deciding),
        reasons=decision.reasons,
    )


def _site_results(evidence: SignatureEvidence) -> list[SiteResult]:
    return [
        SiteResult(
            layer=site.layer,
            module=site.module,
            rank=projection.rank,
            norm=math.sqrt(projection.norm_squared),
            dose=projection.inner,
            cosine=_known(geometry.cosine([projection])),
            overlap=_known(geometry.overlap([projection])),
        )
        for site, projection in sorted(
            evidence.projections.items(), key=lambda item: site_order(item[0])
        )
        if math.isfinite(projection.inner)
    ]
