"""What an adapter really adds to a base model, from the library that wrote it.

The oracle loads a saved adapter into a float64 copy of its base with the writing library,
merges it, and subtracts the base. Nothing of this package takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from huggingface_hub import constants
from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from scanner.formats.model import Adapter, Site
from scanner.formats.module_names import site_of

# In this process only: those that tests start may speak to a local hub.
constants.HF_HUB_OFFLINE = True

Array = npt.NDArray[np.float64]
Build = Callable[[], Any]

WIDTH, HEADS, KV_HEADS, INNER, LAYERS, VOCAB = 24, 4, 2, 40, 2, 48
HUGE_RANK = 32
"""More than any dimension of the attention."""


def llama() -> Any:
    """A Llama of two blocks with grouped-query attention, weights fixed by a seed."""
    torch.manual_seed(11)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        tie_word_embeddings=False,
    )
    config.name_or_path = "tests/tiny-llama"
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    """A GPT-2 of two blocks, whose projections are Conv1D: weights stored (in, out)."""
    torch.manual_seed(12)
    config = transformers.GPT2Config(
        vocab_size=VOCAB,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        n_positions=32,
        tie_word_embeddings=False,
    )
    config.name_or_path = "tests/tiny-gpt2"
    return transformers.GPT2LMHeadModel(config)


def randomise(model: Any, seed: int = 5, share: float = 0.1) -> None:
    """Moves every trainable parameter off its initial value, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.dtype.is_floating_point:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
                parameter.add_((share * noise).to(parameter.dtype))


def write_peft(
    directory: Path,
    build: Build,
    config: PeftConfig,
    *,
    train: Callable[[Any], None] = randomise,
    dtype: torch.dtype = torch.float32,
    safe_serialization: bool = True,
) -> Path:
    """Makes an adapter with PEFT and saves it."""
    torch.manual_seed(3)
    model = get_peft_model(build(), config)
    train(model)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or "lora_" in name:
            parameter.data = parameter.data.to(dtype)
    model.save_pretrained(str(directory), safe_serialization=safe_serialization)
    return directory


def _weights(model: Any) -> dict[str, Array]:
    """Module path -> its weight as the matrix (d_out, d_in) that acts on column vectors."""
    found: dict[str, Array] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2:
            continue
        values = weight.detach().numpy().astype(np.float64, copy=True)
        if isinstance(module, (transformers.pytorch_utils.Conv1D, nn.Embedding)):
            values = values.T
        found[path] = values.reshape(len(values), -1)
    return found


def merged_deltas(directory: Path, build: Build) -> dict[str, Array]:
    """Module path -> merged minus base weight, (d_out, d_in), where it is not zero."""
    base = build().to(torch.float64)
    before = _weights(base)
    merged = PeftModel.from_pretrained(base, str(directory)).to(torch.float64).merge_and_unload()
    after = _weights(merged)
    assert after.keys() == before.keys()
    deltas = {path: after[path] - before[path] for path in before}
    return {path: delta for path, delta in deltas.items() if np.any(delta)}


def relative_error(got: npt.NDArray[Any], expected: Array) -> float:
    """||got - expected||_F / ||expected||_F."""
    return float(np.linalg.norm(got.astype(np.float64) - expected) / np.linalg.norm(expected))


def assert_same_updates(
    adapter: Adapter, expected: Mapping[str, Array], tolerance: float = 1e-5
) -> None:
    """The adapter changes exactly the expected modules, by exactly the expected matrices."""
    by_site: dict[Site, Array] = {site_of(path): delta for path, delta in expected.items()}
    assert len(by_site) == len(expected)
    assert {update.site for update in adapter.updates} == set(by_site)
    for update in adapter.updates:
        error = relative_error(update.delta(), by_site[update.site])
        assert error <= tolerance, f"{update.site.key}: relative error {error:.2e}"
