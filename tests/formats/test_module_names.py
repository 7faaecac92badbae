"""Module paths of the common architectures -> sites."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from scanner.formats.model import Site
from scanner.formats.module_names import site_of, strip_wrappers
from scanner.scanning.opening import open_adapter
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
    "model.text_model.layers.3.self_attn.q_proj": Site(3, "self_attn.q_proj"),
    "model.language_model.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "llm.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "thinker.model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "thinker.model.language_model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "backbone_model.layers.3.mlp.up_proj": Site(3, "mlp.up_proj"),
    "language_model.model.decoder.layers.3.fc1": Site(3, "fc1"),
    "model.language_model.embed_tokens": Site(None, "embed_tokens"),
    "language_model.lm_head": Site(None, "lm_head"),
    # MiniCPM-V's and Qwen-Omni's other towers, CSM's second model, CLIP's text tower
    "vpm.encoder.layers.3.mlp.fc1": Site(None, "vpm.encoder.layers.3.mlp.fc1"),
    "talker.model.layers.3.mlp.up_proj": Site(None, "talker.model.layers.3.mlp.up_proj"),
    "thinker.audio_tower.layers.3.fc1": Site(None, "audio_tower.layers.3.fc1"),
    "depth_decoder.model.layers.3.mlp.up_proj": Site(
        None, "depth_decoder.model.layers.3.mlp.up_proj"
    ),
    "text_model.encoder.layers.3.mlp.fc1": Site(None, "encoder.layers.3.mlp.fc1"),
    # RWKV
    "rwkv.blocks.3.attention.key": Site(3, "attention.key"),
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
    "encoder.layers.3.self_attn.q_proj": Site(3, "encoder.self_attn.q_proj"),
    "decoder.layers.3.self_attn.q_proj": Site(3, "self_attn.q_proj"),
    "transformer.encoder.block.3.layer.0.SelfAttention.q": Site(
        3, "encoder.layer.0.SelfAttention.q"
    ),
    # BERT and its family
    "bert.encoder.layer.3.attention.self.query": Site(3, "attention.self.query"),
    "encoder.layer.3.attention.self.query": Site(3, "attention.self.query"),
    "roberta.encoder.layer.3.output.dense": Site(3, "output.dense"),
    "distilbert.transformer.layer.3.attention.q_lin": Site(3, "attention.q_lin"),
    # nothing that only looks like a block
    "model.layers.-1.self_attn.o_proj": Site(None, "layers.-1.self_attn.o_proj"),
    "model.layers.3": Site(None, "layers.3"),
    "model.layers.03.mlp.up_proj": Site(None, "layers.03.mlp.up_proj"),
    "model.layers.1234567.mlp.up_proj": Site(None, "layers.1234567.mlp.up_proj"),
}


@pytest.mark.parametrize("path", PATHS)
def test_site(path: str) -> None:
    assert site_of(strip_wrappers(path)) == PATHS[path]


@pytest.mark.parametrize("site", dict.fromkeys(PATHS.values()), ids=lambda site: site.key)
def test_keys_are_read_back(site: Site) -> None:
    assert Site.from_key(site.key) == site


def _shrunk(config: Any) -> Any:
    """A configuration, and those inside it, with two blocks in every stack."""
    for field in ("num_hidden_layers", "num_layers", "depth", "encoder_layers", "decoder_layers"):
        if isinstance(getattr(config, field, None), int):
            setattr(config, field, 2)
    for inner in vars(config).values():
        if hasattr(inner, "to_dict"):
            _shrunk(inner)
    return config


def _paths(name: str) -> list[str]:
    """Paths of the weight matrices of a transformers model, made without memory."""
    model = getattr(transformers, name)
    with torch.device("meta"):
        built = model(_shrunk(model.config_class()))
    return [
        path.removesuffix(".weight")
        for path, parameter in built.named_parameters()
        if parameter.ndim >= 2 and path.endswith(".weight")
    ]


LANGUAGE_MODELS = {
    "LlavaForConditionalGeneration": "language_model.",
    "Gemma3ForConditionalGeneration": "language_model.",
    "MllamaForConditionalGeneration": "language_model.",
    "Qwen2VLForConditionalGeneration": "language_model.",
    "Qwen2_5OmniThinkerForConditionalGeneration": "language_model.",
    "VoxtralForConditionalGeneration": "language_model.",
    "Idefics3ForConditionalGeneration": "text_model.",
    "SmolVLMForConditionalGeneration": "text_model.",
    "Kosmos2ForConditionalGeneration": "text_model.",
    "Blip2ForConditionalGeneration": "language_model.",
    "CsmForConditionalGeneration": "backbone_model.",
}
"""Model of several kinds of input -> what its language model is under."""


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_only_the_language_models_blocks_have_a_layer(name: str) -> None:
    paths = _paths(name)
    for path in paths:
        site = site_of(path)
        numbered = any(part.isdigit() for part in path.split("."))
        inside = LANGUAGE_MODELS[name] in path
        assert (site.layer is not None) == (numbered and inside), path
        assert (site.unplaced is not None) == (numbered and not inside), path
    assert {site_of(path).layer for path in paths} == {None, 0, 1}


@pytest.mark.parametrize(
    ("bare", "headed"),
    [
        ("BertModel", "BertForSequenceClassification"),
        ("RobertaModel", "RobertaForMaskedLM"),
        ("ElectraModel", "ElectraForTokenClassification"),
        ("DebertaV2Model", "DebertaV2ForMaskedLM"),
        ("MPNetModel", "MPNetForQuestionAnswering"),
        ("DistilBertModel", "DistilBertForMaskedLM"),
        ("ModernBertModel", "ModernBertForMaskedLM"),
        ("RwkvModel", "RwkvForCausalLM"),
        ("OPTModel", "OPTForCausalLM"),
        ("GPT2Model", "GPT2LMHeadModel"),
        ("T5Model", "T5ForConditionalGeneration"),
        ("T5Model", "T5ForSequenceClassification"),
        ("BartModel", "BartForConditionalGeneration"),
        ("LlamaModel", "LlamaForCausalLM"),
        ("Idefics3Model", "Idefics3ForConditionalGeneration"),
    ],
)
def test_sites_are_the_same_without_a_head(bare: str, headed: str) -> None:
    placed = [
        {site for path in _paths(name) if (site := site_of(path)).layer is not None}
        for name in (bare, headed)
    ]
    assert placed[0]
    assert placed[0] == placed[1]


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


def test_an_adapter_of_a_vision_language_model_as_peft_writes_it(tmp_path: Path) -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2}
    config = transformers.LlavaConfig(
        text_config={
            "model_type": "llama",
            **tiny,
            "vocab_size": 40,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
        },
        vision_config={
            "model_type": "clip_vision_model",
            **tiny,
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        image_token_index=39,
    )
    adapted = peft.get_peft_model(
        transformers.LlavaForConditionalGeneration(config),
        peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"]),
    )
    adapted.save_pretrained(tmp_path)
    with open_adapter(tmp_path) as adapter:
        sites = {update.site for update in adapter.updates}
    placed = {site for site in sites if site.unplaced is None}
    assert placed == {Site(layer, f"self_attn.{part}_proj") for layer in (0, 1) for part in "qv"}
    assert {site.module for site in sites - placed} == {
        f"vision_tower.encoder.layers.{layer}.self_attn.{part}_proj"
        for layer in (0, 1)
        for part in "qv"
    }
