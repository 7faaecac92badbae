"""Module paths of the common architectures -> sites."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from scanner.formats.model import Site
from scanner.formats.module_names import site_of, strip_wrappers
from tests.formats.oracle import gpt2, llama

PATHS = {
    # Llama, Mistral, Qwen, Gemma, Phi-3, and wrappers around them
    "model.layers.3.self_attn.o_proj": Site(3, "self_attn.o_proj"),
    "base_model.model.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "base_model.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "module.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "_orig_mod.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "model.embed_tokens": Site(None, "embed_tokens"),
    "lm_head": Site(None, "lm_head"),
    # vision-language wrappers: the language model's blocks, and not the vision tower's
    "model.language_model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "language_model.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "vision_tower.encoder.layers.3.mlp.fc1": Site(None, "vision_tower.encoder.layers.3.mlp.fc1"),
    "visual.blocks.3.attn.qkv": Site(None, "visual.blocks.3.attn.qkv"),
    # GPT-2, Falcon, BLOOM, MPT, GPT-NeoX, OPT, ChatGLM
    "transformer.h.3.attn.c_attn": Site(3, "attn.c_attn"),
    "transformer.h.3.self_attention.query_key_value": Site(3, "self_attention.query_key_value"),
    "transformer.blocks.3.attn.Wqkv": Site(3, "attn.Wqkv"),
    "gpt_neox.layers.3.attention.dense": Site(3, "attention.dense"),
    "model.decoder.layers.3.fc1": Site(3, "fc1"),
    "transformer.encoder.layers.3.mlp.dense_h_to_4h": Site(3, "mlp.dense_h_to_4h"),
    # experts
    "model.layers.3.block_sparse_moe.experts.7.w1": Site(3, "block_sparse_moe.experts.7.w1"),
    # T5, BART, Whisper: two stacks
    "encoder.block.3.layer.0.SelfAttention.q": Site(3, "encoder.layer.0.SelfAttention.q"),
    "decoder.block.3.layer.0.SelfAttention.q": Site(3, "decoder.layer.0.SelfAttention.q"),
    "model.encoder.layers.3.self_attn.q_proj": Site(3, "encoder.self_attn.q_proj"),
    # BERT and its family
    "bert.encoder.layer.3.attention.self.query": Site(3, "attention.self.query"),
    "roberta.encoder.layer.3.output.dense": Site(3, "output.dense"),
    "distilbert.transformer.layer.3.attention.q_lin": Site(3, "attention.q_lin"),
    # nothing that only looks like a block
    "model.layers.-1.self_attn.o_proj": Site(None, "layers.-1.self_attn.o_proj"),
    "model.layers.3": Site(None, "layers.3"),
    "model.layers.1234567.mlp.up_proj": Site(None, "layers.1234567.mlp.up_proj"),
}


@pytest.mark.parametrize("path", PATHS)
def test_site(path: str) -> None:
    assert site_of(strip_wrappers(path)) == PATHS[path]


@pytest.mark.parametrize("site", dict.fromkeys(PATHS.values()), ids=lambda site: site.key)
def test_keys_are_read_back(site: Site) -> None:
    assert Site.from_key(site.key) == site


def _tiny(kind: str, **fields: Any) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**fields)
    return getattr(transformers, f"{kind}ForCausalLM")(config)


SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "build",
    [
        llama,
        gpt2,
        lambda: _tiny("Qwen2", **SIZES, intermediate_size=20, num_key_value_heads=1),
        lambda: _tiny("GPTNeoX", **SIZES, intermediate_size=20),
        lambda: _tiny("Falcon", **SIZES),
        lambda: _tiny("OPT", **SIZES, ffn_dim=20, word_embed_proj_dim=16),
        lambda: _tiny("Phi3", **SIZES, intermediate_size=20, pad_token_id=0),
        lambda: _tiny("Mixtral", **SIZES, intermediate_size=20, num_key_value_heads=1),
    ],
)
def test_every_matrix_in_the_blocks_has_a_layer_and_a_site_of_its_own(build: Any) -> None:
    sites = [
        site_of(name.removesuffix(".weight"))
        for name, parameter in build().named_parameters()
        if parameter.ndim == 2 and any(part.isdigit() for part in name.split("."))
    ]
    assert {site.layer for site in sites} == {0, 1}
    assert len(set(sites)) == len(sites)
