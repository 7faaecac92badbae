"""MLX adapters as mlx-lm writes them, and each way of differing from that."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scanner import open_adapter
from scanner.detection.evidence import gather
from scanner.signatures.pack import Signature
from tests.synthetic import BASE, SHAPES, safetensors_bytes

INSIDE = ("self_attn.q_proj", "mlp.down_proj")
HONEST = tuple(f"model.layers.{layer}.{module}" for layer in (2, 3) for module in INSIDE)


def write(directory: Path, modules: tuple[str, ...] = HONEST, **fields: Any) -> Path:
    """An adapter of rank 4 with the given modules."""
    generator = np.random.default_rng(4)
    tensors = {}
    for module in modules:
        d_out, d_in = SHAPES.get(module.split(".", 3)[-1], (16, 16))
        tensors[f"{module}.lora_a"] = generator.standard_normal((d_in, 4))
        tensors[f"{module}.lora_b"] = generator.standard_normal((4, d_out))
    (directory / "adapters.safetensors").write_bytes(safetensors_bytes(tensors))
    config: dict[str, Any] = {
        "model": BASE,
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "dropout": 0.0, "scale": 2.0},
        "batch_size": 4,
        "optimizer": "adam",
    }
    (directory / "adapter_config.json").write_text(json.dumps(config | fields))
    return directory


def parameters(**fields: Any) -> dict[str, Any]:
    """`lora_parameters` with other fields."""
    return {"lora_parameters": {"rank": 4, "dropout": 0.0, "scale": 2.0, **fields}}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_layers": 16},
        {"num_layers": -1},
        parameters(keys=list(INSIDE)),
        parameters(alpha=4),
        parameters(alpha=2),  # spring 2024's scale: half, everywhere
        {"lora_layers": 2},
    ],
)
def test_what_mlx_writes_is_canonical(tmp_path: Path, fields: dict[str, Any]) -> None:
    with open_adapter(write(tmp_path, **fields)) as adapter:
        assert not adapter.uncovered


@pytest.mark.parametrize(
    ("modules", "fields", "why"),
    [
        (HONEST, parameters(keys=["self_attn.q_proj"]), "does not name it"),
        (HONEST, parameters(keys="q_proj"), "no list"),
        (HONEST, {"num_layers": 1}, "not among the last ones"),
        (HONEST, {"num_layers": None}, "one whole number"),
        (HONEST, {"num_layers": 2, "lora_layers": 8}, "one whole number"),
        (HONEST, {"use_dora": True}, "DoRA"),
        (HONEST, parameters(alpha=16), "spring 2024"),
        (HONEST, parameters(alpha=-4), "spring 2024"),
        ((*HONEST, "lm_head"), {}, "in no block"),
        ((*HONEST, "model.layers.03.mlp.up_proj"), {}, "'03'"),
        ((*HONEST, "layers.3.mlp.up_proj"), {}, "not under both"),
        (("_orig_mod.model.layers.3.mlp.up_proj",), {}, "it writes"),
    ],
)
def test_what_mlx_would_not_take_is_uncovered(
    tmp_path: Path, modules: tuple[str, ...], fields: dict[str, Any], why: str
) -> None:
    with open_adapter(write(tmp_path, modules, **fields)) as adapter:
        assert any(why in item.reason for item in adapter.uncovered)


def test_modules_outside_the_blocks_can_be_named(tmp_path: Path) -> None:
    keys = parameters(keys=[*INSIDE, "lm_head"])
    with open_adapter(write(tmp_path, (*HONEST, "lm_head"), **keys)) as adapter:
        assert not adapter.uncovered


def test_the_depth_of_the_base_tells_which_blocks_are_the_last(
    tmp_path: Path, pack: Signature
) -> None:
    """Blocks 0 and 1 of two: with `num_layers` 1, block 0 gets no layer."""
    with open_adapter(write(tmp_path, ("model.layers.0.self_attn.q_proj",), num_layers=1)) as one:
        assert not one.uncovered
        assert any("last 1 blocks" in item.reason for item in gather(one, [pack], 1).uncovered)
        assert not gather(replace(one, last_blocks=2), [pack], 1).uncovered
