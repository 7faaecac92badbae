"""Whatever no other reader recognises: nothing is understood, and the report says why."""

from __future__ import annotations

from scanner.formats.canon.rules import MERGE
from scanner.formats.model import Uncovered
from scanner.formats.source import Reading, Source

_MULTIPLICATIVE = "it multiplies the base weights: the delta cannot be known without them"
_VIRTUAL_TOKENS = "it adds virtual tokens, not a weight delta: nothing here can judge it"
_ROUTED = "which update acts depends on the input: there is no one delta"
_DECOMPOSED = "its bases are a decomposition of base weights: the delta needs them"
_NEEDS_BASE = "it trains full weights: the delta needs the base weights"

REASONS: dict[str, str] = {
    **dict.fromkeys(
        (
            "IA3", "HIRA", "OFT", "BOFT", "HRA", "ROAD", "PSOFT", "BEFT", "FINEGATES", "PEANUT",
            "DEFT", "GLORA",
        ),
        _MULTIPLICATIVE,
    ),
    **dict.fromkeys(
        (
            "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING",
            "ADAPTION_PROMPT", "CPT", "CARTRIDGE",
        ),
        _VIRTUAL_TOKENS,
    ),
    **dict.fromkeys(("XLORA", "POLY", "LILY"), _ROUTED),
    **dict.fromkeys(("TINYLORA", "FROD", "ADAMSS"), _DECOMPOSED),
    "LN_TUNING": "it changes norms only: signatures hold no direction for them",
    "TRAINABLE_TOKENS": "it replaces rows of the embedding: the delta needs the base's rows",
    "OSF": _NEEDS_BASE,
    "SHADOW": "it runs a second network beside the model: there is no weight delta",
}  # fmt: skip
"""peft_type -> why its delta is not recovered."""


def recognises(source: Source) -> bool:  # noqa: ARG001 - the interface gives it
    """Always true: this reader is asked last and takes whatever no other one has."""
    return True


def read(source: Source) -> Reading:
    """Reports every tensor as uncovered."""
    config = source.config
    if config is not None and config.peft_type not in (None, "LORA"):
        why = REASONS.get(config.peft_type, "it is not known here")
        merges = config.peft_type not in REASONS or why in (
            _MULTIPLICATIVE,
            _DECOMPOSED,
            _NEEDS_BASE,
        )
        reason = f"unsupported peft_type {config.peft_type!r}: {why}{MERGE if merges else ''}"
    else:
        reason = "not a tensor of any adapter format known here"
    names = source.store.names()
    uncovered = tuple(Uncovered(name, reason) for name in names)
    if not uncovered:
        uncovered = (Uncovered("*", "the file holds no tensor"),)
    return Reading("unknown", config.base_model if config else None, (), uncovered)
