"""The tags of a model version that carry its verdict.

One tag is believed: `ATTESTATION`, a signed token. The others repeat it for people and for
searches (``tags.`adapter-scanner.verdict` = 'clear'``), and the gate lets nobody write anything
else into them.
"""

from __future__ import annotations

from scanner.gates.attestation import Attestation, Override

NAMESPACE = "adapter-scanner."
"""Tags that begin so, in any case, belong to the scanner."""
ATTESTATION = "adapter-scanner.attestation"
OVERRIDE = "adapter-scanner.override"
UNKNOWN = "unknown"
"""Value of a tag whose number is not known; an empty tag would look like a mistake."""


def is_reserved(key: str) -> bool:
    """Whether a tag belongs to the scanner."""
    return key.strip().casefold().startswith(NAMESPACE)


def verdict_tags(verdict: Attestation) -> dict[str, str]:
    """What a verdict says, one tag each."""
    return {
        "adapter-scanner.verdict": verdict.verdict.value,
        "adapter-scanner.reason": "; ".join(verdict.reasons) or UNKNOWN,
        "adapter-scanner.dose": _number(verdict.dose),
        "adapter-scanner.p_value": _number(verdict.p_value),
        "adapter-scanner.alpha": _number(verdict.alpha),
        "adapter-scanner.packs": " ".join(f"{p.id}@{p.digest}" for p in verdict.packs) or UNKNOWN,
        "adapter-scanner.weights_sha256": verdict.weights_sha256 or UNKNOWN,
        "adapter-scanner.artifact_sha256": verdict.subject.artifact_sha256,
        "adapter-scanner.tool_version": verdict.tool_version,
        "adapter-scanner.time": verdict.time.isoformat(),
    }


def override_tags(override: Override) -> dict[str, str]:
    """What an override says, one tag each."""
    return {
        "adapter-scanner.override_reason": override.reason,
        "adapter-scanner.override_expires": override.expires.isoformat(),
    }


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.6g}"
