"""What PEFT would have written for its types other than LoRA, against what the file holds.

Whatever makes PEFT refuse a file (a tensor of another shape than the config gives) is left to it.
What is looked for here loads without an error, and not as it was read: tensors that PEFT has no
place for, a switch of the config that makes it draw anew what the file holds, a scale that
versions compute otherwise, modules that the file lacks and PEFT fills with random weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from scanner.errors import TargetError
from scanner.formats.canon.blocks import FILLED, lacking
from scanner.formats.canon.fields import config_entry, departing_fields
from scanner.formats.canon.names import (
    PREFIX,
    ModuleTensors,
    odd_path,
    second_spellings,
    why_misspelt,
)
from scanner.formats.canon.scales import uneven_loha, uneven_lokr
from scanner.formats.canon.targets import Targets
from scanner.formats.model import Uncovered
from scanner.formats.peft_config import PeftConfig

Parts = Callable[[PeftConfig, ModuleTensors], str | None]

_ENDINGS = dict.fromkeys(
    ("gralora_A_general", "gralora_B_general", "supertuning_lora_A", "supertuning_lora_B"),
    ".weight",
)
_SWITCHES: dict[str, tuple[str, bool, str]] = {
    **dict.fromkeys(
        ("VERA", "PVERA", "RANDLORA"),
        (
            "save_projection",
            True,
            "false: PEFT draws the shared projections from projection_prng_key, whatever the file "
            "holds",
        ),
    ),
    "UNILORA": (
        "save_indices",
        False,
        "false: PEFT draws the indices from proj_seed, whatever the file holds",
    ),
    "SUPERTUNING": (
        "save_precomputed_indices",
        True,
        "false: PEFT finds the places in the base weights, whatever the file holds",
    ),
}
"""peft_type -> the switch that says whether PEFT reads what the file holds, its default, and
what happens where it is off."""
_DRAWN_ANEW: dict[str, tuple[str, str]] = {
    "VERA": (
        "projection_prng_key",
        "PEFT up to 0.13 draws the shared projections from it, whatever the file holds",
    ),
    "RANDLORA": (
        "projection_prng_key",
        "transformers' load_adapter draws the shared bases from it, whatever the file holds",
    ),
    "SHIRA": (
        "random_seed",
        "transformers' load_adapter draws the places from it, whatever the file holds",
    ),
}
"""peft_type -> the seed from which some loader draws what the file holds, and which loader. All
versions tried: PEFT 0.13.2 and 0.21.2, transformers 5.24."""
_MAX_SQUARE_ROOT = 2**16
_ALWAYS_RANDOM = frozenset({"VBLORA", "UNILORA"})
_RANDOM_BY_DEFAULT = frozenset({"FOURIERFT", "C3A"})
"""Types whose layers do something before they are trained, whatever `init_weights` says or
unless it is true."""


def departures(
    config: PeftConfig, groups: Sequence[ModuleTensors], shared: Mapping[str, str]
) -> list[Uncovered]:
    """Everything in which an adapter differs from what PEFT would have written and would read.

    Args:
        config: Its config, which names a type.
        groups: The tensors of each module.
        shared: Part -> name of a tensor that all modules share.
    """
    peft_type = config.peft_type or ""
    found = list(departing_fields(config))
    key, default, reason = _SWITCHES.get(peft_type, ("", True, ""))
    holds = bool(groups) and (bool(shared) or peft_type in ("SUPERTUNING", "SHIRA"))
    if key and holds and not config.raw.get(key, default):
        found.append(config_entry(key, reason))
    if holds and peft_type in _DRAWN_ANEW:
        found.append(config_entry(*_DRAWN_ANEW[peft_type]))
    found += [
        Uncovered(name, f"loaders differ on other spellings than PEFT's, 'base_model.{part}'")
        for part, name in shared.items()
        if name != f"base_model.{part}"
    ]
    try:
        found += _tensors(config, groups)
    except TargetError as error:
        found.append(Uncovered("adapter_config.json", error.what))
    return found


def _tensors(config: PeftConfig, groups: Sequence[ModuleTensors]) -> Iterator[Uncovered]:
    modules = frozenset(group.module for group in groups)
    targets = Targets(config, modules)
    elsewhere = second_spellings(modules)
    parts = _PARTS.get(config.peft_type or "", _every_part)
    uneven = _uneven(config, groups)
    for group in groups:
        module = group.module
        reason = odd_path(module) or elsewhere.get(module) or targets.why_not(module)
        if reason := reason or parts(config, group) or uneven.get(module):
            yield from (Uncovered(name, reason) for name in group.parts.values())
        else:
            yield from (Uncovered(name, why) for name, why in why_misspelt(group, _ENDINGS))
    if fills_at_random(config) and groups and (lost := lacking(targets, modules)):
        yield Uncovered(f"{PREFIX}{lost}", FILLED)


def _uneven(config: PeftConfig, groups: Sequence[ModuleTensors]) -> dict[str, str]:
    """Modules that some version of PEFT scales otherwise than the rest."""
    look = {"LOHA": uneven_loha, "LOKR": uneven_lokr}.get(config.peft_type or "")
    if look is None:
        return {}
    ranks = {group.module: config.declared_rank(group.module) for group in groups}
    return look(config, {module: rank for module, rank in ranks.items() if rank is not None})


def fills_at_random(config: PeftConfig) -> bool:
    """Whether layers that the file has no tensors for do something."""
    if config.peft_type in _ALWAYS_RANDOM:
        return True
    default = config.peft_type not in _RANDOM_BY_DEFAULT
    value = config.raw.get("init_weights", default)
    return value is not True if config.peft_type in _RANDOM_BY_DEFAULT else not value


def _every_part(config: PeftConfig, group: ModuleTensors) -> str | None:  # noqa: ARG001
    """Types whose layers have one set of parts, all of which the reader asks for."""
    return None


def _exactly(group: ModuleTensors, parts: set[str]) -> str | None:
    """Why a module's parts are not those that PEFT has; None if they are."""
    listed = ", ".join(sorted(parts))
    if parts - set(group.parts):
        return f"PEFT has {listed} here, and leaves as it starts what the file lacks"
    surplus = sorted(set(group.parts) - parts)
    return f"PEFT ignores {surplus[0]}: it has {listed} here" if surplus else None


def _adalora(config: PeftConfig, group: ModuleTensors) -> str | None:
    """Ranks that the budget left over: PEFT resizes the layers by the masks of the config."""
    masks = config.raw.get("rank_pattern")
    if "lora_A" not in group.infos or not group.infos["lora_A"].shape:
        return None
    rank = group.infos["lora_A"].shape[0]
    mask = masks.get(f"{group.module}.lora_E") if isinstance(masks, dict) else None
    if mask is None:
        return None  # another rank than init_r: refused
    if not isinstance(mask, list) or not all(isinstance(kept, bool) for kept in mask):
        return "rank_pattern holds no list of true and false for it"
    if sum(mask) != rank:
        return f"rank_pattern keeps {sum(mask)} ranks, the tensors have {rank}"
    return None


def _loha(config: PeftConfig, group: ModuleTensors) -> str | None:
    shape = group.infos["hada_w1_b"].shape if "hada_w1_b" in group.infos else ()
    declared = config.declared_rank(group.module)
    if shape and declared is not None and declared != shape[0]:
        return f"the config says rank {declared}, the tensors have {shape[0]}"
    return None


def _lokr(config: PeftConfig, group: ModuleTensors) -> str | None:
    """Which sides are split follows from the rank and the sizes (`LoKrLayer.update_layer`)."""
    rank = config.declared_rank(group.module)
    first, second = _side(group, "lokr_w1"), _side(group, "lokr_w2")
    if rank is None or first is None or second is None:
        return None  # the reader says why
    factor = config.raw.get("decompose_factor", -1)
    if type(factor) is not int:
        return "decompose_factor is no whole number"
    for axis in (0, 1):
        if factorised(first[axis] * second[axis], factor) != (first[axis], second[axis]):
            return "PEFT refuses it: decompose_factor gives the two sides other sizes"
    whole_first = not (config.raw.get("decompose_both") and rank < max(first) / 2)
    whole_second = rank >= max(second) / 2
    parts = {"lokr_w1"} if whole_first else {"lokr_w1_a", "lokr_w1_b"}
    parts |= {"lokr_w2"} if whole_second else {"lokr_w2_a", "lokr_w2_b"}
    return _exactly(group, parts)


def _side(group: ModuleTensors, stem: str) -> tuple[int, int] | None:
    """(rows, columns) of one side of LoKr, whole or split."""
    infos = group.infos
    if stem in infos:
        shape = infos[stem].shape
    elif f"{stem}_a" in infos and f"{stem}_b" in infos:
        shape = (*infos[f"{stem}_a"].shape[:1], *infos[f"{stem}_b"].shape[-1:])
    else:
        return None
    return (shape[0], shape[1]) if len(shape) == 2 and 0 not in shape else None


def factorised(size: int, factor: int) -> tuple[int, int]:
    """Two factors of a size, the smaller one as large as a factor allows; (0, 0) of huge sizes.

    `peft.tuners.lokr.layer.factorization`.
    """
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    limit = math.isqrt(size) if factor == -1 else min(factor, math.isqrt(size))
    if limit > _MAX_SQUARE_ROOT:
        return 0, 0
    first = next((number for number in range(limit, 0, -1) if size % number == 0), 1)
    return first, size // first


def _gralora(config: PeftConfig, group: ModuleTensors) -> str | None:
    parts = {"gralora_A", "gralora_B"}
    if config.raw.get("hybrid_r"):
        parts |= {"gralora_A_general", "gralora_B_general"}
    rank = group.infos["gralora_A"].shape[-1:] if "gralora_A" in group.infos else ()
    if rank and config.rank is not None and (config.rank,) != rank:
        return f"PEFT refuses it: the config says rank {config.rank}, the tensors have {rank[0]}"
    return _exactly(group, parts)


def _vblora(config: PeftConfig, group: ModuleTensors) -> str | None:
    kinds = ("_topk_indices", "_topk_weights")
    endings = kinds if config.raw.get("save_only_topk_weights") else ("",)
    return _exactly(group, {f"vblora_logits_{side}{end}" for side in "AB" for end in endings})


def _supertuning(config: PeftConfig, group: ModuleTensors) -> str | None:
    parts = {"supertuning_values", "supertuning_indices"}
    if config.rank is not None:
        parts |= {"supertuning_lora_A", "supertuning_lora_B"}
    return _exactly(group, parts)


_PARTS: dict[str, Parts] = {
    "ADALORA": _adalora,
    "LOHA": _loha,
    "LOKR": _lokr,
    "GRALORA": _gralora,
    "VBLORA": _vblora,
    "SUPERTUNING": _supertuning,
}
"""peft_type -> why PEFT's layer for a module has other tensors than the file, if so."""
