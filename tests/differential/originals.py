"""Adapters as PEFT writes them, of every type that is recovered: what mutations start from."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft

from tests.differential.merging import BASES
from tests.differential.specimen import Specimen, read_specimen
from tests.formats.oracle import LAYERS, write_peft
from tests.formats.test_peft_methods_oracle import CASES, NEEDING_SHAPES, TARGETS

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]

_LORA: dict[str, tuple[str, dict[str, Any]]] = {
    "LORA": ("llama", {"r": 4, "lora_alpha": 12, "target_modules": ATTENTION}),
    "LORA all-linear": ("llama", {"r": 3, "target_modules": "all-linear"}),
    "LORA one module": ("llama", {"r": 4, "target_modules": ["o_proj"]}),
    "LORA rslora": (
        "llama",
        {"r": 4, "lora_alpha": 12, "use_rslora": True, "target_modules": ATTENTION},
    ),
    "LORA patterns": (
        "llama",
        {
            "r": 4,
            "lora_alpha": 12,
            "target_modules": ATTENTION,
            "rank_pattern": {"o_proj": 2, r"layers\.0\.self_attn\.q_proj": 6},
            "alpha_pattern": {"v_proj": 3, r"layers\.1\..*": 5},
        },
    ),
    "LORA one layer": (
        "llama",
        {"r": 4, "target_modules": ATTENTION, "layers_to_transform": [1]},
    ),
    "LORA regex": ("llama", {"r": 4, "target_modules": r".*\.layers\.1\..*(q|down)_proj"}),
    "LORA exclude": (
        "llama",
        {"r": 4, "target_modules": ATTENTION, "exclude_modules": r".*layers\.0.*o_proj"},
    ),
    "LORA embeddings": (
        "llama",
        {"r": 5, "lora_alpha": 15, "target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    ),
    "LORA gpt2": (
        "gpt2",
        {"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "LORA mixtral": ("mixtral", {"r": 4, "target_modules": ["q_proj", "o_proj"]}),
    "LORA experts": (
        "mixtral",
        {"r": 2, "lora_alpha": 6, "target_modules": [], "target_parameters": _EXPERTS},
    ),
    "LORA qalora": (
        "llama",
        {
            "r": 4,
            "target_modules": ["q_proj", "o_proj"],
            "use_qalora": True,
            "qalora_group_size": 8,
        },
    ),
    "LORA gaussian": (
        "llama",
        {"r": 4, "target_modules": ["o_proj"], "init_lora_weights": "gaussian"},
    ),
    "LORA false": ("llama", {"r": 4, "target_modules": ["o_proj"], "init_lora_weights": False}),
    "LORA dora": ("llama", {"r": 4, "target_modules": ["o_proj"], "use_dora": True}),
    "LORA bias": ("llama", {"r": 4, "target_modules": ["o_proj"], "lora_bias": True}),
    "LORA saved": (
        "llama",
        {"r": 4, "target_modules": ["o_proj"], "modules_to_save": ["lm_head"]},
    ),
}


def _lora(name: str, directory: Path) -> Specimen:
    base, settings = _LORA[name]
    config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    specimen = read_specimen(write_peft(directory, BASES[base], config), base)
    specimen.tensors = {
        name: tensor for name, tensor in specimen.tensors.items() if ".base_layer." not in name
    }  # as with save_embedding_layers=False
    return specimen


def _method(name: str, directory: Path) -> Specimen:
    make, settings = {**CASES, **NEEDING_SHAPES}[name]
    config = make(target_modules=TARGETS, task_type="CAUSAL_LM", **settings)
    return read_specimen(write_peft(directory, BASES["llama"], config), "llama")


def _mlx(name: str, directory: Path) -> Specimen:
    """As mlx-lm 0.32 writes it: the last block's attention."""
    generator = np.random.default_rng(8)
    tensors = {}
    for module, (d_out, d_in) in {"q_proj": (24, 24), "v_proj": (12, 24)}.items():
        stem = f"model.layers.{LAYERS - 1}.self_attn.{module}"
        tensors[f"{stem}.lora_a"] = generator.standard_normal((d_in, 4)).astype(np.float32)
        tensors[f"{stem}.lora_b"] = generator.standard_normal((4, d_out)).astype(np.float32)
    parameters = {
        "rank": 4,
        "dropout": 0.0,
        "scale": 1.5,
        "keys": ["self_attn.q_proj", "self_attn.v_proj"],
    }
    config = {
        "model": "tests/tiny-llama",
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": parameters,
    }
    return Specimen("llama", config, tensors, weights="adapters.safetensors")


def _older(name: str, directory: Path) -> Specimen:
    """With the fields PEFT 0.13 knows: that version refuses a config with others."""
    name = name.removesuffix(_OF_0_13)
    specimen = _lora(name, directory) if name in _LORA else _method(name, directory)
    specimen.config = {
        field: value for field, value in specimen.config.items() if field not in _SINCE_0_13
    }
    return specimen


_OF_0_13 = " of 0.13"
_SINCE_0_13 = frozenset(
    {
        "alora_invocation_tokens", "arrow_config", "corda_config", "ensure_weight_tying",
        "eva_config", "exclude_modules", "kasa_config", "lora_bias", "lora_ga_config",
        "monteclora_config", "peft_version", "qalora_group_size", "rank_dropout_scale",
        "target_parameters", "trainable_token_indices", "use_bdlora", "use_qalora",
        "velora_config",
    }
)  # fmt: skip
_ALSO_OF_0_13 = (
    "LORA", "LORA all-linear", "LORA rslora", "LORA patterns", "LORA one layer", "LORA regex",
    "LORA embeddings", "LORA gpt2", "ADALORA", "LOHA", "LOHA patterns", "LOKR split",
    "LOKR one side whole", "VERA", "VBLORA", "VBLORA top-k", "FOURIERFT",
)  # fmt: skip
_WRITERS: dict[str, Callable[[str, Path], Specimen]] = {
    **dict.fromkeys(_LORA, _lora),
    **dict.fromkeys((*CASES, *NEEDING_SHAPES), _method),
    **dict.fromkeys((name + _OF_0_13 for name in _ALSO_OF_0_13), _older),
    "MLX": _mlx,
}
KINDS = tuple(_WRITERS)
"""Every kind of adapter that mutations start from; the first word is its PEFT type."""


@functools.cache
def _original(kind: str) -> Specimen:
    with tempfile.TemporaryDirectory() as directory:
        return _WRITERS[kind](kind, Path(directory))


def original(kind: str) -> Specimen:
    """One adapter of a kind, written once, to be changed at will."""
    return _original(kind).copy()
