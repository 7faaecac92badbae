"""What PEFT would have written for a LoRA config, against what the file holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from scanner.errors import TargetError
from scanner.formats.architectures import ROLES
from scanner.formats.canon.blocks import FILLED, lacking
from scanner.formats.canon.fields import config_entry, departing_fields
from scanner.formats.canon.names import (
    PREFIX,
    ModuleTensors,
    is_embedding,
    may_be_embedding,
    odd_path,
    second_spellings,
    why_misspelt,
)
from scanner.formats.canon.scales import uneven_lora
from scanner.formats.canon.targets import Targets
from scanner.formats.model import Uncovered
from scanner.formats.peft_config import PeftConfig

_ENDINGS = {"lora_A": ".weight", "lora_B": ".weight"}
_FACTORS = {True: "lora_embedding_A and _B", False: "lora_A and lora_B"}
"""Whether a module is an embedding -> the factors PEFT makes for it."""
_DEFAULT_RANK = 8
_PATTERNED = "vLLM and SGLang read no alpha_pattern or rank_pattern, least of all of parameters"


def departures(config: PeftConfig, groups: Sequence[ModuleTensors]) -> list[Uncovered]:
    """Everything in which an adapter differs from what PEFT would have written and would read.

    Args:
        config: Its config.
        groups: The tensors of each module.
    """
    found = [*departing_fields(config), *_alpha(config)]
    try:
        found += _tensors(config, groups)
    except TargetError as error:
        found.append(Uncovered("adapter_config.json", error.what))
    return found


def fills_at_random(config: PeftConfig) -> bool:
    """Whether layers that the file has no tensors for do something."""
    return not config.raw.get("init_lora_weights", True)


def _lacking(config: PeftConfig, targets: Targets, modules: frozenset[str]) -> Iterator[Uncovered]:
    """Modules the file lacks although `init_lora_weights` leaves random factors in them."""
    if not fills_at_random(config):
        return
    listed = isinstance(config.raw.get("target_modules"), list)
    if not listed or config.raw.get("target_parameters"):
        yield config_entry(
            "init_lora_weights",
            "false: in modules that the config selects and the file lacks, PEFT leaves random "
            "factors, and target_modules alone does not list their names",
        )
    elif module := lacking(targets, modules):
        yield Uncovered(f"{PREFIX}{module}", FILLED)


def _alpha(config: PeftConfig) -> Iterator[Uncovered]:
    """An alpha that no trainer writes."""
    for key, alpha in [
        ("lora_alpha", config.raw.get("lora_alpha")),
        *((f"alpha_pattern[{name[:80]!r}]", alpha) for name, alpha in config.alpha_pattern.items()),
    ]:
        if isinstance(alpha, (int, float)) and alpha == 0:
            yield config_entry(
                key,
                "alpha is 0: PEFT, vLLM and SGLang add nothing, while llama.cpp takes 0 for a "
                "scale of 1 and adds B A",
            )
        elif isinstance(alpha, (int, float)) and alpha < 0:
            yield config_entry(key, "alpha is negative: no trainer writes that")


def _tensors(config: PeftConfig, groups: Sequence[ModuleTensors]) -> Iterator[Uncovered]:
    parameters = _target_parameters(config)
    modules = frozenset(group.module for group in groups)
    targets = Targets(config, modules)
    yield from _lacking(config, targets, modules)
    elsewhere = second_spellings(modules)
    ranks = {
        group.module: rank
        for group in groups
        if not _holds_parameters(group, parameters) and (rank := _rank(group))
    }
    uneven = uneven_lora(config, ranks)
    for group in groups:
        reason = odd_path(group.module) or elsewhere.get(group.module)
        if not reason and _holds_parameters(group, parameters):
            reason = _PATTERNED if config.rank_pattern or config.alpha_pattern else None
        elif not reason:
            kind = _kind(group)
            reason = targets.why_not(group.module, kind) or _unfit(group, kind)
            reason = reason or _other_rank(config, group) or uneven.get(group.module)
        if reason:
            yield from (Uncovered(name, reason) for name in group.parts.values())
            continue
        yield from (Uncovered(name, why) for name, why in why_misspelt(group, _ENDINGS))
        yield from _surplus(config, group)


def _holds_parameters(group: ModuleTensors, parameters: frozenset[str]) -> bool:
    """Whether a module is selected by `target_parameters`, whatever `target_modules` says.

    How its factors are laid out is for `readers.peft_lora_layouts` to judge.
    """
    owner = group.module.replace(".base_layer", "")
    return owner in parameters or any(owner.endswith(f".{name}") for name in parameters)


def _target_parameters(config: PeftConfig) -> frozenset[str]:
    """Paths of the modules whose parameters `target_parameters` names."""
    value = config.raw.get("target_parameters")
    names: Iterable[object] = value if isinstance(value, list) else ()
    return frozenset(str(name).rpartition(".")[0] for name in names) - {""}


def _kind(group: ModuleTensors) -> str:
    """What the base's layer is, by the tensors PEFT would have made for it."""
    if "lora_A" not in group.parts and any("embedding" in part for part in group.parts):
        return "Embedding"
    shape = group.infos["lora_A"].shape if "lora_A" in group.infos else ()
    return "Conv" if len(shape) > 2 else "Linear"


def _unfit(group: ModuleTensors, kind: str) -> str | None:
    """Why PEFT's layer for a module has other tensors than these, if so."""
    if kind == "Embedding":
        if may_be_embedding(group.module):
            return None
        return f"PEFT ignores it: this module is no embedding, it has {_FACTORS[False]}"
    if is_embedding(group.module):
        return f"PEFT ignores it: this module is an embedding, it has {_FACTORS[True]}"
    if kind == "Conv" and group.module.rpartition(".")[2] in ROLES:
        return "PEFT refuses it: this module is a linear layer, its factors are matrices"
    return None


def _surplus(config: PeftConfig, group: ModuleTensors) -> Iterator[Uncovered]:
    """Parts that PEFT's layer does not have beside the others."""
    embedding = _kind(group) == "Embedding"
    for part, name in group.parts.items():
        if part == "lora_diag" and not config.raw.get("kasa_config"):
            yield Uncovered(name, "PEFT ignores it without kasa_config")
        elif part != "lora_diag" and embedding != ("embedding" in part):
            yield Uncovered(name, f"PEFT ignores it: this module has {_FACTORS[embedding]} alone")


def _rank(group: ModuleTensors) -> int:
    """The rank of a module's factors; 0 if they show none."""
    part = "lora_embedding_A" if _kind(group) == "Embedding" else "lora_A"
    shape = group.infos[part].shape if part in group.infos else ()
    return shape[0] if shape else 0


def _other_rank(config: PeftConfig, group: ModuleTensors) -> str | None:
    """Why a config that gives no rank does not fit the tensors, if so."""
    rank = _rank(group)
    if config.rank is not None or rank in (0, _DEFAULT_RANK):
        return None
    return f"the config gives no r: PEFT takes {_DEFAULT_RANK}, the tensors have {rank}"
