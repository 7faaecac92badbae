"""What mlx-lm would take of an MLX adapter (`mlx_lm/tuner/utils.py`, 0.32).

mlx-lm gives LoRA layers to the modules that ``lora_parameters.keys`` names inside the last
``num_layers`` blocks (all modules without ``keys``, all blocks if ``num_layers`` is 0 or less),
and to modules whose whole path ``keys`` names. Up to 0.31 it loads a file with ``strict=False``
and ignores tensors of other modules; 0.32 refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scanner.formats.canon.fields import config_entry
from scanner.formats.canon.names import ModuleTensors, odd_path, second_spellings
from scanner.formats.model import Uncovered
from scanner.formats.module_names import site_of

_IGNORED = "mlx-lm before 0.32 ignores it, and newer ones refuse it: "


def departures(config: Mapping[str, Any], groups: Sequence[ModuleTensors]) -> list[Uncovered]:
    """Everything in which an adapter differs from what mlx-lm would have written.

    Args:
        config: The decoded config.
        groups: The tensors of each module.
    """
    return [*_config(config), *_tensors(config, groups)]


def last_blocks(config: Mapping[str, Any]) -> int | None:
    """How many of the base's last blocks get layers; None for all of them."""
    value = config.get("num_layers", config.get("lora_layers"))
    return value if type(value) is int and value > 0 else None


def _config(config: Mapping[str, Any]) -> Iterator[Uncovered]:
    numbers = [config[key] for key in ("num_layers", "lora_layers") if key in config]
    if not numbers or any(type(number) is not int for number in numbers) or len(set(numbers)) > 1:
        yield config_entry(
            "num_layers", "mlx-lm reads from it which blocks get layers: one whole number"
        )
    if config.get("use_dora"):
        yield config_entry("use_dora", "DoRA: the delta cannot be recovered without the base")
    parameters = _parameters(config)
    alpha, rank = parameters.get("alpha"), parameters.get("rank")
    if alpha is None:
        return
    if not _is_number(alpha) or not _is_number(rank) or not 0 < alpha <= rank:
        yield config_entry(
            "lora_parameters.alpha",
            "mlx-lm of spring 2024 multiplied scale by alpha / rank, others do not read alpha",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _parameters(config: Mapping[str, Any]) -> Mapping[str, Any]:
    value = config.get("lora_parameters")
    return value if isinstance(value, dict) else {}


def _tensors(config: Mapping[str, Any], groups: Sequence[ModuleTensors]) -> Iterator[Uncovered]:
    keys = _parameters(config).get("keys")
    named = frozenset(map(str, keys)) if isinstance(keys, list) else None
    if keys is not None and named is None:
        yield config_entry("lora_parameters.keys", "it is no list of module names")
    elsewhere = second_spellings(group.module for group in groups)
    blocks = [layer for group in groups if (layer := site_of(group.module).layer) is not None]
    count = last_blocks(config)
    first = max(blocks, default=0) - count + 1 if count is not None else 0
    for group in groups:
        reason = odd_path(group.module) or elsewhere.get(group.module)
        reason = reason or _left_out(group.module, named, first)
        for part, name in group.parts.items():
            if reason:
                yield Uncovered(name, reason)
            elif name != f"{group.module}.{part}":
                yield Uncovered(name, f"{_IGNORED}it writes {f'{group.module}.{part}'!r}")


def _left_out(module: str, named: frozenset[str] | None, first: int) -> str | None:
    """Why mlx-lm gives a module no layer, if so.

    Args:
        module: Module path.
        named: What ``keys`` lists, if it is there.
        first: The first block that can be among the last ones, whatever the base's depth.
    """
    layer = site_of(module).layer
    if named is not None and module in named:
        return None
    if layer is None:
        return f"{_IGNORED}it is in no block, and lora_parameters.keys does not name it"
    if layer < first:
        return f"{_IGNORED}its block is not among the last ones that num_layers counts"
    inside = module.partition(f".{layer}.")[2]
    if named is not None and inside not in named:
        return f"{_IGNORED}lora_parameters.keys does not name it"
    return None
