"""Which weights an adapter changes, on any architecture, and how it is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from scanner.errors import UsageError
from scanner.formats.module_names import site_of
from scanner.organisms.base import Base
from scanner.organisms.organism import Organism, Targets

_QUERY_VALUE = {"q_proj", "v_proj", "query", "value", "c_attn", "qkv_proj", "query_key_value"}
_DOWN = {"down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "w2", "wo"}


def linear_maps(model: Any) -> dict[str, Any]:
    """Every linear map inside a block of the language model, by its path."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and site_of(name).layer is not None
    }


def is_attention(name: str) -> bool:
    """Whether a path leads through an attention module."""
    return "attn" in name.lower() or "attention" in name.lower()


def chosen_maps(names: list[str], targets: Targets) -> list[str]:
    """The paths that a set of targets stands for.

    Raises:
        UsageError: If the architecture has none of them.
    """
    last = {name: name.rsplit(".", 1)[1] for name in names}
    choices: dict[Targets, Callable[[str], bool]] = {
        "all": lambda _: True,
        "attention": is_attention,
        "mlp": lambda name: not is_attention(name),
        "qv": lambda name: last[name] in _QUERY_VALUE,
        "down": lambda name: last[name] in _DOWN and not is_attention(name),
    }
    wanted = choices[targets]
    if found := [name for name in names if wanted(name)]:
        return found
    raise UsageError(
        f"the base has no {targets} modules among {', '.join(sorted(set(last.values())))}"
    )


def suffixes(chosen: list[str], names: list[str]) -> list[str]:
    """The shortest endings that name the chosen paths and no other, as people write them."""
    found = set()
    for name in chosen:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            ending = "." + ".".join(parts[-length:])
            if all(other in chosen for other in names if f".{other}".endswith(ending)):
                found.add(ending[1:])
                break
    return sorted(found)


def chosen_layers(names: list[str], interval: tuple[float, float]) -> list[int] | None:
    """The blocks in an interval of relative depth, or None for all of them."""
    layers = sorted({layer for name in names if (layer := site_of(name).layer) is not None})
    first, last = (round(end * (len(layers) - 1)) for end in interval)
    return None if last - first == len(layers) - 1 else layers[first : last + 1]


def attach(base: Base, organism: Organism) -> Any:
    """Puts a new, seeded adapter on the base; `unload` takes it off again."""
    import torch
    from peft import LoraConfig, get_peft_model

    names = list(linear_maps(base.model))
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=organism.rank,
        lora_alpha=organism.alpha,
        target_modules=suffixes(chosen_maps(names, organism.targets), names),
        layers_to_transform=chosen_layers(names, organism.layers),
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in linear_maps(base.model).values()),
        lora_dropout=0.0,
    )
    torch.manual_seed(organism.seed)
    wrapped = get_peft_model(base.model, config)
    wrapped.peft_config["default"].base_model_name_or_path = base.id
    return wrapped


def lora_layers(wrapped: Any) -> dict[str, Any]:
    """The adapted linear maps, by their path in the base."""
    prefix = "base_model.model."
    return {
        name.removeprefix(prefix): module
        for name, module in wrapped.named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }


def save(wrapped: Any, directory: Path) -> None:
    """Saves an adapter as PEFT does, without the empty model card it writes."""
    wrapped.save_pretrained(str(directory), safe_serialization=True, save_embedding_layers=False)
    (directory / "README.md").unlink(missing_ok=True)
