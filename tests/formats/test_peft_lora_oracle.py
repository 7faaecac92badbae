"""The PEFT LoRA reader against PEFT itself: dW = merged weights minus base weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig

from scanner import open_adapter
from tests.formats.oracle import (
    HUGE_RANK,
    LAYERS,
    Build,
    assert_same_updates,
    gpt2,
    llama,
    merged_deltas,
    write_peft,
)

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]

CASES: dict[str, tuple[Build, dict[str, Any], dict[str, Any]]] = {
    "plain": (llama, {"r": 4, "lora_alpha": 12, "target_modules": ATTENTION}, {}),
    "rslora": (llama, {"r": 4, "lora_alpha": 12, "use_rslora": True}, {}),
    "rank and alpha patterns": (
        llama,
        {
            "r": 4,
            "lora_alpha": 12,
            "target_modules": "all-linear",
            "rank_pattern": {
                r"layers\.0\.self_attn\..*": 2,
                "down_proj": 6,
                r"^model.layers.1.self_attn.q_proj": 3,
            },
            "alpha_pattern": {"self_attn.q_proj": 5, r".*mlp\.(up|gate)_proj": 7},
        },
        {},
    ),
    "rslora with patterns": (
        llama,
        {
            "r": 4,
            "lora_alpha": 12,
            "use_rslora": True,
            "target_modules": ATTENTION,
            "rank_pattern": {"o_proj": 9},
            "alpha_pattern": {"v_proj": 3},
        },
        {},
    ),
    "all-linear": (llama, {"r": 3, "target_modules": "all-linear"}, {}),
    "target_modules as a regex": (
        llama,
        {"r": 3, "target_modules": r".*\.layers\.1\..*(q|down)_proj"},
        {},
    ),
    "layers_to_transform": (
        llama,
        {"r": 3, "target_modules": ATTENTION, "layers_to_transform": [1]},
        {},
    ),
    "embeddings and lm_head": (
        llama,
        {"r": 5, "lora_alpha": 15, "target_modules": ["embed_tokens", "lm_head", "o_proj"]},
        {},
    ),
    "GPT-2 Conv1D": (gpt2, {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"]}, {}),
    "GPT-2 Conv1D, fan_in_fan_out and wte": (
        gpt2,
        {"r": 4, "target_modules": ["c_attn", "wte"], "fan_in_fan_out": True},
        {},
    ),
    "bf16": (llama, {"r": 4, "target_modules": ATTENTION}, {"dtype": torch.bfloat16}),
    "fp16": (llama, {"r": 4, "target_modules": ATTENTION}, {"dtype": torch.float16}),
    "fp64": (llama, {"r": 4, "target_modules": ATTENTION}, {"dtype": torch.float64}),
    ".bin": (llama, {"r": 4, "target_modules": ATTENTION}, {"safe_serialization": False}),
    "r > d": (llama, {"r": HUGE_RANK, "target_modules": ATTENTION}, {}),
    "fractional alpha": (llama, {"r": 4, "lora_alpha": 0.75, "target_modules": ATTENTION}, {}),
    "gaussian initialisation": (
        llama,
        {"r": 4, "init_lora_weights": "gaussian", "target_modules": ATTENTION},
        {},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_update_equals_merged_minus_base(case: str, tmp_path: Path) -> None:
    build, settings, how = CASES[case]
    config = LoraConfig(task_type="CAUSAL_LM", **settings)
    path = write_peft(tmp_path / "adapter", build, config, **how)
    expected = merged_deltas(path, build)
    assert expected
    with open_adapter(path) as adapter:
        assert adapter.format == "peft-lora"
        assert_same_updates(adapter, expected)


def test_untrained(tmp_path: Path) -> None:
    """A fresh adapter has B = 0: every update is there, and is exactly zero."""
    config = LoraConfig(r=4, target_modules=ATTENTION, task_type="CAUSAL_LM")
    path = write_peft(tmp_path, llama, config, train=lambda _model: None)
    assert not merged_deltas(path, llama)
    with open_adapter(path) as adapter:
        assert len(adapter.updates) == LAYERS * len(ATTENTION)
        assert not any(np.any(update.delta()) for update in adapter.updates)


def test_activated_lora(tmp_path: Path) -> None:
    """aLoRA is a plain LoRA that acts after its invocation tokens; PEFT refuses to merge it."""
    settings: dict[str, Any] = {"r": 4, "target_modules": ATTENTION}
    path = write_peft(tmp_path, llama, LoraConfig(alora_invocation_tokens=[1, 2], **settings))
    with open_adapter(path) as adapter:
        found = {update.site: update.delta() for update in adapter.updates}
        assert not adapter.uncovered
    config = json.loads((path / "adapter_config.json").read_text())
    config["alora_invocation_tokens"] = None
    (path / "adapter_config.json").write_text(json.dumps(config))
    with open_adapter(path) as adapter:
        assert_same_updates(adapter, merged_deltas(path, llama))
        assert all(np.array_equal(found[u.site], u.delta()) for u in adapter.updates)


def test_several_adapters_of_one_model(tmp_path: Path) -> None:
    """PEFT saves `default` at the root and every other adapter in a folder of its own."""
    from peft import get_peft_model

    from tests.formats.oracle import randomise

    model = get_peft_model(llama(), LoraConfig(r=2, target_modules=["q_proj"]))
    model.add_adapter("second", LoraConfig(r=3, lora_alpha=2, target_modules=["o_proj"]))
    model.set_adapter("second")
    randomise(model)
    model.set_adapter("default")
    randomise(model)
    model.save_pretrained(str(tmp_path))
    with open_adapter(tmp_path / "adapter_model.safetensors") as adapter:
        assert_same_updates(adapter, merged_deltas(tmp_path, llama))
    with open_adapter(tmp_path / "second") as adapter:
        assert_same_updates(adapter, merged_deltas(tmp_path / "second", llama))
