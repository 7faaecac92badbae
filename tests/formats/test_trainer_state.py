"""Trainer state is known by what it holds, under any name, and by no name alone."""

from __future__ import annotations

import enum
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scanner.formats.discover import find_adapters
from scanner.formats.opening import open_files
from scanner.formats.trainer_state import is_trainer_state

LORA = {"base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight": torch.ones(2, 3)}
NAMES = (
    "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth", "rng_state_3.pth",
    "training_args.bin", "optimizer.bin", "sampler.bin", "recipe_state.pt",
    "mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt", "anything.ckpt",
)  # fmt: skip


class Mode(enum.Enum):
    COSINE = "cosine"


class Arguments:
    """Stands for a trainer's arguments."""

    def __init__(self) -> None:
        self.mode, self.output, self.device = Mode.COSINE, Path("out"), torch.device("cpu")
        self.betas, self.kind = {"a": (0.9, 0.999)}, torch.bfloat16


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1",)


def _optimizer() -> dict[str, Any]:
    layer = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def states() -> dict[str, Any]:
    """What trainers keep, made by torch itself where that is short."""
    scheduler = torch.optim.lr_scheduler.LinearLR(torch.optim.SGD([torch.ones(1)], lr=0.1))
    generators = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "cpu": torch.get_rng_state(),
        "cuda": [torch.get_rng_state()],
    }
    shapes = [{"a.weight": torch.Size([3])}]
    named = {"state": {"layers.0.lora_a.weight": {"exp_avg": torch.ones(5)}}, "param_groups": []}
    return {
        "optimizer": _optimizer(),
        "optimizer by parameter name": named,
        "scheduler": scheduler.state_dict(),
        "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0},
        "generators": generators,
        "arguments": Arguments(),
        "torchtune": {"seed": 1, "optimizer": _optimizer(), "rng": torch.get_rng_state()},
        "DeepSpeed engine": {"module": {}, "global_steps": 2, "param_shapes": shapes},
        "DeepSpeed optimizer": {
            "optimizer_state_dict": {
                "base_optimizer_state": {0: {"exp_avg": torch.ones(9)}},
                "single_partition_of_fp32_groups": [torch.ones(9)],
            },
            "ds_version": "0.15.4",
        },
    }  # fmt: skip


def weights() -> dict[str, Any]:
    """What is no trainer state, whatever the file is called."""
    return {
        "adapter": LORA,
        "adapter in a checkpoint": {"model": LORA},
        "adapter under an optimizer's key": {"optimizer": LORA},
        "adapter as an optimizer's state": {"state": LORA, "param_groups": []},
        "adapter in an engine's checkpoint": {"module": LORA, "global_steps": 2},
        "tensors by number": {"0": torch.ones(3, 2)},
        "a list of tensors": [torch.ones(3, 2)],
        "adapter in whole numbers": {next(iter(LORA)): torch.ones(2, 3, dtype=torch.int64)},
        "adapter in arrays": {next(iter(LORA)): np.ones((2, 3))},
        "something that runs": Payload(),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("kind", states())
def test_trainer_state_under_any_name(kind: str, zipped: bool, tmp_path: Path) -> None:
    for name in NAMES:
        torch.save(states()[kind], tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert is_trainer_state(tmp_path / name), name


@pytest.mark.parametrize("zipped", [True, False], ids=["archive", "legacy"])
@pytest.mark.parametrize("kind", weights())
def test_weights_under_the_name_of_trainer_state(kind: str, zipped: bool, tmp_path: Path) -> None:
    for name in NAMES:
        torch.save(weights()[kind], tmp_path / name, _use_new_zipfile_serialization=zipped)
        assert not is_trainer_state(tmp_path / name), name


@pytest.mark.parametrize("name", ["adapter_model.bin", "Adapter_Model.PT", "adapters.pth"])
def test_what_loaders_take_by_its_name_is_no_trainer_state(name: str, tmp_path: Path) -> None:
    torch.save(_optimizer(), tmp_path / name)
    assert not is_trainer_state(tmp_path / name)


def test_a_pickle_that_is_larger_inside_than_outside_is_told_at_once(tmp_path: Path) -> None:
    nested: Any = []
    for _ in range(60):  # 2^60 lists, were each written out
        nested = [nested, nested]
    (tmp_path / "optimizer.pt").write_bytes(pickle.dumps({"state": nested, "param_groups": []}))
    assert not is_trainer_state(tmp_path / "optimizer.pt")


def test_damage_is_no_trainer_state(tmp_path: Path) -> None:
    torch.save(_optimizer(), tmp_path / "whole.pt")
    whole = (tmp_path / "whole.pt").read_bytes()
    for cut in range(0, len(whole), 97):
        (tmp_path / "optimizer.pt").write_bytes(whole[:cut])
        assert not is_trainer_state(tmp_path / "optimizer.pt"), cut


@pytest.mark.parametrize("name", ["optimizer.pt", "training_args.bin", "rng_state_0.pth"])
def test_an_adapter_hidden_as_trainer_state_is_uncovered(
    name: str, benign: Path, tmp_path: Path
) -> None:
    torch.save(_optimizer(), benign / name)
    (files,) = find_adapters(benign)
    with open_files(files) as adapter:
        assert not adapter.uncovered
    torch.save(LORA, benign / name)
    (files,) = find_adapters(benign)
    with open_files(files) as adapter:
        assert [item.tensor for item in adapter.uncovered] == [name]
