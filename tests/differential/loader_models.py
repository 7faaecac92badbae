"""What programs that are not run here load, modelled after their sources: on the tiny Llama only.

Each model says the file and version it was read in. A model takes the folder, and gives what would
be added to each module, or raises `Refused` where the program raises an error. Where a program's
behaviour depends on what is not in the folder, the model takes the default.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.differential.merging import Changes
from tests.formats.oracle import HEADS, INNER, KV_HEADS, LAYERS, VOCAB, WIDTH

Array = npt.NDArray[np.float64]

_KV = WIDTH * KV_HEADS // HEADS
IN_BLOCK: dict[str, tuple[int, int]] = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (_KV, WIDTH),
    "self_attn.v_proj": (_KV, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
SHAPES: dict[str, tuple[int, int]] = {
    **{
        f"model.layers.{layer}.{module}": shape
        for layer in range(LAYERS)
        for module, shape in IN_BLOCK.items()
    },
    "model.embed_tokens": (WIDTH, VOCAB),
    "lm_head": (VOCAB, WIDTH),
}
"""Module path of the tiny Llama -> (d_out, d_in); the embedding maps a one-hot token."""
_LINEAR = {path.rpartition(".")[2] for path in SHAPES} - {"embed_tokens"}


class Refused(Exception):  # noqa: N818 - what happens, not what went wrong
    """The program raises an error instead of loading the adapter."""


def _need(condition: object, why: str) -> None:
    if not condition:
        raise Refused(why)


def _config(directory: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((directory / "adapter_config.json").read_text())
    _need(isinstance(config, dict), "no object")
    return config


def _read(path: Path) -> dict[str, Array]:
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        return {name: np.asarray(value, np.float64) for name, value in load_file(path).items()}
    import torch

    loaded = torch.load(path, map_location="cpu", weights_only=True)
    return {name: value.numpy().astype(np.float64) for name, value in loaded.items()}


def _first_file(directory: Path, *names: str) -> dict[str, Array]:
    for name in names:
        if (directory / name).is_file():
            return _read(directory / name)
    raise Refused("no weights")


def _product(path: str, b: Array, a: Array, scaling: float) -> Array:
    _need(a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1], f"{path}: shapes")
    _need((b.shape[0], a.shape[1]) == SHAPES[path], f"{path}: not the module's shape")
    return scaling * (b @ a)


def _changed(found: dict[str, Array]) -> Changes:
    return {path: delta for path, delta in found.items() if np.any(delta)}


def vllm(directory: Path) -> Changes:
    """vLLM: `r`, `lora_alpha`, `use_rslora` and the tensors, whatever else the config says.

    `vllm/lora/lora_model.py` (0306474, 2026), `vllm/lora/peft_helper.py` (0214369; later ones also
    refuse a bias) and `parse_fine_tuned_lora_name` of `vllm/lora/utils.py` (001e63a).
    """
    config = _config(directory)
    _need({"r", "lora_alpha", "target_modules"} <= config.keys(), "a required field is missing")
    _need(not config.get("modules_to_save"), "modules_to_save")
    _need(not config.get("use_dora"), "DoRA")
    _need(config.get("bias", "none") == "none", "bias")
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    names = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
    factors: dict[str, dict[str, Array]] = {}
    for name, tensor in _first_file(directory, *names).items():
        if name.endswith((".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")):
            continue
        module, side = _vllm_name(name)
        if "base_layer" not in name:
            known = module.rpartition(".")[2] in _LINEAR | {"embed_tokens"}
            _need(known and ".experts" not in module, f"unexpected module {module}")
        factors.setdefault(module, {})[side] = tensor
    found = {}
    for module, sides in factors.items():
        _need(sides.keys() == {"A", "B"}, f"half of {module}")
        if module in SHAPES:
            found[module] = _product(module, sides["B"], sides["A"], scaling)
    return _changed(found)


def _vllm_name(name: str) -> tuple[str, str]:
    """(module, side). The prefix is taken out wherever it stands."""
    prefixed = "base_model.model." in name
    parts = name.replace("base_model.model.", "").split(".")
    if not prefixed:
        parts = name.split(".")
    if parts[-1] == "weight" and parts[-2:-1] in (["lora_A"], ["lora_B"]):
        return ".".join(parts[:-2]), parts[-2][-1]
    if parts[-1] in ("lora_embedding_A", "lora_embedding_B"):
        return ".".join(parts[:-1]), parts[-1][-1]
    raise Refused(f"{name} is unsupported LoRA weight")


_SGLANG_STACKS = {
    "qkv_proj": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o_proj": ("self_attn.o_proj",),
    "gate_up_proj": ("mlp.gate_proj", "mlp.up_proj"),
    "down_proj": ("mlp.down_proj",),
}


def sglang(directory: Path) -> Changes:
    """SGLang: every weight file of the folder, `lora_alpha / r`, names by what occurs in them.

    `sglang/srt/lora/lora.py`, `lora_config.py`, `mem_pool.py`, `utils.py` and
    `sglang/srt/model_loader/loader.py` of 0.5.23.
    """
    config = _config(directory)
    _need({"r", "lora_alpha", "target_modules", "peft_type"} <= config.keys(), "a field is missing")
    _need(config["peft_type"].lower() == "lora", "no LoRA")
    _need(not config.get("use_dora"), "DoRA")
    _need(not (directory / "added_tokens.json").exists(), "added tokens")
    rank, scaling = config["r"], config["lora_alpha"] / config["r"]
    targets = _sglang_targets(config["target_modules"])
    layers: list[dict[str, Array]] = [{} for _ in range(LAYERS)]
    heads: dict[str, Array] = {}
    for path in _sglang_files(directory):
        for name, tensor in _read(path).items():
            found = re.search(r"layers\.(\d+)\.", name)
            if found:
                _need(int(found[1]) < LAYERS, "no such layer")
                layers[int(found[1])][name] = tensor
            elif "embed_tokens" in name or "lm_head" in name:
                module = "embed_tokens" if "embed_tokens" in name else "lm_head"
                if module in targets or "all" in targets:
                    heads[name] = tensor
    everything = {*_SGLANG_STACKS, "embed_tokens", "lm_head"}
    targets = everything if "all" in targets else targets & everything
    changes: dict[str, Array] = {}
    for layer, weights in enumerate(layers):
        _sglang_stack_attention(weights)
        _sglang_stack_mlp(weights)
        for module, delta in _sglang_layer(weights, targets, rank, scaling):
            changes[f"model.layers.{layer}.{module}"] = delta
    changes.update(_sglang_heads(heads, rank, scaling))
    return _changed(changes)


def _sglang_files(directory: Path) -> list[Path]:
    for pattern in ("*.safetensors", "*.bin", "*.pt"):
        files = sorted(path for path in directory.glob(pattern) if path.name[0] != ".")
        if files and pattern == "*.bin":
            states = ("training_args", "optimizer", "scheduler", "consolidated")
            files = [path for path in files if path.stem not in states]
        index = directory / "model.safetensors.index.json"
        if files and pattern == "*.safetensors" and index.exists():
            named = set(json.loads(index.read_text())["weight_map"].values())
            files = [path for path in files if path.name in named]
        if files:
            return files
    raise Refused("no weights")


def _sglang_targets(modules: object) -> set[str]:
    if isinstance(modules, str):
        _need(modules in ("all", "all-linear"), "only 'all' or 'all-linear' as a string")
        return {"all"}
    _need(isinstance(modules, list) and all(isinstance(name, str) for name in modules), "targets")
    assert isinstance(modules, list)
    stacked = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
               "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj"}  # fmt: skip
    return {stacked.get(name.split(".")[-1], name.split(".")[-1]) for name in modules}


def _sglang_stack_attention(weights: dict[str, Array]) -> None:
    """`normalize_qkv_proj`: q, k and v of equal names become one; k may be missing, v may not."""
    names = list(weights)
    has_k = any("k_proj" in name for name in names)
    for name in names:
        if "q_proj" in name:
            k_name, v_name = name.replace("q_proj", "k_proj"), name.replace("q_proj", "v_proj")
            _need(v_name in weights and (k_name in weights or not has_k), "q without v or k")
            k = weights[k_name] if has_k else np.zeros_like(weights[v_name])
            _need(weights[name].ndim == k.ndim == weights[v_name].ndim, "shapes")
            stacked = _stack((weights[name], k, weights[v_name]))
            for part in {name, v_name, k_name}:
                weights.pop(part, None)
            weights[name.replace("q_proj", "qkv_proj")] = stacked
        elif "qkv_proj" in name and "lora_A" in name:
            raise Refused("a stacked A, which this model does not follow")


def _sglang_stack_mlp(weights: dict[str, Array]) -> None:
    """`normalize_gate_up_proj`: a missing up_proj is zero."""
    for name in list(weights):
        if "gate_proj" in name:
            gate, up_name = weights.pop(name), name.replace("gate_proj", "up_proj")
            up = weights.pop(up_name, np.zeros_like(gate))
            weights[name.replace("gate_proj", "gate_up_proj")] = _stack((gate, up))


def _stack(parts: tuple[Array, ...]) -> Array:
    _need(len({part.shape[1:] for part in parts}) == 1 and parts[0].ndim == 2, "shapes")
    return np.concatenate(parts)


def _sglang_layer(
    weights: dict[str, Array], targets: set[str], rank: int, scaling: float
) -> Iterator[tuple[str, Array]]:
    """`load_lora_weight_to_buffer`: the last tensor whose name holds a target's name counts."""
    buffers: dict[tuple[str, str], Array] = {}
    for name, tensor in weights.items():
        matching = [target for target in targets if target in name]
        _need(matching, f"no target for {name}")
        buffers[max(matching, key=len), "A" if "lora_A" in name else "B"] = tensor
    for target in targets & _SGLANG_STACKS.keys():
        modules = _SGLANG_STACKS[target]
        outs = [IN_BLOCK[module][0] for module in modules]
        a = buffers.get((target, "A"), np.zeros((rank * len(modules), IN_BLOCK[modules[0]][1])))
        b = buffers.get((target, "B"), np.zeros((sum(outs), rank)))
        _need(a.shape == (rank * len(modules), IN_BLOCK[modules[0]][1]), f"A of {target}")
        _need(b.shape == (sum(outs), rank), f"B of {target}")
        rows = np.split(b, np.cumsum(outs)[:-1])
        for module, part_b, part_a in zip(modules, rows, np.split(a, len(modules)), strict=True):
            yield module, scaling * (part_b @ part_a)


def _sglang_heads(
    heads: dict[str, Array], rank: int, scaling: float
) -> Iterator[tuple[str, Array]]:
    for path in ("model.embed_tokens", "lm_head"):
        own = {name: value for name, value in heads.items() if path.split(".")[-1] in name}
        a = [value for name, value in own.items() if "lora_embedding_A" in name or "lora_A" in name]
        b = [value for name, value in own.items() if "lora_embedding_B" in name or "lora_B" in name]
        if a and b:
            _need(a[-1].shape[0] == rank, "rank")
            yield path, _product(path, b[-1], a[-1], scaling)


def llama_cpp(directory: Path) -> Changes:
    """llama.cpp: its converter keeps the tensors and `lora_alpha`; alpha / rank of the tensors.

    `convert_lora_to_gguf.py` (0b03ada, 2026), its names by the gguf library itself; at run time
    `llama_adapter_lora_weight::get_scale` of `src/llama-adapter.h`: an alpha of 0 means a scale
    of 1.
    """
    config = _config(directory)
    _need("lora_alpha" in config, "no lora_alpha")
    alpha = float(config["lora_alpha"])
    factors: dict[str, dict[str, Array]] = {}
    found: dict[str, Array] = {}
    names = ("adapter_model.safetensors", "adapter_model.bin")
    for name, tensor in _first_file(directory, *names).items():
        base = name.replace("base_model.model.", "")
        for part in (".lora_A.weight", ".lora_B.weight", ".lora_embedding_A", ".lora_embedding_B"):
            base = base.replace(part, ".weight")
        if ".lora_A.weight" in name or ".lora_embedding_A" in name:
            factors.setdefault(base, {})["A"] = tensor
        elif ".lora_B.weight" in name or ".lora_embedding_B" in name:
            factors.setdefault(base, {})["B"] = tensor
        elif ".base_layer.weight" not in name:
            _need("_layernorm" in name or ".norm" in name, f"unexpected name {name}")
            found[base] = tensor
    for base, sides in factors.items():
        _need(sides.keys() == {"A", "B"}, f"half of {base}")
        module = _gguf_module(base)
        a = sides["A"]
        scaling = alpha / a.shape[0] if alpha else 1.0
        _need(module not in found, f"{module} twice")
        found[module] = _product(module, sides["B"], a, scaling)
    return _changed(found)


_GGUF_MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _gguf_module(base: str) -> str:
    """The module that the converter's name for a tensor means in a Llama."""
    import gguf

    for prefix, instead in (("model.language_model.", "model."), ("language_model.", "")):
        if base.startswith(prefix):
            base = base.replace(prefix, instead, 1)
            break
    known = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, LAYERS)
    name = known.get_name(base, try_suffixes=(".weight", ".bias"))
    _need(name and name.endswith(".weight"), f"cannot map {base}")
    if name in ("token_embd.weight", "output.weight"):
        return "model.embed_tokens" if name[0] == "t" else "lm_head"
    _, layer, leaf, _ = str(name).split(".")
    _need(leaf in _GGUF_MODULES, f"not in this base: {base}")
    return f"model.layers.{layer}.{_GGUF_MODULES[leaf]}"


def mlx_lm(directory: Path) -> Changes:
    """mlx-lm before it checked names: tensors of no converted module are ignored.

    `load_adapters` and `linear_to_lora_layers` of `mlx_lm/tuner/utils.py`, `LoRALinear.fuse` of
    `mlx_lm/tuner/lora.py` (0.32.2, which refuses what no parameter takes: see `mlx_lm_strict`).
    """
    return _mlx(directory, strict=False)


def mlx_lm_strict(directory: Path) -> Changes:
    """mlx-lm 0.32.2: as `mlx_lm`, and a tensor that no parameter takes is an error."""
    return _mlx(directory, strict=True)


def _mlx(directory: Path, *, strict: bool) -> Changes:
    config = _config(directory)
    kind = config.get("fine_tune_type", "lora")
    _need(kind not in ("full", "dora"), "not LoRA: the base decides")
    parameters, layers = config["lora_parameters"], max(config["num_layers"], 0)
    rank, scale = parameters["rank"], parameters["scale"]
    _need("dropout" in parameters, "no dropout")
    keys = parameters.get("keys")
    keys = set(IN_BLOCK) if keys is None else set(keys)
    converted = {
        f"model.layers.{layer}.{module}"
        for layer in list(range(LAYERS))[-layers:]
        for module in IN_BLOCK
        if module in keys
    } | (keys & SHAPES.keys())
    tensors = _first_file(directory, "adapters.safetensors")
    found = {}
    for path in converted:
        d_out, d_in = SHAPES[path]
        a, b = tensors.pop(f"{path}.lora_a", None), tensors.pop(f"{path}.lora_b", None)
        if strict:
            _need(a is None or a.shape == (d_in, rank), "shape")
            _need(b is None or b.shape == (rank, d_out), "shape")
        if b is not None:  # without one it is zero; without an A that is random
            a = np.full((d_in, rank), np.nan) if a is None else a
            found[path] = _product(path, b.T, a.T, scale)
    _need(not (strict and tensors), "tensors of no module")
    return _changed(found)
