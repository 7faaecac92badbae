"""Which files of a directory are an adapter, and what the others make of its verdict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from scanner.errors import NothingToScanError, TargetError
from scanner.formats.discover import find_adapters
from scanner.formats.opening import open_files, open_path
from tests.synthetic import lora_tensors, random_factors, safetensors_bytes


def uncovered(directory: Path) -> dict[str, str]:
    """File -> why it leaves the verdict of the directory's adapter open."""
    with open_path(directory) as adapter:
        return {item.tensor: item.reason for item in adapter.uncovered}


def index(directory: Path, suffix: str = ".safetensors") -> None:
    """An index that names one shard, in place of the weight file."""
    weights = directory / "adapter_model.safetensors"
    names = list(lora_tensors(random_factors(np.random.default_rng(902))))
    weights.rename(directory / "adapter_model-00001-of-00001.safetensors")
    weight_map = dict.fromkeys(names, "adapter_model-00001-of-00001.safetensors")
    (directory / f"adapter_model{suffix}.index.json").write_text(
        json.dumps({"weight_map": weight_map})
    )


@pytest.mark.parametrize(
    "name",
    [
        "second.safetensors", "SECOND.SAFETENSORS", "model-00001-of-00002.safetensors",
        "adapter_model.bin", "second.pth", "second.ckpt", "second.gguf", "second.npz", "Second.Bin",
        "pytorch_model.bin.index.json", "adapter_model.safetensors.index.json",
    ],
)  # fmt: skip
def test_another_weight_file_is_uncovered(name: str, benign: Path) -> None:
    shutil.copy(benign / "adapter_model.safetensors", benign / name)
    reasons = uncovered(benign)
    assert list(reasons) == [name]
    assert "another weight file" in reasons[name]
    assert ("SGLang" in reasons[name]) is name.lower().endswith(".safetensors")


def test_what_is_no_weight_file_is_no_concern(benign: Path) -> None:
    for name in ("single_adapter_config.json", "README.md", "tokenizer.json", "trainer_state.json"):
        (benign / name).write_text("{}")
    assert not uncovered(benign)


def test_a_shard_that_the_index_does_not_name(benign: Path) -> None:
    index(benign)
    assert not uncovered(benign)
    extra = lora_tensors(random_factors(np.random.default_rng(1)))
    (benign / "evil-00001-of-00001.safetensors").write_bytes(safetensors_bytes(extra))
    assert list(uncovered(benign)) == ["evil-00001-of-00001.safetensors"]


def test_an_index_beside_the_whole_file_hides_no_shard(benign: Path) -> None:
    whole = (benign / "adapter_model.safetensors").read_bytes()
    index(benign)
    (benign / "adapter_model.safetensors").write_bytes(whole)
    assert set(uncovered(benign)) == {
        "adapter_model.safetensors.index.json",
        "adapter_model-00001-of-00001.safetensors",
    }


def test_an_index_of_pickled_shards_says_so(benign: Path) -> None:
    index(benign, ".bin")
    (benign / "adapter_model-00001-of-00001.safetensors").unlink()
    with pytest.raises(TargetError, match="JSON, not weights"):
        open_path(benign)


def test_a_lone_shard_is_an_error_only_where_nothing_else_is(benign: Path) -> None:
    (benign / "adapter_model.safetensors").rename(benign / "model-00001-of-00002.safetensors")
    with pytest.raises(TargetError, match="one shard of several"):
        open_path(benign)


def test_numbered_files_of_another_format_are_other_weight_files(benign: Path) -> None:
    """mlx-lm did not write them: SGLang would load them all."""
    shutil.copy(benign / "adapter_model.safetensors", benign / "0000100_adapters.safetensors")
    found = find_adapters(benign)
    assert [files.target.name for files in found] == [benign.name, "0000100_adapters.safetensors"]
    for files, other in zip(
        found, ["0000100_adapters.safetensors", "adapter_model.safetensors"], strict=True
    ):
        with open_files(files) as adapter:
            assert [item.tensor for item in adapter.uncovered] == [other]


def test_an_engines_checkpoint_that_holds_an_adapter_is_a_target(benign: Path) -> None:
    engine = benign / "global_step2" / "mp_rank_00_model_states.pt"
    engine.parent.mkdir()
    torch.save({"module": {}, "global_steps": 2}, engine)
    assert len(find_adapters(benign)) == 1
    torch.save({"module": {"layers.0.q_proj.lora_A.weight": torch.ones(2, 3)}}, engine)
    assert [files.target.name for files in find_adapters(benign)] == [benign.name, "global_step2"]


def test_folders_in_folders_in_folders(tmp_path: Path) -> None:
    deepest = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=deepest)
        inner = os.open("d", os.O_RDONLY, dir_fd=deepest)
        os.close(deepest)
        deepest = inner
    os.close(deepest)
    with pytest.raises(NothingToScanError):
        find_adapters(tmp_path)
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)  # Python cannot
