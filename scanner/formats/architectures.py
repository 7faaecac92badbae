"""Common architectures as data: roles of modules, fused projections, names other programs use.

Module names are the base model's own path below its block. Other programs write the same
modules under names of their own (llama.cpp, torchtune, Megatron); the tables here translate
them. Adding an architecture means adding rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RESIDUAL, HEADS, KEYS, INNER = "residual", "heads", "keys", "inner"
"""Kinds of dimension: the residual stream, all query heads together, all key or value
heads together, and the hidden layer of the MLP."""


class Role(NamedTuple):
    """Which kind of vector a module reads and which it writes."""

    reads: str
    writes: str | None
    """None for a fused projection, whose output is several vectors."""


ROLES: dict[str, Role] = {
    # Llama, Mistral, Qwen, Gemma, OLMo; OPT and BERT-like names below.
    "q_proj": Role(RESIDUAL, HEADS),
    "k_proj": Role(RESIDUAL, KEYS),
    "v_proj": Role(RESIDUAL, KEYS),
    "o_proj": Role(HEADS, RESIDUAL),
    "out_proj": Role(HEADS, RESIDUAL),
    "gate_proj": Role(RESIDUAL, INNER),
    "up_proj": Role(RESIDUAL, INNER),
    "down_proj": Role(INNER, RESIDUAL),
    "qkv_proj": Role(RESIDUAL, None),
    "gate_up_proj": Role(RESIDUAL, None),
    "w1": Role(RESIDUAL, INNER),
    "w2": Role(INNER, RESIDUAL),
    "w3": Role(RESIDUAL, INNER),
    # OPT, Phi-2, BART, Whisper
    "fc1": Role(RESIDUAL, INNER),
    "fc2": Role(INNER, RESIDUAL),
    # GPT-2, GPT-J, GPT-NeoX, Falcon, BLOOM, MPT
    "c_attn": Role(RESIDUAL, None),
    "c_fc": Role(RESIDUAL, INNER),
    "query_key_value": Role(RESIDUAL, None),
    "dense_h_to_4h": Role(RESIDUAL, INNER),
    "dense_4h_to_h": Role(INNER, RESIDUAL),
    "Wqkv": Role(RESIDUAL, None),
    # BERT, RoBERTa
    "query": Role(RESIDUAL, HEADS),
    "key": Role(RESIDUAL, HEADS),
    "value": Role(RESIDUAL, HEADS),
    # T5
    "q": Role(RESIDUAL, HEADS),
    "k": Role(RESIDUAL, HEADS),
    "v": Role(RESIDUAL, HEADS),
    "o": Role(HEADS, RESIDUAL),
    "wi_0": Role(RESIDUAL, INNER),
    "wi_1": Role(RESIDUAL, INNER),
    "wi": Role(RESIDUAL, INNER),
    "wo": Role(INNER, RESIDUAL),
}
"""Last component of a module's name -> its role."""

QKV, GATE_UP = ("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj")


class Fused(NamedTuple):
    """One weight that holds several projections."""

    parts: tuple[str, ...]
    """Logical projections, in the order of the rows."""
    interleaved: bool = False
    """Whether rows alternate between the parts (per head, or one by one) instead of lying
    one part after the other; the number of heads is not in the file then."""


FUSED: dict[str, Fused] = {
    "qkv_proj": Fused(QKV),  # Phi-3
    "c_attn": Fused(QKV),  # GPT-2
    "Wqkv": Fused(QKV),  # MPT, DBRX
    "gate_up_proj": Fused(GATE_UP),  # Phi-3, Mixtral experts
    "query_key_value": Fused(QKV, interleaved=True),  # GPT-NeoX, Falcon, BLOOM
    "W_pack": Fused(QKV),  # Baichuan
    "wqkv": Fused(QKV, interleaved=True),  # InternLM2: grouped by key head
}
"""Last component of a module's name -> what it holds. gpt-oss interleaves its experts'
gate_up_proj row by row; that is a property of the base, told by its bias-carrying experts."""


CODEGEN_FUSED, CODEGEN_SHARDS = "attn.qkv_proj", 4
"""CodeGen's fused projection, below its block, and how many shards it is made of."""


def fused_rows(
    module: str, d_out: int, d_in: int
) -> Mapping[str, slice | npt.NDArray[np.int64]] | None:
    """Which output rows of a fused projection belong to which logical projection.

    Queries are taken to be as wide as the residual stream, which holds for every
    architecture in `FUSED`; keys and values share the rest.

    Args:
        module: The projection's path below its block.
        d_out: Rows of its weight.
        d_in: Columns of its weight.

    Returns:
        Logical name -> rows, or None if it is not fused, or its rows cannot be told apart.
    """
    if module == CODEGEN_FUSED:
        return _codegen_rows(d_out, d_in)
    leaf = module.rpartition(".")[2]
    fused = FUSED.get(leaf)
    if fused is None or fused.interleaved:
        return None
    if len(fused.parts) == 2:
        if d_out % 2:
            return None
        return {fused.parts[0]: slice(0, d_out // 2), fused.parts[1]: slice(d_out // 2, d_out)}
    rest = d_out - d_in
    if rest <= 0 or rest % 2 or rest // 2 > d_in:
        return None
    middle = d_in + rest // 2
    q, k, v = fused.parts
    return {q: slice(0, d_in), k: slice(d_in, middle), v: slice(middle, d_out)}


def _codegen_rows(d_out: int, d_in: int) -> Mapping[str, npt.NDArray[np.int64]] | None:
    """Rows of CodeGen's projection: four shards, each of them queries, values, keys.

    `CodeGenAttention.forward` of transformers (`mp_num = 4`).
    """
    if d_out != 3 * d_in or d_in % CODEGEN_SHARDS:
        return None
    rows = np.arange(d_out).reshape(CODEGEN_SHARDS, 3, d_in // CODEGEN_SHARDS)
    q, k, v = QKV
    return {part: rows[:, place].reshape(-1) for place, part in enumerate((q, v, k))}


LLAMA_CPP_LLAMA = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_gate_inp": "mlp.gate",
}
LLAMA_CPP: dict[str, dict[str, str]] = {
    **dict.fromkeys(
        ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "qwen2moe", "qwen3moe"),
        LLAMA_CPP_LLAMA,
    ),
    "phi3": {
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_up": "mlp.gate_up_proj",
        "ffn_down": "mlp.down_proj",
    },
    "phi2": {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.dense",
        "ffn_up": "mlp.fc1",
        "ffn_down": "mlp.fc2",
    },
}
"""llama.cpp architecture -> its tensor name inside a block -> the base's own module name.
Architectures whose converter reorders rows in a way not undone here are left out."""

LLAMA_CPP_EXPERTS = {
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
}
LLAMA_CPP_OUTSIDE = {"token_embd": "embed_tokens", "output": "lm_head"}
LLAMA_CPP_ROPE_PERMUTED = frozenset({"llama"})
"""Architectures whose q and k rows llama.cpp stores in its own order (`LlamaModel.permute`)."""

TORCHTUNE = {
    "attn.q_proj": "self_attn.q_proj",
    "attn.k_proj": "self_attn.k_proj",
    "attn.v_proj": "self_attn.v_proj",
    "attn.output_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.gate_proj",
    "mlp.w2": "mlp.down_proj",
    "mlp.w3": "mlp.up_proj",
    "output": "lm_head",
    "tok_embeddings": "embed_tokens",
}
"""torchtune's module -> the Hugging Face module (`torchtune.models.convert_weights`)."""

MEGATRON = {
    "self_attention.linear_proj": "self_attn.o_proj",
    "self_attention.linear_qkv": "self_attn.qkv_proj",
    "self_attention.linear_q": "self_attn.q_proj",
    "self_attention.linear_k": "self_attn.k_proj",
    "self_attention.linear_v": "self_attn.v_proj",
    "mlp.linear_fc1": "mlp.gate_up_proj",
    "mlp.linear_fc1_gate": "mlp.gate_proj",
    "mlp.linear_fc1_up": "mlp.up_proj",
    "mlp.linear_fc2": "mlp.down_proj",
}
"""Megatron core's module -> the Hugging Face module, fused ones under their fused name."""

MEGATRON_ADAPTERS = {
    "lora_kqv_adapter": "linear_qkv",
    "lora_unfused_kqv_adapter.q_adapter": "linear_q",
    "lora_unfused_kqv_adapter.k_adapter": "linear_k",
    "lora_unfused_kqv_adapter.v_adapter": "linear_v",
    "lora_dense_attention_adapter": "linear_proj",
    "lora_hto4h_adapter": "linear_fc1",
    "lora_unfused_hto4h_adapter.gate_adapter": "linear_fc1_gate",
    "lora_unfused_hto4h_adapter.up_adapter": "linear_fc1_up",
    "lora_4htoh_adapter": "linear_fc2",
    "linear_qkv.adapter_q": "linear_q",
    "linear_qkv.adapter_k": "linear_k",
    "linear_qkv.adapter_v": "linear_v",
    "linear_fc1.adapter_gate": "linear_fc1_gate",
    "linear_fc1.adapter_up": "linear_fc1_up",
}
"""NeMo's names of its adapters, fused and canonical -> Megatron core's module."""

EXPERT_PARAMETERS = ("gate_up_proj", "gate_proj", "up_proj", "down_proj")
"""Parameters of a module that holds all experts in one tensor, in order of definition."""
