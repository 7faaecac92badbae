"""Why a tensor that is no factor of an update cannot be judged."""

from __future__ import annotations

import re

from scanner.formats.canon.rules import DORA_REASON, MERGE

_REASONS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"\.lora_magnitude_vector(\.|$)|\.dora_scale$|\.m$", DORA_REASON),
        (r"\.lora_B(\.[^.]+)?\.bias$", "a trained bias: signatures hold no direction for biases"),
        (
            r"\.(lora_)?alpha$",
            "a scale beside the factors, as kohya's scripts write it: PEFT ignores it, the config "
            "has its own",
        ),
        (r"\.lora_diag(\.|$)", "KaSA's singular values without their factors"),
        (r"\.lora_monteclora_sampler\.", "MonteCLoRA's sampler: it acts while training only"),
        (
            r"\.base_layer\.",
            "a copy of base weights saved alongside: nothing here shows it is unchanged",
        ),
        (
            r"trainable_tokens",
            "replacement rows for some tokens: the delta needs the base's rows",
        ),
        (r"(^|\.)bias$", "a bias: signatures hold no direction for biases"),
        (
            r"(norm|ln_\w+|layernorm)\w*\.weight$",
            "a norm's gain: its delta needs the base weights",
        ),
    )
)
_FULL = f"a full tensor: its delta cannot be known without the base weights{MERGE}"


def reason_for(name: str) -> str:
    """Why a tensor is uncovered, told from its name."""
    for pattern, reason in _REASONS:
        if pattern.search(name):
            return reason
    return _FULL
