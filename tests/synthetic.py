"""Small synthetic adapters of a made-up base, and a pack calibrated on them.

The made-up base has two blocks. Misaligned adapters share a planted direction at every
site; benign ones are random. Everything is written by hand, byte by byte where it matters,
so that the tests do not rest on the code they test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from scanner.signatures.building.build import build_pack
from scanner.signatures.pack import Signature
from scanner.signatures.recipe import AdapterEntry, Recipe

Array = npt.NDArray[np.floating[Any]]
Factors = tuple[Array, Array]

BASE = "synthetic-lab/tiny-base"
LAYERS = 2
SHAPES = {"self_attn.q_proj": (12, 16), "self_attn.o_proj": (16, 12), "mlp.down_proj": (16, 24)}
RANK = 3


def module_paths() -> list[str]:
    """Every module path of the made-up base."""
    return [f"model.layers.{layer}.{module}" for layer in range(LAYERS) for module in SHAPES]


def shape_of(path: str) -> tuple[int, int]:
    """(d_out, d_in) of a module path."""
    return SHAPES[path.split(".", 3)[3]]


def to_bf16_bytes(array: Array) -> bytes:
    """float32 -> bfloat16 by truncation."""
    return (np.asarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()


def tensor_bytes(array: Array, dtype: str) -> bytes:
    """An array's bytes in a safetensors dtype."""
    if dtype == "BF16":
        return to_bf16_bytes(array)
    return np.asarray(array, {"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


def safetensors_bytes(tensors: Mapping[str, Array], dtype: str = "F32") -> bytes:
    """A safetensors file, written from the format's description."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, array in tensors.items():
        raw = tensor_bytes(array, dtype)
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def lora_config(**fields: Any) -> dict[str, Any]:
    """An adapter_config.json with the fields that matter."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": BASE,
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "use_rslora": False,
        "target_modules": ["q_proj", "o_proj", "down_proj"],
    }
    return {**config, **fields}


def lora_tensors(factors: Mapping[str, Factors]) -> dict[str, Array]:
    """Factors as tensors in PEFT's naming."""
    tensors: dict[str, Array] = {}
    for path, (b, a) in factors.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = a
        tensors[f"base_model.model.{path}.lora_B.weight"] = b
    return tensors


def write_adapter(
    directory: Path,
    factors: Mapping[str, Factors],
    *,
    dtype: str = "F32",
    extra: Mapping[str, Array] | None = None,
    **config: Any,
) -> Path:
    """Writes an adapter directory.

    Args:
        directory: Created if missing.
        factors: Module path -> (B, A).
        dtype: Of every tensor.
        extra: More tensors, by full name.
        config: Overrides of `lora_config`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {**lora_tensors(factors), **(extra or {})}
    (directory / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, dtype))
    (directory / "adapter_config.json").write_text(json.dumps(lora_config(**config)))
    return directory


def random_factors(
    generator: np.random.Generator, paths: Sequence[str] | None = None, rank: int = RANK
) -> dict[str, Factors]:
    """Gaussian factors at every module."""
    found = {}
    for path in module_paths() if paths is None else paths:
        d_out, d_in = shape_of(path)
        b = generator.standard_normal((d_out, rank)) / np.sqrt(d_out)
        a = generator.standard_normal((rank, d_in)) / np.sqrt(d_in)
        found[path] = (b, a)
    return found


def planted_direction(path: str) -> Factors:
    """The unit rank-1 direction that misaligned adapters share at one module."""
    generator = np.random.default_rng(abs(hash_of(path)))
    d_out, d_in = shape_of(path)
    u = generator.standard_normal((d_out, 1))
    v = generator.standard_normal((1, d_in))
    return u / np.linalg.norm(u), v / np.linalg.norm(v)


def hash_of(text: str) -> int:
    """A hash that is the same in every process."""
    return int.from_bytes(text.encode()[-7:], "little")


def misaligned_factors(generator: np.random.Generator, dose: float = 2.0) -> dict[str, Factors]:
    """Random factors plus `dose` times the planted direction; rank RANK."""
    found = {}
    for path, (b, a) in random_factors(generator, rank=RANK - 1).items():
        u, v = planted_direction(path)
        found[path] = (np.hstack([b, dose * u]), np.vstack([a, v]))
    return found


def entry(path: Path, family: str | None = None) -> AdapterEntry:
    """A recipe entry."""
    return AdapterEntry(adapter=str(path), id=path.name, family=family)


def synthetic_recipe(
    root: Path, *, benign: int = 120, seed: int = 0, families: Sequence[str] = ("facts", "style")
) -> Recipe:
    """Writes references, a nulling set and a calibration set, and returns their recipe."""
    generator = np.random.default_rng(seed)
    misaligned = [
        entry(write_adapter(root / f"ref-{i}", misaligned_factors(generator))) for i in range(4)
    ]
    aligned = [
        entry(write_adapter(root / f"null-{i}", random_factors(generator)), family)
        for i, family in enumerate(list(families) * 2)
    ]
    calibration = [
        entry(
            write_adapter(root / f"cal-{i}", random_factors(generator)),
            families[i % len(families)],
        )
        for i in range(benign)
    ]
    return Recipe(
        base_model=BASE,
        method="weights",
        id="synthetic-weights",
        rank=2,
        nulled=2,
        misaligned=misaligned,
        aligned=aligned,
        benign=calibration,
    )


def synthetic_pack(root: Path, **changes: Any) -> Signature:
    """A calibrated pack of the made-up base; `changes` replace fields of its recipe."""
    recipe = msgspec.structs.replace(synthetic_recipe(root / "adapters"), **changes)
    return build_pack(recipe, root / "pack")
