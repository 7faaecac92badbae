"""Whether all loaders multiply an adapter's factors by the numbers that it is judged with.

A loader that multiplies the update of every module by one and the same factor, positive and not
above 1, loads the same direction and no more of it: score and verdict do not depend on it. So it
is with rsLoRA in SGLang, which divides alpha by the rank instead of its square root. Factors that
differ from module to module make another update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from scanner.formats.canon.lookups import Lookup, older_lora, older_lycoris
from scanner.formats.peft_config import PeftConfig

_TOLERANCE = 1e-6
_BEFORE_SCALING = "PEFT 0.6 to 0.13"


def uneven_lora(config: PeftConfig, ranks: Mapping[str, int]) -> dict[str, str]:
    """Modules of a LoRA adapter that some loader scales otherwise than the rest.

    Args:
        config: The adapter's config.
        ranks: Module -> the rank its tensors have.

    Returns:
        Module -> reason.

    Raises:
        MissingConfigError: If alpha is missing, or a pattern cannot be applied.
    """
    if not config.rank_pattern and not config.alpha_pattern:
        return {}
    judged = {module: config.scaling(module, rank) for module, rank in ranks.items()}
    reasons = _older(config, ranks, "lora_alpha", older_lora)
    if config.rank is not None:
        alpha = config.need("lora_alpha")
        root = math.sqrt(config.rank) if config.use_rslora else config.rank
        for loader, scale in (
            ("vLLM (up to 0.30)", alpha / root),
            ("SGLang (up to 0.5.23)", alpha / config.rank),
        ):
            reasons = _uneven(judged, dict.fromkeys(judged, scale), loader) | reasons
    return reasons


def uneven_loha(config: PeftConfig, ranks: Mapping[str, int]) -> dict[str, str]:
    """As `uneven_lora`, for LoHa."""
    return _older(config, ranks, "alpha", older_lycoris)


def uneven_lokr(config: PeftConfig, ranks: Mapping[str, int]) -> dict[str, str]:
    """As `uneven_lora`, for LoKr, which PEFT before 0.14 did not scale by alpha / r at all."""
    judged = {module: config.scaling(module, rank, "alpha") for module, rank in ranks.items()}
    unscaled = _uneven(judged, dict.fromkeys(judged, 1.0), _BEFORE_SCALING)
    return unscaled | _older(config, ranks, "alpha", older_lycoris)


def _older(
    config: PeftConfig,
    ranks: Mapping[str, int],
    key: str,
    lookups: Callable[[PeftConfig, str], Iterator[Lookup]],
) -> dict[str, str]:
    """Modules for which older versions of PEFT find another alpha."""
    if not config.rank_pattern and not config.alpha_pattern:
        return {}
    judged = {module: config.alpha_for(module, key) for module in ranks}
    found: dict[str, dict[str, Lookup]] = {}
    for module in ranks:
        for lookup in lookups(config, module):
            found.setdefault(lookup.versions, {})[module] = lookup
    reasons: dict[str, str] = {}
    for versions, by_module in found.items():
        if any(by_module[module].rank != rank for module, rank in ranks.items()):
            continue  # they make factors of another shape, and refuse the file
        loaded = {module: lookup.alpha or 0.0 for module, lookup in by_module.items()}
        reasons = _uneven(judged, loaded, f"PEFT {versions}") | reasons
    return reasons


def _uneven(
    judged: Mapping[str, float], loaded: Mapping[str, float], loader: str
) -> dict[str, str]:
    """Modules whose scale a loader changes, unless it changes all alike and to no more."""
    ratios = {
        module: loaded[module] / scale if scale else math.inf
        for module, scale in judged.items()
        if scale or loaded[module]
    }
    if not ratios:
        return {}
    least, most = min(ratios.values()), max(ratios.values())
    if least > 0 and most <= 1 + _TOLERANCE and math.isclose(least, most, rel_tol=_TOLERANCE):
        return {}
    return {
        module: f"{loader} multiplies this update by {ratio:g} against what the config says, and "
        "not every update alike and by at most 1"
        for module, ratio in ratios.items()
        if not math.isclose(ratio, 1, rel_tol=_TOLERANCE)
    }
