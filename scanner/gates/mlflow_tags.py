"""The tags of a model version that carry its verdict.

One tag is believed: `ATTESTATION`, a signed token. The others repeat it for people and for
searches (``tags.`adapter-scanner.verdict` = 'clear'``), and the gate lets nobody write anything
else into them. MLflow's pages show tags by name, so the first of them says verdict and reason; and
above all tags they show the version's description, which says the same and is anybody's to edit.
"""

from __future__ import annotations

from scanner.gates.attestation import Attestation, Override
from scanner.gates.model_card import BEGIN, END, with_section
from scanner.reports.markdown_report import escape

NAMESPACE = "adapter-scanner."
"""Tags that begin so, in any case, belong to the scanner."""
SUMMARY = "adapter-scanner"
"""Verdict and reason in one: the first of all the scanner's tags by name."""
MOST_DESCRIPTION = 5000
"""Characters of a description that MLflow keeps (SqlModelVersion.description)."""
ATTESTATION = "adapter-scanner.attestation"
OVERRIDE = "adapter-scanner.override"
UNKNOWN = "unknown"
"""Value of a tag whose number is not known; an empty tag would look like a mistake."""


def is_reserved(key: str) -> bool:
    """Whether a tag belongs to the scanner."""
    folded = key.strip().casefold()
    return folded == SUMMARY or folded.startswith(NAMESPACE)


def verdict_tags(verdict: Attestation) -> dict[str, str]:
    """What a verdict says, one tag each."""
    return {
        SUMMARY: _in_words(verdict),
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


def with_verdict(description: str | None, verdict: Attestation) -> str | None:
    """A version's description with a section that says the verdict and why.

    Args:
        description: What stands there; text around the section is kept.
        verdict: The verdict.

    Returns:
        None if it would be longer than MLflow takes.
    """
    lines = (
        BEGIN,
        f"**adapter-scanner: {verdict.verdict.value}**",
        "",
        *(f"- {escape(reason)}" for reason in verdict.reasons),
        "",
        f"Judged {verdict.time:%Y-%m-%d %H:%M} UTC. Signed in the tag `{ATTESTATION}`; this text "
        "is not.",
        END,
    )
    text = with_section(description or "", "\n".join(lines))
    return text if len(text) <= MOST_DESCRIPTION else None


def _in_words(verdict: Attestation) -> str:
    return ": ".join([verdict.verdict.value, "; ".join(verdict.reasons) or UNKNOWN])


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.6g}"
