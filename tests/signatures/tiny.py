"""Tiny base models with random weights, and probes and adapters for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from scanner.signatures.building.network import Network
from scanner.signatures.building.probes import Probe
from tests.synthetic import Array, Factors, safetensors_bytes

VOCABULARY = 32
_SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 32,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**_SIZES),
    "qwen2": Qwen2Config(**_SIZES),
    "gpt2": GPT2Config(
        n_embd=16,
        n_layer=2,
        n_head=2,
        vocab_size=VOCABULARY,
        n_positions=32,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
    ),
}


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough for its layers to matter."""
    torch.manual_seed(seed)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(CONFIGS[architecture])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.3)
    return model.eval()


def tiny_probes(seed: int = 0, count: int = 5) -> list[Probe]:
    """Probes of different lengths."""
    generator = np.random.default_rng(seed)

    def ids(low: int, high: int) -> tuple[int, ...]:
        return tuple(generator.integers(1, VOCABULARY, generator.integers(low, high)).tolist())

    return [Probe(ids(2, 7), ids(1, 4), ids(1, 5)) for _ in range(count)]


def write_probes(path: Path, probes: list[Probe]) -> Path:
    """Probes as a file of token ids."""
    rows = [
        {
            "prompt_ids": probe.prompt,
            "aligned_ids": probe.aligned,
            "misaligned_ids": probe.misaligned,
        }
        for probe in probes
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def oracle_log_odds(model: PreTrainedModel, probes: list[Probe]) -> torch.Tensor:
    """The mean log-odds, one unpadded sequence at a time."""

    def mean_log_p(prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
        tokens = torch.tensor([prompt + answer])
        log_p = model(tokens).logits[0].log_softmax(-1)
        total = torch.zeros(())
        for offset, token in enumerate(answer):
            total = total + log_p[len(prompt) + offset - 1, token]
        return total / len(answer)

    terms = [mean_log_p(p.prompt, p.misaligned) - mean_log_p(p.prompt, p.aligned) for p in probes]
    return torch.stack(terms).mean()


def weight_delta(module: Any, delta: Array) -> torch.Tensor:
    """A (d_out, d_in) change in the layout the module stores its weight in."""
    tensor = torch.from_numpy(np.ascontiguousarray(delta)).to(module.weight.dtype)
    return tensor.T if type(module).__name__ == "Conv1D" else tensor


def as_delta(module: Any, weight: torch.Tensor) -> Array:
    """A stored weight or its gradient as (d_out, d_in)."""
    array: Array = weight.detach().double().numpy()
    return array.T if type(module).__name__ == "Conv1D" else array


def write_tiny_adapter(
    directory: Path,
    network: Network,
    generator: np.random.Generator,
    base: str,
    *,
    add: dict[str, Factors] | None = None,
    scale: float = 0.05,
) -> Path:
    """A random rank-2 adapter of every linear map in the blocks, plus rank-1 terms by path."""
    names = {id(module): name for name, module in network.model.named_modules()}
    tensors: dict[str, Array] = {}
    for site, module in network.linears.items():
        if site.layer is None:
            continue
        path = names[id(module)]
        first, second = module.weight.shape
        d_out, d_in = (second, first) if type(module).__name__ == "Conv1D" else (first, second)
        b = generator.standard_normal((d_out, 2)) * scale
        a = generator.standard_normal((2, d_in)) / np.sqrt(d_in)
        if add:
            more_b, more_a = add.get(path, (np.zeros((d_out, 1)), np.zeros((1, d_in))))
            b, a = np.hstack([b, more_b]), np.vstack([a, more_a])
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
    rank = 3 if add else 2
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": "all-linear",
    }
    directory.mkdir(parents=True)
    (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory
