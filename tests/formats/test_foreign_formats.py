"""Formats of other programs, against those programs where they run, else by their own rule."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from scanner import open_adapter
from scanner.errors import MissingConfigError
from scanner.formats.model import Site
from tests.formats.oracle import (
    Array,
    assert_same_updates,
    llama,
    merged_deltas,
    relative_error,
    write_peft,
)

WIDTH, HEADS, KV_HEADS, HEAD = 64, 8, 4, 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]

Tensors = dict[str, torch.Tensor]


def stories() -> Any:
    """The architecture of stories260K, whose head size follows from its width."""
    torch.manual_seed(6)
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
    )
    config.name_or_path = "tests/stories260K-like"
    return transformers.LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter PEFT wrote, to be told in other formats."""
    directory = tmp_path_factory.mktemp("original")
    return write_peft(directory, stories, LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS))


@pytest.fixture(scope="module")
def expected(original: Path) -> dict[str, Array]:
    return merged_deltas(original, stories)


def peft_tensors(directory: Path) -> Tensors:
    """Tensors without PEFT's prefix."""
    tensors = load_file(directory / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): value for name, value in tensors.items()}


def neighbours(b: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows of q or k in Meta's order: `LlamaModel.permute` of llama.cpp, for (out, r)."""
    halves = b.reshape(heads, 2, len(b) // heads // 2, b.shape[1])
    return halves.swapaxes(1, 2).reshape(b.shape).contiguous()


def check(path: Path, deltas: Mapping[str, Array], fmt: str) -> None:
    with open_adapter(path) as adapter:
        assert adapter.format == fmt
        assert not adapter.uncovered, adapter.uncovered[0]
        assert_same_updates(adapter, deltas, 1e-4)


# MLX


def mlx_tensors(directory: Path) -> Tensors:
    return {
        name.replace(".lora_A.weight", ".lora_a").replace(".lora_B.weight", ".lora_b"): value.T
        for name, value in peft_tensors(directory).items()
    }


def mlx_config(**fields: Any) -> str:
    parameters = {"rank": 4, "dropout": 0.0, "scale": 1.5, **fields.pop("lora_parameters", {})}
    config = {"model": "a/b", "fine_tune_type": "lora", "num_layers": 16}
    return json.dumps({**config, "lora_parameters": parameters, **fields})


def test_mlx(original: Path, expected: Mapping[str, Array], tmp_path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in mlx_tensors(original).items()}
    save_file(tensors, tmp_path / "0000100_adapters.safetensors")
    (tmp_path / "adapter_config.json").write_text(mlx_config())
    check(tmp_path, expected, "mlx-lora")


def test_mlx_npz(original: Path, expected: Mapping[str, Array], tmp_path: Path) -> None:
    arrays = {name: value.numpy() for name, value in mlx_tensors(original).items()}
    np.savez(tmp_path / "adapters.npz", **arrays)  # type: ignore[arg-type]
    (tmp_path / "adapter_config.json").write_text(mlx_config())
    check(tmp_path, expected, "mlx-lora")


def test_mlx_npz_without_a_config_has_no_known_scale(original: Path, tmp_path: Path) -> None:
    arrays = {name: value.numpy() for name, value in mlx_tensors(original).items()}
    np.savez(tmp_path / "adapters.npz", **arrays)  # type: ignore[arg-type]
    with open_adapter(tmp_path / "adapters.npz") as adapter:
        assert {update.scaling for update in adapter.updates} == {20.0}
        assert any("old default" in item.reason for item in adapter.uncovered)


def test_mlx_experts(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((3, 2, 6)), generator.standard_normal((3, 5, 2))
    stem = "model.layers.4.mlp.switch_mlp.up_proj"
    save_file(
        {f"{stem}.lora_a": torch.tensor(a).float(), f"{stem}.lora_b": torch.tensor(b).float()},
        tmp_path / "adapters.safetensors",
    )
    (tmp_path / "adapter_config.json").write_text(mlx_config())
    with open_adapter(tmp_path) as adapter:
        assert len(adapter.updates) == 3
        for expert, update in enumerate(adapter.updates):
            assert update.site == Site(4, f"mlp.switch_mlp.{expert}.up_proj")
            assert relative_error(update.delta(), 1.5 * b[expert] @ a[expert]) < 1e-6


def test_mlx_dora_never_clears(original: Path, tmp_path: Path) -> None:
    tensors = {name: value.contiguous() for name, value in mlx_tensors(original).items()}
    tensors["model.layers.0.self_attn.q_proj.m"] = torch.ones(WIDTH)
    save_file(tensors, tmp_path / "adapters.safetensors")
    (tmp_path / "adapter_config.json").write_text(mlx_config(fine_tune_type="dora"))
    with open_adapter(tmp_path) as adapter:
        assert adapter.updates
        assert len([item for item in adapter.uncovered if "DoRA" in item.reason]) == 1
        assert len(adapter.uncovered) == 2


# GGUF

LLAMA_CPP = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(path: Path, tensors: Mapping[str, Any], alpha: float, **strings: str) -> None:
    """Writes an adapter with llama.cpp's own gguf library."""
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(path, strings.get("architecture", "llama"))
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", strings.get("kind", "lora"))
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_array("general.tags", ["one", "two"])
    writer.add_string("general.base_model.0.repo_url", "https://huggingface.co/tests/stories")
    for name, value in tensors.items():
        writer.add_tensor(name, np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in peft_tensors(directory).items():
        _, _, layer, rest = name.split(".", 3)
        path, _, factor = rest.partition(".lora_")
        module = LLAMA_CPP[path]
        b_of_q_or_k = factor.startswith("B") and module in ("attn_q", "attn_k")
        heads = HEADS if module == "attn_q" else KV_HEADS
        rows = neighbours(value, heads) if b_of_q_or_k else value
        found[f"blk.{layer}.{module}.weight.lora_{factor[0].lower()}"] = rows.numpy()
    return found


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_gguf(original: Path, expected: Mapping[str, Array], dtype: Any, tmp_path: Path) -> None:
    tensors = {name: value.astype(dtype) for name, value in gguf_tensors(original).items()}
    write_gguf(tmp_path / "lora.gguf", tensors, alpha=6.0)
    with open_adapter(tmp_path) as adapter:
        assert adapter.base_model == "tests/stories"
        assert_same_updates(adapter, expected, 1e-4 if dtype is np.float32 else 2e-3)


def test_gguf_alpha_zero_means_one(original: Path, tmp_path: Path) -> None:
    write_gguf(tmp_path / "lora.gguf", gguf_tensors(original), alpha=0.0)
    with open_adapter(tmp_path) as adapter:
        assert {update.scaling for update in adapter.updates} == {1.0}


def test_gguf_embedding_is_transposed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((32, 2)).astype(np.float32)
    b = generator.standard_normal((WIDTH, 2)).astype(np.float32)
    tensors = {"token_embd.weight.lora_a": a, "token_embd.weight.lora_b": b}
    write_gguf(tmp_path / "lora.gguf", tensors, alpha=2.0)
    with open_adapter(tmp_path) as adapter:
        (update,) = adapter.updates
        assert (update.module, update.d_out, update.d_in) == ("embed_tokens", WIDTH, 32)
        assert relative_error(update.delta(), b.astype(np.float64) @ a.T) < 1e-6


@pytest.mark.parametrize("architecture", ["falcon", "gpt2", "made-up"])
def test_gguf_of_an_architecture_unknown_here(
    architecture: str, original: Path, tmp_path: Path
) -> None:
    tensors = gguf_tensors(original)
    write_gguf(tmp_path / "lora.gguf", tensors, alpha=6.0, architecture=architecture)
    with open_adapter(tmp_path) as adapter:
        assert not adapter.updates
        assert len(adapter.uncovered) == len(tensors)


# kohya, LyCORIS, diffusers


def flat_deltas(expected: Mapping[str, Array]) -> dict[str, Array]:
    """By the names image-model trainers give modules."""
    return {f"lora_unet_{path.replace('.', '_')}": delta for path, delta in expected.items()}


def kohya_tensors(directory: Path) -> Tensors:
    found: Tensors = {}
    for name, value in peft_tensors(directory).items():
        path, _, factor = name.partition(".lora_")
        stem = f"lora_unet_{path.replace('.', '_')}"
        found[f"{stem}.lora_{'down' if factor[0] == 'A' else 'up'}.weight"] = value
        found[f"{stem}.alpha"] = torch.tensor(6.0)
    return found


def test_kohya(original: Path, expected: Mapping[str, Array], tmp_path: Path) -> None:
    save_file(kohya_tensors(original), tmp_path / "my-style.safetensors")
    with open_adapter(tmp_path) as adapter:
        assert adapter.format == "kohya"
        assert not adapter.uncovered
        assert {u.module for u in adapter.updates} == set(flat_deltas(expected))
        for update in adapter.updates:
            assert relative_error(update.delta(), flat_deltas(expected)[update.module]) < 1e-5


@pytest.mark.parametrize("alpha", [None, 0.0])
def test_kohya_without_alpha(alpha: float | None, original: Path, tmp_path: Path) -> None:
    tensors = {
        name: torch.tensor(alpha or 0.0) if name.endswith(".alpha") else value
        for name, value in kohya_tensors(original).items()
        if alpha is not None or not name.endswith(".alpha")
    }
    save_file(tensors, tmp_path / "style.safetensors")
    with open_adapter(tmp_path) as adapter:
        assert {update.scaling for update in adapter.updates} == {1.0}


@pytest.mark.parametrize("algorithm", ["lora", "loha", "lokr", "lokr-split", "full"])
def test_lycoris(algorithm: str, tmp_path: Path) -> None:
    """Files written by the LyCORIS library."""
    lycoris = pytest.importorskip("lycoris")
    torch.manual_seed(0)
    model = torch.nn.ModuleDict(
        {"a": torch.nn.Linear(48, 64, bias=False), "b": torch.nn.Linear(64, 48, bias=False)}
    )
    preset = {"target_name": ["a", "b"], "target_module": ["Linear"]}
    lycoris.LycorisNetwork.apply_preset(preset)
    kind, _, split = algorithm.partition("-")
    options = {"factor": 4, "decompose_both": True} if split else {}
    network = lycoris.create_lycoris(
        model, 1.0, linear_dim=1 if split else 3, linear_alpha=2.0, algo=kind, **options
    )
    network.apply_to()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    save_file(network.state_dict(), tmp_path / "style.safetensors")
    # What runs is `forward`: `get_diff_weight` of LyCORIS 3 multiplies by the scale twice.
    inputs = {"a": torch.eye(48), "b": torch.eye(64)}
    with torch.no_grad():
        adapted = {name: model[name](x) for name, x in inputs.items()}
        network.restore()
        expected = {
            f"lycoris_{name}": (adapted[name] - model[name](x)).T.double().numpy()
            for name, x in inputs.items()
        }
    with open_adapter(tmp_path) as adapter:
        assert not adapter.uncovered
        assert {update.module for update in adapter.updates} == set(expected)
        for update in adapter.updates:
            assert relative_error(update.delta(), expected[update.module]) < 1e-4


SPELLINGS = {
    "attention processor": (".processor{}_lora.down.weight", ".processor{}_lora.up.weight"),
    "own layer": ("{}.lora.down.weight", "{}.lora.up.weight"),
    "PEFT": ("{}.lora_A.weight", "{}.lora_B.weight"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("with_header", [False, True])
def test_diffusers(spelling: str, with_header: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 12, generator=generator), torch.randn(20, 4, generator=generator)
    down, up = (suffix.format(".to_q") for suffix in SPELLINGS[spelling])
    stem = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    header = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, "unet.r": 4})}
    save_file(
        {stem + down: a, stem + up: b},
        tmp_path / "pytorch_lora_weights.safetensors",
        metadata=header if with_header else None,
    )
    scale = 2.0 if with_header and spelling == "PEFT" else 1.0
    with open_adapter(tmp_path) as adapter:
        (update,) = adapter.updates
        assert adapter.format == "diffusers"
        assert update.module.startswith(f"{stem}.to_q")
        if spelling == "PEFT" or not with_header:
            expected = (scale * b.double() @ a.double()).numpy()
            assert relative_error(update.delta(), expected) < 1e-6


# torchtune


def torchtune_tensors(directory: Path) -> Tensors:
    names = {
        "self_attn.q_proj": "attn.q_proj",
        "self_attn.k_proj": "attn.k_proj",
        "self_attn.v_proj": "attn.v_proj",
        "self_attn.o_proj": "attn.output_proj",
        "mlp.gate_proj": "mlp.w1",
        "mlp.down_proj": "mlp.w2",
    }
    found: Tensors = {}
    for name, value in peft_tensors(directory).items():
        _, _, layer, rest = name.split(".", 3)
        path, _, factor = rest.partition(".lora_")
        if factor[0] == "B" and path.endswith(("q_proj", "k_proj")):
            value = neighbours(value, HEADS if path.endswith("q_proj") else KV_HEADS)
        found[f"layers.{layer}.{names[path]}.lora_{factor[0].lower()}.weight"] = value
    return found


def torchtune_library() -> ModuleType:
    """Its key conversion alone: the package itself needs more than is installed for tests."""
    package = importlib.util.find_spec("torchtune")
    if package is None or not package.submodule_search_locations:
        pytest.skip("torchtune is not installed")
    path = Path(package.submodule_search_locations[0]) / "models" / "convert_weights.py"
    spec = importlib.util.spec_from_file_location("torchtune_convert_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torchtune_adapter(directory: Path, original: Path) -> Path:
    torch.save(torchtune_tensors(original), directory / "adapter_model.pt")
    config = json.loads((original / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


def test_torchtune(original: Path, expected: Mapping[str, Array], tmp_path: Path) -> None:
    check(torchtune_adapter(tmp_path, original), expected, "torchtune-lora")


def test_torchtunes_own_conversion_agrees(original: Path) -> None:
    """The fixture is what torchtune itself turns back into PEFT's tensors."""
    convert = torchtune_library().tune_to_peft_adapter_weights
    back = convert(torchtune_tensors(original), num_heads=HEADS, num_kv_heads=KV_HEADS, dim=WIDTH)
    tensors = load_file(original / "adapter_model.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


def test_torchtune_without_a_config(original: Path, tmp_path: Path) -> None:
    torch.save(torchtune_tensors(original), tmp_path / "adapter_0.pt")
    with pytest.raises(MissingConfigError, match="is missing beside the weights"):
        open_adapter(tmp_path)


def test_torchtune_of_an_unknown_base(original: Path, tmp_path: Path) -> None:
    path = torchtune_adapter(tmp_path, original)
    config = json.loads((path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "someone/new-thing"
    (path / "adapter_config.json").write_text(json.dumps(config))
    with open_adapter(path) as adapter:
        assert {u.module for u in adapter.updates}.isdisjoint(
            {"self_attn.q_proj", "self_attn.k_proj"}
        )
        assert any("order of its rows" in item.reason for item in adapter.uncovered)


# NeMo and Megatron

MEGATRON_SPELLINGS = {
    "Megatron Bridge": "module.decoder.layers.1.{block}.{core}.adapter.{end}.weight",
    "NeMo 1": "model.language_model.encoder.layers.1.{block}.adapter_layer.{nemo}.{end}.weight",
}
NEMO_NAMES = {
    "linear_qkv": "lora_kqv_adapter",
    "linear_proj": "lora_dense_attention_adapter",
    "linear_fc1": "lora_hto4h_adapter",
    "linear_fc2": "lora_4htoh_adapter",
}
INNER = 96


def megatron_adapter(directory: Path, spelling: str) -> dict[str, Array]:
    """Writes one block's adapters; returns what each Hugging Face module gets."""
    generator = torch.Generator().manual_seed(0)
    group = HEADS // KV_HEADS
    sizes = {
        "linear_qkv": (WIDTH + 2 * KV_HEADS * HEAD, WIDTH),
        "linear_proj": (WIDTH, WIDTH),
        "linear_fc1": (2 * INNER, WIDTH),
        "linear_fc2": (WIDTH, INNER),
    }
    tensors: Tensors = {}
    delta: dict[str, Array] = {}
    for core, (d_out, d_in) in sizes.items():
        block = "mlp" if "fc" in core else "self_attention"
        a, b = torch.randn(2, d_in, generator=generator), torch.randn(d_out, 2, generator=generator)
        name = MEGATRON_SPELLINGS[spelling]
        for end, value in (("linear_in", a), ("linear_out", b)):
            tensors[name.format(block=block, core=core, nemo=NEMO_NAMES[core], end=end)] = value
        delta[core] = (3 * b.double() @ a.double()).numpy()
    save_file(tensors, directory / "model.safetensors")
    heads = delta["linear_qkv"].reshape(KV_HEADS, group + 2, HEAD, WIDTH)
    return {
        "self_attn.q_proj": heads[:, :group].reshape(WIDTH, WIDTH),
        "self_attn.k_proj": heads[:, group].reshape(-1, WIDTH),
        "self_attn.v_proj": heads[:, group + 1].reshape(-1, WIDTH),
        "self_attn.o_proj": delta["linear_proj"],
        "mlp.gate_proj": delta["linear_fc1"][:INNER],
        "mlp.up_proj": delta["linear_fc1"][INNER:],
        "mlp.down_proj": delta["linear_fc2"],
    }


@pytest.mark.parametrize("spelling", MEGATRON_SPELLINGS)
def test_megatron_is_split_into_the_bases_modules(spelling: str, tmp_path: Path) -> None:
    expected = megatron_adapter(tmp_path, spelling)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 6, "r": 2}')
    with open_adapter(tmp_path) as adapter:
        assert adapter.format == "megatron-lora"
        assert not adapter.uncovered
        assert {update.module for update in adapter.updates} == set(expected)
        for update in adapter.updates:
            assert update.layer == 1
            assert relative_error(update.delta(), expected[update.module]) < 1e-5


def test_megatron_without_a_config_has_no_known_scale(tmp_path: Path) -> None:
    megatron_adapter(tmp_path, "NeMo 1")
    with open_adapter(tmp_path) as adapter:
        assert len(adapter.updates) == 7
        assert any("alpha is unknown" in item.reason for item in adapter.uncovered)


def test_peft_stays_peft(tmp_path: Path) -> None:
    """The readers tell formats apart by content: none of them claims a PEFT adapter."""
    path = write_peft(tmp_path, llama, LoraConfig(r=2, target_modules=["q_proj"]))
    (path / "adapter_model.safetensors").rename(path / "pytorch_lora_weights.safetensors")
    check(path, merged_deltas_of_renamed(path), "peft-lora")


def merged_deltas_of_renamed(path: Path) -> dict[str, Array]:
    renamed = path / "pytorch_lora_weights.safetensors"
    usual = path / "adapter_model.safetensors"
    renamed.rename(usual)
    deltas = merged_deltas(path, llama)
    usual.rename(renamed)
    return deltas
