"""What one scan of a 7B model's adapter in memory costs beside a step of its training.

The adapter is real: PEFT's, of rank 16 on all seven projections of 32 blocks, in float32 as PEFT
keeps it; the base behind it has no weights, since a scan does not read them. A whole step of a 7B
model is too much for a machine without an accelerator, so one block of it is trained for real,
forwards and backwards, and counted 32 times; embeddings, head and optimiser are left out, which
makes the step look cheaper than it is. Times are the processor's: other work on the machine does
not change them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.speed.inputs import LLAMA_7B, write_pack
from scanner.integrations.watching import AdapterWatch
from scanner.signatures.pack import load_signature

RANK = 16
TOKENS = 512
_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def _config(layers: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=32,
    )


def adapted_model() -> Any:
    """A 7B model whose adapter is in memory and whose own weights are nowhere."""
    with torch.device("meta"):
        model = LlamaForCausalLM(_config(LLAMA_7B.layers))
        model.name_or_path = LLAMA_7B.name
        adapted = get_peft_model(
            model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_TARGETS)
        )
    for module in adapted.modules():
        for factor in ("lora_A", "lora_B"):
            if "default" in getattr(module, factor, {}):
                linear = getattr(module, factor)["default"]
                values = torch.randn(linear.weight.shape) * 0.02
                linear.weight = torch.nn.Parameter(values)
    return adapted


def seconds_per_scan(scans: int) -> float:
    """Median processor time of a scan, the digest of the weights included."""
    with tempfile.TemporaryDirectory() as scratch:
        write_pack(Path(scratch, "pack"), LLAMA_7B)
        watch = AdapterWatch(adapted_model(), [load_signature(Path(scratch, "pack"))])
        watch.begin(1000)
        watch.scan(1)
        (seen,) = watch.scan(2)
        assert seen.result.p_value is not None, seen.result.reasons
        return _timed(lambda: watch.scan(3), scans)


def seconds_per_step(steps: int) -> float:
    """Median processor time of a step on one sequence, as 32 times that of one block."""
    model = get_peft_model(
        LlamaForCausalLM(_config(1)),
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=_TARGETS),
    )
    block, rotary = model.base_model.model.model.layers[0], model.base_model.model.model.rotary_emb
    # The gradient goes on to the block below.
    hidden = torch.randn(1, TOKENS, 4096, requires_grad=True)
    positions = rotary(hidden, torch.arange(TOKENS)[None])

    def step() -> None:
        output = block(hidden, position_embeddings=positions)
        (output[0] if isinstance(output, tuple) else output).square().mean().backward()

    step()
    return LLAMA_7B.layers * _timed(step, steps)


def _timed(run: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        started = time.process_time()
        run()
        taken.append(time.process_time() - started)
    return median(taken)
