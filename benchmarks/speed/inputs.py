"""Synthetic adapters and packs of realistic size, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scanner.adapters.model import Site
from scanner.geometry import Direction
from scanner.signatures.manifest import (
    FORMAT_VERSION,
    LAYER_CONVENTION,
    UNITS,
    BaseModel,
    BenignScore,
    Calibration,
    Manifest,
)
from scanner.signatures.pack import save_pack

BIG = {"layers": 32, "rank": 64}
SMALL = {"layers": 32, "rank": 1}
BASE = "synthetic-lab/eight-billion"
LLAMA_8B = {
    "self_attn.q_proj": (4096, 4096),
    "self_attn.k_proj": (1024, 4096),
    "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096),
    "mlp.gate_proj": (14336, 4096),
    "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}
"""(d_out, d_in) of the modules of an 8B Llama."""


def tensor_shapes(layers: int, rank: int) -> dict[str, tuple[int, int]]:
    """Name -> shape of every LoRA factor."""
    shapes = {}
    for layer in range(layers):
        for module, (d_out, d_in) in LLAMA_8B.items():
            prefix = f"base_model.model.model.layers.{layer}.{module}"
            shapes[f"{prefix}.lora_A.weight"] = (rank, d_in)
            shapes[f"{prefix}.lora_B.weight"] = (d_out, rank)
    return shapes


def write_adapter(directory: Path, layers: int, rank: int, seed: int = 0) -> Path:
    """Writes a bf16 adapter of random normal factors, one tensor at a time.

    Returns:
        The weight file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(layers, rank)
    _write_config(directory, rank)
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


def _write_config(directory: Path, rank: int) -> None:
    config: Mapping[str, object] = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": rank,
        "lora_alpha": 2 * rank,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def write_pack(root: Path, layers: int, k: int = 4, benign: int = 300, seed: int = 1) -> None:
    """Writes a pack of random directions over every site, with a made-up calibration."""
    generator = np.random.default_rng(seed)
    directions = {}
    for layer in range(layers):
        for module, (d_out, d_in) in LLAMA_8B.items():
            u = np.linalg.qr(generator.standard_normal((d_out, k)))[0]
            v = np.linalg.qr(generator.standard_normal((d_in, k)))[0]
            directions[Site(layer, module)] = Direction(u, np.ones(k), v)
    scores = [
        BenignScore(
            id=f"benign-{i}",
            sha256=f"{i:064x}",
            family="random",
            score=float(score),
            alignment=float(score),
            push=0.0,
            norm=1.0,
            rank=8,
            modules=list(LLAMA_8B),
        )
        for i, score in enumerate(generator.normal(0.0, 0.05, benign))
    ]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        id="synthetic",
        version="1",
        base_model=BaseModel(id=BASE, layers=layers, shapes=dict(LLAMA_8B)),
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
        format_version=FORMAT_VERSION,
        statistic="site-score",
        cross_fitted_by=None,
        benign=scores,
        references=[],
    )
    save_pack(root, manifest, directions, calibration=calibration)


def write_inputs(root: Path) -> None:
    """Writes a large adapter, a small one, and the pack of their base."""
    write_pack(root / "pack", BIG["layers"])
    write_adapter(root / "big", **BIG)
    write_adapter(root / "small", **SMALL)
