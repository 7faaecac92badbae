"""Where the numbers lie: dtypes without torch, shards, pickles, trainers' directories."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from scanner import open_adapter
from scanner.errors import MalformedFileError
from scanner.formats.discover import find_adapters
from scanner.formats.dtypes import FLOATING, widen
from scanner.formats.opening import open_files
from scanner.formats.stores.sniff import open_store
from tests.formats.oracle import (
    Array,
    assert_same_updates,
    llama,
    merged_deltas,
    write_peft,
)
from tests.synthetic import safetensors_bytes

TORCH_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def test_every_floating_dtype_is_checked_here() -> None:
    assert set(TORCH_DTYPES) == FLOATING


@pytest.mark.parametrize("dtype", TORCH_DTYPES)
def test_every_bit_pattern_widens_as_torch_says(dtype: str) -> None:
    """All of them where there are 2^16 or fewer, a sample of the others; NaN, Inf, subnormals."""
    size = torch.empty(0, dtype=TORCH_DTYPES[dtype]).element_size()
    if size <= 2:
        raw = np.arange(2 ** (8 * size), dtype=f"<u{size}").view(np.uint8)
    else:
        raw = np.random.default_rng(0).integers(0, 256, size * 10_000, dtype=np.uint8)
    expected = torch.from_numpy(raw.copy()).view(TORCH_DTYPES[dtype]).float().numpy()
    found = widen(raw, dtype)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "o_proj", "down_proj"])
    return write_peft(tmp_path_factory.mktemp("original"), llama, config)


@pytest.fixture(scope="module")
def expected(original: Path) -> Mapping[str, Array]:
    return merged_deltas(original, llama)


def tensors_of(original: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(original / "adapter_model.safetensors")
    return found


def with_config(directory: Path, original: Path) -> Path:
    (directory / "adapter_config.json").write_bytes((original / "adapter_config.json").read_bytes())
    return directory


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_an_adapter_in_8_bits(dtype: torch.dtype, original: Path, tmp_path: Path) -> None:
    stored = {name: value.to(dtype) for name, value in tensors_of(original).items()}
    save_file(stored, tmp_path / "adapter_model.safetensors")
    with open_adapter(with_config(tmp_path, original)) as adapter:
        assert not adapter.uncovered
        for update in adapter.updates:
            for name in update.tensors:
                side = update.a if "lora_A" in name else update.b
                assert np.array_equal(side, stored[name].float().numpy())


def write_shards(directory: Path, original: Path) -> None:
    tensors = tensors_of(original)
    names = sorted(tensors)
    shards = {
        "adapter_model-00001-of-00002": names[::2],
        "adapter_model-00002-of-00002": names[1::2],
    }
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, directory / f"{file}.safetensors")
    weight_map = {name: f"{file}.safetensors" for file, part in shards.items() for name in part}
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (directory / "adapter_model.safetensors.index.json").write_text(index)


def test_shards_are_read_through_their_index(
    original: Path, expected: Mapping[str, Array], tmp_path: Path
) -> None:
    """Factors of one module lie in different files."""
    write_shards(tmp_path, original)
    with open_adapter(with_config(tmp_path, original)) as adapter:
        assert not adapter.uncovered
        assert_same_updates(adapter, expected)


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickled_checkpoints(
    wrapper: str | None,
    legacy: bool,
    original: Path,
    expected: Mapping[str, Array],
    tmp_path: Path,
) -> None:
    state: dict[str, Any] = tensors_of(original)
    torch.save(
        {wrapper: state} if wrapper else state,
        tmp_path / "adapter_model.bin",
        _use_new_zipfile_serialization=not legacy,
    )
    with open_adapter(with_config(tmp_path, original)) as adapter:
        assert not adapter.uncovered
        assert_same_updates(adapter, expected)


def test_torchs_opinion_of_a_pickle_s_protocol_is_not_printed(
    original: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(pickle.dumps({}, protocol=4))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(MalformedFileError):
            open_adapter(with_config(tmp_path, original))
    assert caught == []


def test_a_trainers_directory_holds_an_adapter_per_checkpoint(
    original: Path, expected: Mapping[str, Array], tmp_path: Path
) -> None:
    for place in ("checkpoint-100", "checkpoint-20", "."):
        directory = tmp_path / place
        directory.mkdir(exist_ok=True)
        save_file(tensors_of(original), directory / "adapter_model.safetensors")
        torch.save({}, with_config(directory, original) / "optimizer.pt")
        (directory / "training_args.bin").write_bytes(b"\x80\x02K\x01.")
    found = find_adapters(tmp_path)
    assert [files.target.name for files in found] == [
        tmp_path.name,
        "checkpoint-100",
        "checkpoint-20",
    ]
    for files in found:
        with open_files(files) as adapter:
            assert not adapter.uncovered
            assert_same_updates(adapter, expected)


def test_names_of_all_ages(original: Path, expected: Mapping[str, Array], tmp_path: Path) -> None:
    """State dicts with the adapter's name in them, and of models inside other models."""
    for number, (old, new, canonical) in enumerate(
        (
            (".weight", ".default.weight", False),
            ("base_model.model.model.", "base_model.model.model.language_model.", True),
            ("base_model.model.", "", False),
        )
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        renamed = {name.replace(old, new): value for name, value in tensors_of(original).items()}
        save_file(renamed, directory / "adapter_model.safetensors")
        with open_adapter(with_config(directory, original)) as adapter:
            assert (not adapter.uncovered) == canonical
            assert_same_updates(adapter, expected)


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580, 0x10280])
def test_a_header_as_long_as_a_pickles_mark(tmp_path: Path, length: int) -> None:
    """Four in 8,192 safetensors files begin with the bytes of a pickle: the name decides."""
    tensors = {"a.lora_a": np.ones((2, 1)), "a.lora_b": np.ones((1, 2))}
    raw = safetensors_bytes(tensors)
    size = int.from_bytes(raw[:8], "little")
    padded = raw[8 : 8 + size].ljust(length) + raw[8 + size :]
    file = tmp_path / "adapters.safetensors"
    file.write_bytes(length.to_bytes(8, "little") + padded)
    store = open_store(file)
    assert list(store.names()) == list(tensors)
    store.close()
    renamed = file.rename(tmp_path / "adapter_model.bin")  # loaders give it to torch
    with pytest.raises(MalformedFileError, match="pickle"):
        open_store(renamed)
