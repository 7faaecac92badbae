"""Synthetic adapters and packs of realistic size, written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scanner.formats.model import Site
from scanner.geometry import LEADING, Direction, SiteInputs
from scanner.geometry.sketch import SIZE, WeightSketch
from scanner.signatures.base_facts import BaseFacts
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
MIDDLE_RANK = 16
SMALL_RANK = 4
LARGEST = 0.02
"""Size of the largest direction of a made-up B: updates of 1 % of the norm of a base's weight."""
TRAINED_SPREAD = 1e-2
"""Size of the smallest direction of a made-up B beside the largest, as of trained ones."""


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


def write_adapter(
    directory: Path, base: BaseShape, rank: int, seed: int = 0, dtype: str = "BF16"
) -> Path:
    """Writes an adapter of random factors, one tensor at a time.

    A is normal, as where training starts. The columns of B have a few directions in common and
    little of the others, as what grew from zero has: products of such columns need more care.

    Args:
        directory: Where it goes.
        base: The shapes.
        rank: Its rank.
        seed: Of the random numbers.
        dtype: ``BF16``, ``F16`` or ``F32``.

    Returns:
        The weight file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    shapes = tensor_shapes(base, rank)
    _write_config(directory, base, rank)
    path = directory / "adapter_model.safetensors"
    header, offset = {}, 0
    for name, shape in shapes.items():
        size = (4 if dtype == "F32" else 2) * shape[0] * shape[1]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    generator = np.random.default_rng(seed)
    mixing = generator.standard_normal((rank, rank), dtype=np.float32)
    mixing *= np.geomspace(LARGEST, LARGEST * TRAINED_SPREAD, rank, dtype=np.float32)[:, np.newaxis]
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            if "lora_B" in name:
                values = (values @ mixing).astype(np.float32)
            file.write(_stored(values, dtype))
    return path


def _stored(values: npt.NDArray[np.float32], dtype: str) -> bytes:
    """Numbers as a file keeps them."""
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()


def _write_config(directory: Path, base: BaseShape, rank: int) -> None:
    config: Mapping[str, object] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": 2 * rank,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config))


def write_pack(
    root: Path,
    base: BaseShape,
    k: int = 4,
    benign: int = 300,
    seed: int = 1,
    *,
    identity: str = "synthetic",
    knows_base: bool = False,
) -> None:
    """Writes a pack of random directions over every site, with a made-up calibration.

    Args:
        root: Where it goes.
        base: The shapes.
        k: Rank of the directions.
        benign: Benign adapters of the calibration.
        seed: Of the random numbers.
        identity: Its id.
        knows_base: Whether it keeps of the base what packs made by running it keep: sketches of the
            weights, and what each site reads.
    """
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
        id=identity,
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
    facts = _made_up_facts(base, generator) if knows_base else None
    save_pack(root, manifest, directions, calibration=calibration, base=facts)


def _made_up_facts(base: BaseShape, generator: np.random.Generator) -> BaseFacts:
    """Random sketches of weights, and random inputs of each site."""
    weights, inputs = {}, {}
    for layer in range(base.layers):
        read: dict[int, SiteInputs] = {}
        for module, (_, d_in) in base.modules.items():
            site = Site(layer, module)
            weights[site] = WeightSketch(100.0, generator.standard_normal((SIZE, SIZE)) / SIZE)
            if d_in not in read:  # sites of one block that read the same
                vectors = np.linalg.qr(generator.standard_normal((d_in, LEADING)))[0]
                read[d_in] = SiteInputs(
                    vectors, np.geomspace(50.0, 1.0, LEADING), 0.1, vectors[:, 0] * 7.0, 100.0
                )
            inputs[site] = read[d_in]
    return BaseFacts(weights, inputs)


def write_inputs(root: Path) -> None:
    """Writes adapters of three sizes, and a pack of their base."""
    write_pack(root / "pack", LLAMA_8B, knows_base=True)
    for name, rank in (("big", BIG_RANK), ("middle", MIDDLE_RANK), ("small", SMALL_RANK)):
        write_adapter(root / name, LLAMA_8B, rank)
