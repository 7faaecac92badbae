"""PEFT's other types: what loads without an error and not as it was read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.tuners.lokr.layer import factorization
from safetensors.torch import load_file, save_file

from scanner import open_adapter
from scanner.formats.canon.blocks import lacking_module
from scanner.formats.canon.methods import factorised
from tests.formats.oracle import llama, write_peft

Tensors = dict[str, torch.Tensor]
TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]
Q = "base_model.model.model.layers.0.self_attn.q_proj."


def written(directory: Path, make: Callable[..., Any], **settings: Any) -> Path:
    """An adapter as PEFT writes it."""
    config = make(target_modules=TARGETS, task_type="CAUSAL_LM", **settings)
    return write_peft(directory, llama, config)


def altered(path: Path, change: Callable[[Tensors], Tensors] | None, fields: dict[str, Any]) -> str:
    """All that is uncovered once tensors and config were changed in place."""
    file = path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(change(tensors) if change else tensors, file)
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    with open_adapter(path) as adapter:
        return "\n".join(item.reason for item in adapter.uncovered)


def adding(*names: str, like: str) -> Callable[[Tensors], Tensors]:
    """Adds tensors shaped as another one."""
    return lambda tensors: {**tensors, **dict.fromkeys(names, tensors[like] + 1)}


def without(part: str) -> Callable[[Tensors], Tensors]:
    """Removes tensors."""
    return lambda tensors: {name: v for name, v in tensors.items() if part not in name}


CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], Any, dict[str, Any], str]] = {
    "LoKr, a whole side beside a split one": (
        peft.LoKrConfig,
        {"r": 2, "alpha": 2, "decompose_factor": 4},
        lambda tensors: {
            **tensors,
            f"{Q}lokr_w2": tensors[f"{Q}lokr_w2_a"] @ tensors[f"{Q}lokr_w2_b"],
        },
        {},
        "PEFT ignores lokr_w2",
    ),
    "LoKr, sides of other sizes": (
        peft.LoKrConfig,
        {"r": 20, "alpha": 20},
        None,
        {"decompose_factor": 2},
        "other sizes",
    ),
    "LoKr, a scale above 1": (
        peft.LoKrConfig, {"r": 2, "alpha": 1}, None, {}, "PEFT 0.6 to 0.13",
    ),
    "LoKr, alphas of their own": (
        peft.LoKrConfig,
        {"r": 2, "alpha": 2, "alpha_pattern": {"q_proj": 3}},
        None,
        {},
        "PEFT 0.6 to 0.13",
    ),
    "LoHa, the rank of another": (
        peft.LoHaConfig, {"r": 3, "alpha": 5}, None, {"r": 2}, "rank 2",
    ),
    "LoHa, patterns in one table": (
        peft.LoHaConfig,
        {"r": 3, "alpha": 3, "rank_pattern": {".*_proj": 3}},
        None,
        {"alpha_pattern": {".*q_proj": 9}},
        "PEFT 0.6 to 0.14",
    ),
    "GraLoRA, an ordinary part without its rank": (
        peft.GraloraConfig,
        {"r": 4, "gralora_k": 4, "hybrid_r": 2},
        None,
        {"hybrid_r": 0},
        "PEFT ignores gralora_A_general",
    ),
    "VeRA, projections drawn from a seed": (
        peft.VeraConfig, {"r": 4}, None, {"save_projection": False}, "projection_prng_key",
    ),
    "PVeRA, a draw for every input": (
        peft.PveraConfig, {"r": 4}, None, {"sample_at_inference": True}, "every input",
    ),
    "Uni-LoRA, indices drawn from a seed": (
        peft.UniLoraConfig,
        {"r": 3, "theta_d_length": 50, "save_indices": True},
        None,
        {"save_indices": False},
        "proj_seed",
    ),
    "Uni-LoRA, a module left out": (
        peft.UniLoraConfig,
        {"r": 3, "theta_d_length": 50, "save_indices": True},
        without("layers.0.self_attn.o_proj"),
        {},
        "at random",
    ),
    "VB-LoRA, logits beside their largest": (
        peft.VBLoRAConfig,
        {"r": 2, "num_vectors": 10, "vector_length": 8, "save_only_topk_weights": True},
        adding(f"{Q}vblora_logits_A", like=f"{Q}vblora_logits_A_topk_weights"),
        {},
        "PEFT ignores vblora_logits_A",
    ),
    "Super-Tuning, a targeted name without tensors": (
        peft.SupertuningConfig,
        {"r": 3, "lora_alpha": 3, "sparsity": 0.9, "init_weights": False},
        without("o_proj"),
        {},
        "at random",
    ),
    "C3A, a module left out": (
        peft.C3AConfig, {"block_size": 8}, without("layers.1.mlp.up_proj"), {}, "at random",
    ),
    "AdaLoRA, a mask that keeps another number": (
        peft.AdaLoraConfig,
        {"init_r": 4, "total_step": 10},
        None,
        {"rank_pattern": {"model.layers.0.self_attn.q_proj.lora_E": [True, False, True, False]}},
        "keeps 2 ranks",
    ),
    "an ending that is not PEFT's": (
        peft.LoHaConfig,
        {"r": 3},
        lambda tensors: {f"{name}.weight": value for name, value in tensors.items()},
        {},
        "other spellings",
    ),
    "a module that is not targeted": (
        peft.DeloraConfig, {"r": 3}, None, {"target_modules": ["q_proj"]}, "leaves it out",
    ),
    "a shared tensor under another name": (
        peft.VeraConfig,
        {"r": 4},
        lambda tensors: {
            name.replace("base_model.vera_A", "base_model.vera_A.default"): value
            for name, value in tensors.items()
        },
        {},
        "base_model.vera_A",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_peft_reads_otherwise_is_uncovered(case: str, tmp_path: Path) -> None:
    make, settings, change, fields, why = CASES[case]
    assert why in altered(written(tmp_path, make, **settings), change, fields)


def test_a_module_without_any_rank_left_is_a_delta_of_0(tmp_path: Path) -> None:
    """AdaLoRA's budget can leave a module nothing; PEFT writes factors of rank 0."""
    path = written(tmp_path, peft.AdaLoraConfig, init_r=4, total_step=10)

    def pruned(tensors: Tensors) -> Tensors:
        kept = {**tensors}
        kept[f"{Q}lora_A"] = tensors[f"{Q}lora_A"][:0].clone()
        kept[f"{Q}lora_E"] = tensors[f"{Q}lora_E"][:0].clone()
        kept[f"{Q}lora_B"] = tensors[f"{Q}lora_B"][:, :0].clone()
        return kept

    masks = {"model.layers.0.self_attn.q_proj.lora_E": [False] * 4}
    assert not altered(path, pruned, {"rank_pattern": masks})
    with open_adapter(path) as adapter:
        assert len(adapter.updates) == 7
    halves = altered(path, lambda tensors: {**tensors, f"{Q}lora_B": torch.ones(24, 4)}, {})
    assert "empty" in halves


def test_factors_of_a_size_are_those_of_peft() -> None:
    for size in range(1, 200):
        for factor in (-1, 1, 2, 3, 4, 7, 8, 16, 1000):
            assert factorised(size, factor) == factorization(size, factor)


def test_what_the_blocks_lack() -> None:
    def modules(*names: str) -> frozenset[str]:
        return frozenset(f"model.layers.{name}" for name in names)

    assert lacking_module(modules("0.a.q", "1.a.q")) is None
    assert lacking_module(modules("0.a.q", "1.a.q", "1.a.v")) == "model.layers.0.a.v"
    assert lacking_module(modules("1.a.q")) == "model.layers.0.a.q"
    assert lacking_module(frozenset({"lin0"})) is None
    assert lacking_module(modules("999999.a.q")) is not None
