"""Every PEFT type whose delta is recovered, against PEFT's own merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import nn

from scanner import open_adapter
from scanner.formats.readers.peft_methods import METHODS
from tests.formats.oracle import (
    INNER,
    WIDTH,
    assert_same_updates,
    llama,
    merged_deltas,
    randomise,
    write_peft,
)

TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}
TOLERANCE = 1e-4

Make = Callable[..., peft.PeftConfig]


def _adalora_with_pruned_ranks(model: Any) -> None:
    """What AdaLoRA's final allocation leaves: masks in the config, fewer ranks in the file."""
    randomise(model)
    model.peft_config["default"].rank_pattern = {
        f"model.layers.{layer}.self_attn.q_proj.lora_E": [True, False, True, layer == 0]
        for layer in range(2)
    }


CASES: dict[str, tuple[Make, dict[str, Any]]] = {
    "ADALORA": (peft.AdaLoraConfig, {"init_r": 4, "lora_alpha": 12, "total_step": 10}),
    "LOHA": (peft.LoHaConfig, {"r": 3, "alpha": 5}),
    "LOHA patterns": (
        peft.LoHaConfig,
        {"r": 3, "alpha": 5, "rank_pattern": {"o_proj": 2}, "alpha_pattern": {"q_proj": 9}},
    ),
    "LOHA of more than full rank": (peft.LoHaConfig, {"r": 6, "alpha": 5}),
    "LOKR split": (
        peft.LoKrConfig,
        {"r": 2, "alpha": 5, "decompose_both": True, "decompose_factor": 8},
    ),
    "LOKR one side whole": (peft.LoKrConfig, {"r": 2, "alpha": 5, "decompose_factor": 4}),
    "LOKR both sides whole": (peft.LoKrConfig, {"r": 20, "alpha": 45}),
    "VERA": (peft.VeraConfig, {"r": 4}),
    "PVERA": (peft.PveraConfig, {"r": 4}),
    "C3A": (peft.C3AConfig, {"block_size": 8}),
    "SHIRA": (peft.ShiraConfig, {"r": 4, "random_seed": 3}),
    "DELORA": (peft.DeloraConfig, {"r": 3}),
    "GRALORA": (peft.GraloraConfig, {"r": 4, "gralora_k": 2, "alpha": 6}),
    "GRALORA hybrid": (
        peft.GraloraConfig,
        {"r": 4, "gralora_k": 4, "alpha": 6, "hybrid_r": 2},
    ),
    "VBLORA": (peft.VBLoRAConfig, {"r": 2, "num_vectors": 10, "vector_length": 8}),
    "VBLORA top-k": (
        peft.VBLoRAConfig,
        {"r": 2, "num_vectors": 10, "vector_length": 8, "topk": 3, "save_only_topk_weights": True},
    ),
    "MISS": (peft.MissConfig, {"r": 5}),
    "UNILORA": (peft.UniLoraConfig, {"r": 3, "theta_d_length": 50, "save_indices": True}),
    "SUPERTUNING with a rank": (
        peft.SupertuningConfig,
        {"r": 3, "lora_alpha": 12, "sparsity": 0.9, "init_weights": False},
    ),
}
NEEDING_SHAPES: dict[str, tuple[Make, dict[str, Any]]] = {
    "MISS mini": (peft.MissConfig, {"r": 4, "mini_r": 8, "init_weights": "mini"}),
    "RANDLORA": (peft.RandLoraConfig, {"r": 4}),
    "FOURIERFT": (peft.FourierFTConfig, {"n_frequency": 30, "scaling": 7.0}),
    "WAVEFT": (peft.WaveFTConfig, {"n_frequency": 90, "scaling": 7.0}),
    "WAVEFT without its transform": (
        peft.WaveFTConfig,
        {"n_frequency": 90, "use_idwt": False, "wavelet_family": "db4"},
    ),
    "SUPERTUNING": (peft.SupertuningConfig, {"sparsity": 0.9, "init_weights": False}),
}
DRAWN_ANEW = {"VERA", "SHIRA"}
"""Types of which some loader draws a part from a seed instead of taking it from the file."""


def _write(directory: Path, make: Make, settings: dict[str, Any], **how: Any) -> Path:
    config = make(target_modules=TARGETS, task_type="CAUSAL_LM", **settings)
    return write_peft(directory, llama, config, **how)


@pytest.mark.parametrize("case", CASES)
def test_delta_from_the_file_alone(case: str, tmp_path: Path) -> None:
    path = _write(tmp_path, *CASES[case])
    with open_adapter(path) as adapter:
        assert adapter.format == f"peft-{case.split()[0].lower()}"
        drawn = [item for item in adapter.uncovered if "draws the" in item.reason]
        assert len(drawn) == (case.split()[0] in DRAWN_ANEW)
        assert len(adapter.uncovered) == len(drawn)
        assert_same_updates(adapter, merged_deltas(path, llama), TOLERANCE)


@pytest.mark.parametrize("case", NEEDING_SHAPES)
def test_delta_given_the_shapes_of_the_base(case: str, tmp_path: Path) -> None:
    path = _write(tmp_path, *NEEDING_SHAPES[case])
    with open_adapter(path) as adapter:
        assert not adapter.updates
        assert adapter.uncovered
    with open_adapter(path, SHAPES) as adapter:
        assert_same_updates(adapter, merged_deltas(path, llama), TOLERANCE)


class OddMlp(nn.Module):
    """Widths that no wavelet transform halves."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(7, 5)
        self.lin1 = nn.Linear(5, 8)


def test_wavelets_of_odd_sizes(tmp_path: Path) -> None:
    config = peft.WaveFTConfig(n_frequency=20, scaling=3.0, target_modules=["lin0", "lin1"])

    def build() -> Any:
        torch.manual_seed(1)
        return OddMlp()

    path = write_peft(tmp_path, build, config)
    with open_adapter(path, {"lin0": (5, 7), "lin1": (8, 5)}) as adapter:
        assert_same_updates(adapter, merged_deltas(path, build), TOLERANCE)


def test_a_wavelet_unknown_here_is_said(tmp_path: Path) -> None:
    settings = {"n_frequency": 30, "wavelet_family": "db4"}
    path = _write(tmp_path, peft.WaveFTConfig, settings)
    with open_adapter(path, SHAPES) as adapter:
        assert not adapter.updates
        assert all("the wavelet 'db4' is not known here" in u.reason for u in adapter.uncovered)


def test_adalora_with_pruned_ranks(tmp_path: Path) -> None:
    make, settings = CASES["ADALORA"]
    path = _write(tmp_path, make, settings, train=_adalora_with_pruned_ranks)
    with open_adapter(path) as adapter:
        assert {u.rank for u in adapter.updates if u.module == "self_attn.q_proj"} == {2, 3}
        assert_same_updates(adapter, merged_deltas(path, llama), TOLERANCE)


def test_every_type_in_the_table_has_an_oracle() -> None:
    tested = {case.split()[0] for case in (*CASES, *NEEDING_SHAPES)}
    assert tested == set(METHODS)


@pytest.mark.parametrize(
    ("make", "settings", "why"),
    [
        (peft.VeraConfig, {"r": 4, "save_projection": False}, "were not saved"),
        (peft.MissConfig, {"r": 4, "init_weights": "bat"}, "base weights"),
        (peft.IA3Config, {"feedforward_modules": ["down_proj"]}, "multiplies"),
        (peft.OFTConfig, {"r": 4, "oft_block_size": 0}, "multiplies"),
        (peft.HRAConfig, {"r": 4}, "multiplies"),
        (peft.DeftConfig, {"r": 4}, "multiplies"),
        (peft.TinyLoraConfig, {"r": 2}, "decomposition of base weights"),
        (peft.UniLoraConfig, {"r": 3, "theta_d_length": 50}, "no module's own tensors"),
    ],
)
def test_what_is_not_recovered_says_why(
    make: Make, settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, make, settings)
    with open_adapter(path) as adapter:
        assert not adapter.updates
        assert adapter.uncovered
        assert all(why in item.reason for item in adapter.uncovered)
