"""Small files that stand for enormous updates, or for a great deal of work.

Each takes the place of an honest adapter's weights and config; `tests.attacks.build` lists them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.synthetic import Array, lora_config, module_paths, safetensors_bytes, shape_of

PATH = module_paths()[0]
PREFIX = f"base_model.model.{PATH}"
D_OUT, D_IN = shape_of(PATH)

COSTLY: dict[str, Callable[[Path], object]] = {}
"""Name -> what it does to a directory that holds an adapter."""


def costly(function: Callable[[Path], object]) -> Callable[[Path], object]:
    """Registers an attack under its function's name."""
    COSTLY[function.__name__] = function
    return function


def _write(adapter: Path, parts: Mapping[str, Array], **config: Any) -> None:
    tensors = {f"{PREFIX}.{part}": values for part, values in parts.items()}
    (adapter / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    (adapter / "adapter_config.json").write_text(json.dumps(lora_config(**config)))


def _ones(*shape: int) -> Array:
    return np.full(shape, 0.01, np.float32)


@costly
def loha_of_enormous_rank(a: Path) -> None:
    sides = {f"hada_w{i}_{end}": _ones(*shape) for i in (1, 2)
             for end, shape in (("a", (D_OUT, 3000)), ("b", (3000, D_IN)))}  # fmt: skip
    _write(a, sides, peft_type="LOHA", r=3000, alpha=1)


@costly
def loha_of_a_wide_matrix(a: Path) -> None:
    sides = {f"hada_w{i}_{end}": _ones(*shape) for i in (1, 2)
             for end, shape in (("a", (60_000, 1)), ("b", (1, 60_000)))}  # fmt: skip
    _write(a, sides, peft_type="LOHA", r=1, alpha=1)


@costly
def loha_of_a_wide_matrix_and_some_rank(a: Path) -> None:
    sides = {f"hada_w{i}_{end}": _ones(*shape) for i in (1, 2)
             for end, shape in (("a", (20_000, 40)), ("b", (40, 20_000)))}  # fmt: skip
    _write(a, sides, peft_type="LOHA", r=40, alpha=1)


@costly
def lokr_of_enormous_rank(a: Path) -> None:
    sides = {"lokr_w1_a": _ones(2, 900), "lokr_w1_b": _ones(900, 2),
             "lokr_w2_a": _ones(6, 900), "lokr_w2_b": _ones(900, 8)}  # fmt: skip
    _write(a, sides, peft_type="LOKR", r=900, alpha=1)


@costly
def lokr_of_enormous_shape(a: Path) -> None:
    _write(a, {"lokr_w1": _ones(9000, 1), "lokr_w2": _ones(9000, 1)}, peft_type="LOKR", alpha=1)


@costly
def lokr_of_a_long_row_and_a_long_column(a: Path) -> None:
    _write(a, {"lokr_w1": _ones(1, 90_000), "lokr_w2": _ones(90_000, 1)}, peft_type="LOKR", alpha=1)


@costly
def c3a_of_one_long_kernel(a: Path) -> None:
    _write(a, {"c3a_kernel": _ones(1, 1, 65_536)}, peft_type="C3A", block_size=65_536)


@costly
def shira_far_apart(a: Path) -> None:
    count = 200_000
    index = np.linspace(0, count / 2 - 1, count).astype(np.int64).astype(np.float32)
    _write(
        a, {"shira_weight": _ones(count), "shira_indices": np.stack([index, index])},
        peft_type="SHIRA", r=1,
    )  # fmt: skip


@costly
def qalora_of_enormous_groups(a: Path) -> None:
    factors = {"lora_A.weight": _ones(3, 100), "lora_B.weight": _ones(D_OUT, 3)}
    _write(a, factors, use_qalora=True, qalora_group_size=10_000_000)


@costly
def bdlora_of_many_blocks(a: Path) -> None:
    factors = {"lora_A.weight": _ones(4096, 64), "lora_B.weight": _ones(D_OUT, 4096)}
    blocks = {"nblocks": 4096, "target_modules_bd_a": ["q_proj"], "target_modules_bd_b": []}
    _write(a, factors, r=4096, use_bdlora=blocks)


@costly
def gralora_of_many_blocks(a: Path) -> None:
    factors = {"gralora_A": _ones(256, 1, 256), "gralora_B": _ones(256, 256, 1)}
    _write(a, factors, peft_type="GRALORA", r=256, alpha=1, gralora_k=256)


@costly
def experts_that_share_a_wide_factor(a: Path) -> None:
    factors = {"lora_A.weight": _ones(1, 64, 4000), "lora_B.weight": _ones(4000, 2, 64)}
    _write(a, factors, r=64)


@costly
def lora_of_more_than_full_rank(a: Path) -> None:
    factors = {"lora_A.weight": _ones(1500, 1400), "lora_B.weight": _ones(1400, 1500)}
    _write(a, factors, r=1500)


@costly
def kohya_with_a_long_alpha(a: Path) -> None:
    (a / "adapter_config.json").unlink()
    tensors = {
        "lora_unet_x.lora_down.weight": _ones(2, 8),
        "lora_unet_x.lora_up.weight": _ones(8, 2),
        "lora_unet_x.alpha": np.zeros(4_000_000, np.float32),
    }
    (a / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors, "F16"))


@costly
def columns_that_cancel(a: Path) -> None:
    """An update hidden in columns 2^26 times as large, of which Gram matrices see nothing."""
    generator = np.random.default_rng(3)
    large, small = (generator.standard_normal((D_OUT, 1)) for _ in range(2))
    row = generator.standard_normal((1, D_IN))
    b = np.hstack([2.0**26 * large, -(2.0**26) * large, small]).astype(np.float32)
    _write(a, {"lora_A.weight": np.vstack([row, row, row]), "lora_B.weight": b})
