"""Synthetic adapters and packs of realistic size, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scanner.formats.model import Site
from scanner.geometry import Direction
from scanner.signatures.manifest import (
    CALIBRATION_FORMAT_VERSION,
    FORMAT_VERSION,
    LAYER_CONVENTION,
    UNITS,
    BaseModel,
    BenignScore,
    Calibration,
    Manifest,
)
from scanner.signatures.saving import save_pack
from scanner.signatures.score import STATISTIC

BIG_RANK = 64
SMALL_RANK = 1


@dataclass(frozen=True)
class BaseShape:
    """Dimensions of a base model's blocks."""

    name: str
    layers: int
    modules: Mapping[str, tuple[int, int]]
    """Module -> (d_out, d_in)."""


def _grouped_query(name: str, layers: int, width: int, kv_width: int, mlp: int) -> BaseShape:
    """A Llama-like model with the seven projections that adapters target."""
    modules = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (kv_width, width),
        "self_attn.v_proj": (kv_width, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (mlp, width),
        "mlp.up_proj": (mlp, width),
        "mlp.down_proj": (width, mlp),
    }
    return BaseShape(name, layers, modules)


LLAMA_8B = _grouped_query("synthetic-lab/eight-billion", 32, 4096, 1024, 14336)
"""An 8B Llama 3."""
LLAMA_7B = _grouped_query("synthetic-lab/seven-billion", 32, 4096, 4096, 11008)
"""A 7B Llama 2."""
QWEN_14B = _grouped_query("synthetic-lab/fourteen-billion", 48, 5120, 1024, 13824)
"""A 14B Qwen 2.5."""


def tensor_shapes(base: BaseShape, rank: int) -> dict[str, tuple[int, int]]:
    """Name -> shape of every LoRA factor."""
    shapes = {}
    for layer in range(base.layers):
        for module, (d_out, d_in) in base.modules.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            shapes[f"{prefix}.lora_A.weight"] = (rank, d_in)
            shapes[f"{prefix}.lora_B.weight"] = (d_out, rank)
    return shapes


def write_adapter(directory: Path, base: BaseShape, rank: int, seed: int = 0) -> Path:
    """Writes a bf16 adapter of random normal factors, one tensor at a time.

    Returns:
        The weight file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(base, rank)
    _write_config(directory, base, rank)
    path = directory / "adapter_model.safetensors"
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = 2 * shape[0] * shape[1]
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    generator = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            file.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return path


def _write_config(directory: Path, base: BaseShape, rank: int) -> None:
    config: Mapping[str, object] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": 2 * rank,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def write_pack(root: Path, base: BaseShape, k: int = 4, benign: int = 300, seed: int = 1) -> None:
    """Writes a pack of random directions over every site, with a made-up calibration."""
    generator = np.random.default_rng(seed)
    directions = {}
    for layer in range(base.layers):
        for module, (d_out, d_in) in base.modules.items():
            u = np.linalg.qr(generator.standard_normal((d_out, k)))[0]
            v = np.linalg.qr(generator.standard_normal((d_in, k)))[0]
            directions[Site(layer, module)] = Direction(u, np.ones(k), v)
    scores = [
        BenignScore(
            id=f"benign-{i}",
            sha256=f"{i:064x}",
            family="random",
            score=float(score),
            signed_write=float(score),
            cosine=float(score),
            dose=0.0,
            norm=1.0,
            rank=8,
            layers=base.layers,
            modules=list(base.modules),
        )
        for i, score in enumerate(generator.normal(0.0, 0.05, benign))
    ]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        id="synthetic",
        version="1",
        base_model=BaseModel(id=base.name, layers=base.layers, shapes=dict(base.modules)),
        method="weights",
        rank=k,
        nulled=0,
        layer_convention=LAYER_CONVENTION,
        units=UNITS,
        references=[],
        licence="Apache-2.0",
        limitations=["random numbers, for timing only"],
        files={},
    )
    calibration = Calibration(
        format_version=CALIBRATION_FORMAT_VERSION,
        statistic=STATISTIC,
        cross_fitted_by=None,
        benign=scores,
        references=[],
    )
    save_pack(root, manifest, directions, calibration=calibration)


def write_inputs(root: Path) -> None:
    """Writes a large adapter, a small one, and the pack of their base."""
    write_pack(root / "pack", LLAMA_8B)
    write_adapter(root / "big", LLAMA_8B, BIG_RANK)
    write_adapter(root / "small", LLAMA_8B, SMALL_RANK)
