"""PEFT LoRA where the factors have an unusual layout, or the delta is not all there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch import nn

from scanner import open_adapter
from scanner.formats.model import Site
from tests.formats.oracle import (
    HEADS,
    KV_HEADS,
    LAYERS,
    VOCAB,
    WIDTH,
    Array,
    Build,
    assert_same_updates,
    llama,
    merged_deltas,
    relative_error,
    write_peft,
)

EXPERTS = 3
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "intermediate_size": 20,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
}


def mixtral() -> Any:
    """Experts as (expert, out, in)."""
    torch.manual_seed(4)
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES))


def gpt_oss() -> Any:
    """Experts as (expert, in, out)."""
    torch.manual_seed(4)
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**SIZES, head_dim=6))


def expert_deltas(directory: Path, build: Build) -> dict[Site, Array]:
    """Site of every expert -> merged minus base, (out, in)."""
    base = build().double()
    before = {name: p.detach().clone() for name, p in base.named_parameters()}
    merged = peft.PeftModel.from_pretrained(base, str(directory)).double().merge_and_unload()
    found: dict[Site, Array] = {}
    for name, after in merged.named_parameters():
        delta = (after.detach() - before[name]).numpy()
        if delta.ndim != 3 or not np.any(delta):
            continue
        _, _, layer, *path, leaf = name.split(".")
        for expert, matrix in enumerate(delta):
            site = Site(int(layer), ".".join([*path, str(expert), leaf]))
            found[site] = matrix.T if build is gpt_oss else matrix
    return found


def assert_experts(directory: Path, expected: dict[Site, Array], *, canonical: bool = True) -> None:
    with open_adapter(directory) as adapter:
        assert (not adapter.uncovered) == canonical
        assert {update.site for update in adapter.updates} == set(expected)
        for update in adapter.updates:
            assert relative_error(update.delta(), expected[update.site]) < 1e-5


def edit_config(directory: Path, **fields: Any) -> None:
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize("build", [mixtral, gpt_oss])
@pytest.mark.parametrize("parameters", [BOTH, BOTH[:1], BOTH[1:]])
def test_experts(build: Build, parameters: list[str], tmp_path: Path) -> None:
    config = LoraConfig(r=2, lora_alpha=6, target_modules=[], target_parameters=parameters)
    path = write_peft(tmp_path, build, config)
    expected = expert_deltas(path, build)
    assert len(expected) == LAYERS * EXPERTS * len(parameters)
    assert_experts(path, expected)


def test_experts_with_a_rank_pattern(tmp_path: Path) -> None:
    config = LoraConfig(
        r=2,
        target_modules=[],
        target_parameters=BOTH,
        rank_pattern={"experts.down_proj": 4},
        alpha_pattern={"experts.gate_up_proj": 3},
    )
    path = write_peft(tmp_path, mixtral, config)
    # vLLM and SGLang read neither pattern, and scale all of them alike.
    assert_experts(path, expert_deltas(path, mixtral), canonical=False)


def test_experts_in_unsloths_order(tmp_path: Path) -> None:
    """Column e * r + k of B instead of k * E + e, told by a marker in the config."""
    config = LoraConfig(r=2, target_modules=[], target_parameters=BOTH)
    path = write_peft(tmp_path, mixtral, config)
    expected = expert_deltas(path, mixtral)
    tensors = load_file(path / "adapter_model.safetensors")
    for name, b in tensors.items():
        if "lora_B" in name:
            by_rank = b.reshape(len(b), -1, EXPERTS)
            tensors[name] = by_rank.transpose(1, 2).reshape(b.shape).contiguous()
    save_file(tensors, path / "adapter_model.safetensors")
    edit_config(path, lora_B_layout="grouped_by_expert")
    assert_experts(path, expected)
    edit_config(path, lora_B_layout=None, auto_mapping={"unsloth_fixed": True})
    with open_adapter(path) as adapter:
        assert not adapter.updates
        assert all("ambiguous" in item.reason for item in adapter.uncovered)


@pytest.mark.parametrize("version", ["0.17.1", "0.18.0"])
def test_experts_written_the_wrong_way_round(version: str, tmp_path: Path) -> None:
    """PEFT 0.17 and 0.18 gave (expert, out, in) parameters factors of the transpose."""
    config = LoraConfig(r=2, target_modules=["q_proj"], target_parameters=BOTH)
    path = write_peft(tmp_path, mixtral, config)
    expected = expert_deltas(path, mixtral)
    tensors = load_file(path / "adapter_model.safetensors")
    swapped = {name: value for name, value in tensors.items() if "experts" not in name}
    for name, b in tensors.items():
        if "experts" in name and "lora_B" in name:
            a = tensors[name.replace("lora_B", "lora_A")]
            by_expert = b.reshape(len(b), -1, EXPERTS)
            swapped[name.replace("lora_B", "lora_A")] = (
                by_expert.permute(2, 1, 0).reshape(-1, len(b)).contiguous()
            )
            swapped[name] = (
                a.reshape(EXPERTS, -1, a.shape[1]).permute(2, 1, 0).reshape(a.shape[1], -1)
            ).contiguous()
    save_file(swapped, path / "adapter_model.safetensors")
    edit_config(path, peft_version=version)
    with open_adapter(path) as adapter:
        found = {u.site: u for u in adapter.updates if "experts" in u.module}
        assert set(found) == set(expected)
        for site, update in found.items():
            assert relative_error(update.delta(), expected[site]) < 1e-5
    without = {name: value for name, value in swapped.items() if "experts" in name}
    save_file(without, path / "adapter_model.safetensors")
    with open_adapter(path) as adapter:
        assert not adapter.updates
        assert all("which way round" in item.reason for item in adapter.uncovered)


def test_router_as_a_parameter(tmp_path: Path) -> None:
    """A two-dimensional parameter is wrapped as one expert: an ordinary update."""
    config = LoraConfig(r=2, target_modules=[], target_parameters=["mlp.gate.weight"])
    path = write_peft(tmp_path, mixtral, config)
    with open_adapter(path) as adapter:
        assert [update.module for update in adapter.updates] == ["mlp.gate"] * LAYERS
        assert all((u.d_out, u.d_in) == (EXPERTS, WIDTH) for u in adapter.updates)


def test_stack_of_experts_with_a_shared_side(tmp_path: Path) -> None:
    """Tinker's export: (E, r, in) and (1, out, r), and a config of two fields, which no library
    loads as it is."""
    generator = np.random.default_rng(0)
    a = generator.standard_normal((EXPERTS, 2, WIDTH)).astype(np.float32)
    b = generator.standard_normal((1, 20, 2)).astype(np.float32)
    stem = "base_model.model.model.layers.1.mlp.experts.gate_proj"
    tensors = {f"{stem}.lora_A.weight": torch.tensor(a), f"{stem}.lora_B.weight": torch.tensor(b)}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 6, "r": 2}')
    expected = {
        Site(1, f"mlp.experts.{e}.gate_proj"): 3 * b[0].astype(np.float64) @ a[e]
        for e in range(EXPERTS)
    }
    assert_experts(tmp_path, expected, canonical=False)


def test_block_diagonal(tmp_path: Path) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=10,
        target_modules=["q_proj", "o_proj", "up_proj", "down_proj"],
        use_bdlora=peft.BdLoraConfig(
            nblocks=2,
            target_modules_bd_a=["o_proj", "down_proj"],
            target_modules_bd_b=["q_proj", "up_proj"],
        ),
    )
    path = write_peft(tmp_path, llama, config)
    with open_adapter(path) as adapter:
        assert not adapter.uncovered
        assert_same_updates(adapter, merged_deltas(path, llama))


def test_kasa_gives_its_own_share_and_never_clears(tmp_path: Path) -> None:
    """The base loses its smallest singular values as well: only s B diag A is in the file."""
    config = LoraConfig(
        r=4, lora_alpha=12, kasa_config=peft.KasaConfig(), target_modules=["q_proj"]
    )
    path = write_peft(tmp_path, llama, config)
    tensors = load_file(path / "adapter_model.safetensors")
    with open_adapter(path) as adapter:
        assert any("KaSA" in item.reason for item in adapter.uncovered)
        assert len(adapter.updates) == LAYERS
        for update in adapter.updates:
            stem = f"base_model.model.model.layers.{update.layer}.self_attn.q_proj"
            diagonal = next(v for k, v in tensors.items() if k.startswith(f"{stem}.lora_diag"))
            expected = (
                3
                * tensors[f"{stem}.lora_B.weight"].double()
                @ torch.diag(diagonal.double())
                @ tensors[f"{stem}.lora_A.weight"].double()
            )
            assert relative_error(update.delta(), expected.numpy()) < 1e-5


def test_pooled_inputs(tmp_path: Path) -> None:
    """QALoRA acts on GPTQ layers only; the rule is that of `QALoraLinearVariant.forward`."""
    generator = torch.Generator().manual_seed(2)
    a, b = torch.randn(2, 6, generator=generator), torch.randn(5, 2, generator=generator)
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file(
        {f"{stem}.lora_A.weight": a, f"{stem}.lora_B.weight": b},
        tmp_path / "adapter_model.safetensors",
    )
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_qalora": True}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**fields, "qalora_group_size": 4}))
    with open_adapter(tmp_path) as adapter:
        (update,) = adapter.updates
        x = torch.randn(24, generator=generator)
        pooled = x.view(6, 4).mean(1) * 6
        expected = (2 * pooled @ a.T @ b.T).numpy().astype(np.float64)
        assert relative_error(update.delta() @ x.numpy(), expected) < 1e-5


def test_dora_keeps_its_low_rank_part_and_never_clears(tmp_path: Path) -> None:
    config = LoraConfig(r=4, use_dora=True, target_modules=["q_proj"])
    path = write_peft(tmp_path, llama, config)
    with open_adapter(path) as adapter:
        assert len(adapter.updates) == LAYERS
        reasons = [item.reason for item in adapter.uncovered]
        assert len(reasons) == LAYERS + 1
        assert all("DoRA" in reason for reason in reasons)


def test_trained_biases_and_saved_modules_are_uncovered(tmp_path: Path) -> None:
    config = LoraConfig(
        r=2,
        lora_bias=True,
        target_modules=["q_proj"],
        modules_to_save=["lm_head"],
        trainable_token_indices=[1, 2],
    )
    path = write_peft(tmp_path, llama, config)
    with open_adapter(path) as adapter:
        assert len(adapter.updates) == LAYERS
        reasons = " ".join(item.reason for item in adapter.uncovered)
        assert "bias" in reasons
        assert "full tensor" in reasons
        assert "replacement rows" in reasons


def test_layer_replication_names_the_bases_layers(tmp_path: Path) -> None:
    config = LoraConfig(
        r=2, layer_replication=[(0, 2), (1, 2)], target_modules=["q_proj"], task_type="CAUSAL_LM"
    )
    path = write_peft(tmp_path, llama, config)
    with open_adapter(path) as adapter:
        assert [update.layer for update in adapter.updates] == [0, 1]
        reasons = " ".join(item.reason for item in adapter.uncovered)
        assert "layer_replication" in reasons
        assert "a second update of 1.self_attn.q_proj" in reasons


class Convolutions(nn.Module):
    """One convolution of each dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv1d(3, 5, 3)
        self.two = nn.Conv2d(3, 5, (3, 2))
        self.three = nn.Conv3d(2, 4, 2)


def convolutions() -> Any:
    torch.manual_seed(1)
    return Convolutions()


def test_convolutions(tmp_path: Path) -> None:
    config = LoraConfig(r=2, lora_alpha=5, target_modules=["one", "two", "three"])
    path = write_peft(tmp_path, convolutions, config)
    with open_adapter(path) as adapter:
        assert_same_updates(adapter, merged_deltas(path, convolutions))


@pytest.mark.parametrize("method", ["pissa", "pissa_niter_16", "olora", "corda", "loftq"])
def test_initialisations_that_change_the_base_never_clear(method: str, tmp_path: Path) -> None:
    path = write_peft(tmp_path, llama, LoraConfig(r=2, target_modules=["q_proj"]))
    edit_config(path, init_lora_weights=method)
    with open_adapter(path) as adapter:
        assert any("changes the base" in item.reason for item in adapter.uncovered)
