"""Adapters in memory read exactly as the files PEFT writes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import peft
import pytest
import torch

from scanner import open_adapter
from scanner.errors import MalformedFileError, TargetError, UsageError
from scanner.formats.model import Adapter
from scanner.formats.stores.memory import TensorsInMemory
from scanner.integrations.peft_models import PeftAdapters
from tests.formats.oracle import gpt2, llama, randomise
from tests.integrations.lab import example

Build = Callable[[], Any]
SHAPES = {
    "self_attn.q_proj": (24, 24),
    "self_attn.o_proj": (24, 24),
    "mlp.up_proj": (40, 24),
    "mlp.down_proj": (24, 40),
}
TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]

CASES: dict[str, tuple[Build, peft.PeftConfig]] = {
    "plain": (llama, peft.LoraConfig(r=4, target_modules=TARGETS)),
    "rslora with patterns": (
        llama,
        peft.LoraConfig(
            r=4,
            use_rslora=True,
            target_modules="all-linear",
            rank_pattern={"down_proj": 6},
            alpha_pattern={r".*mlp\.(up|gate)_proj": 7},
        ),
    ),
    "DoRA": (llama, peft.LoraConfig(r=4, use_dora=True, target_modules=TARGETS)),
    "PiSSA": (llama, peft.LoraConfig(r=4, init_lora_weights="pissa", target_modules=TARGETS)),
    "embeddings": (llama, peft.LoraConfig(r=4, target_modules=["embed_tokens", "lm_head"])),
    "modules to save": (
        llama,
        peft.LoraConfig(r=4, target_modules=TARGETS, modules_to_save=["lm_head"]),
    ),
    "trained biases": (llama, peft.LoraConfig(r=4, target_modules=TARGETS, bias="all")),
    "Conv1D": (gpt2, peft.LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)),
    "AdaLoRA": (llama, peft.AdaLoraConfig(init_r=4, total_step=9, target_modules=TARGETS)),
    "LoHa": (llama, peft.LoHaConfig(r=3, alpha=5, target_modules=TARGETS)),
    "VeRA": (llama, peft.VeraConfig(r=4, target_modules=TARGETS)),
    "SHiRA": (llama, peft.ShiraConfig(r=4, random_seed=3, target_modules=TARGETS)),
    "FourierFT": (llama, peft.FourierFTConfig(n_frequency=30, target_modules=TARGETS)),
    "IA3": (
        llama,
        peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
}


def assert_same(found: Adapter, saved: Adapter) -> None:
    assert (found.format, found.base_model) == (saved.format, saved.base_model)
    assert found.uncovered == saved.uncovered
    assert found.updates == saved.updates
    for update, expected in zip(found.updates, saved.updates, strict=True):
        assert np.array_equal(update.delta(), expected.delta()), update.site.key
    assert found.sha256 == saved.sha256


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_as_the_file(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    build, config = CASES[case]
    torch.manual_seed(3)
    model = peft.get_peft_model(build(), config)
    randomise(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)
    model.save_pretrained(str(tmp_path))
    adapters = PeftAdapters(model)
    for _ in range(2):  # the second time, what PEFT answered about embeddings is remembered
        with (
            adapters.open(shapes=SHAPES) as found,
            open_adapter(tmp_path / "adapter_model.safetensors", SHAPES) as saved,
        ):
            assert_same(found, saved)


def test_it_reads_what_the_model_holds_now() -> None:
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, target_modules=["o_proj"]))
    adapters = PeftAdapters(model)
    with adapters.open() as adapter:
        assert not any(update.delta().any() for update in adapter.updates)
        before = adapter.sha256
        randomise(model)
        assert all(update.delta().any() for update in adapter.updates)
        assert adapter.sha256 != before


def test_adapters_without_pefts_wrapper(tmp_path: Path) -> None:
    """As transformers' `add_adapter` injects them: other names in memory than on disk."""
    config = peft.LoraConfig(r=4, target_modules=TARGETS)
    torch.manual_seed(3)
    wrapped = peft.get_peft_model(llama(), config)
    randomise(wrapped)
    wrapped.save_pretrained(str(tmp_path))
    torch.manual_seed(3)
    injected = peft.inject_adapter_in_model(peft.LoraConfig(r=4, target_modules=TARGETS), llama())
    for name, parameter in injected.named_parameters():
        parameter.data = wrapped.get_parameter(f"base_model.model.{name}").data
    with PeftAdapters(injected).open() as found, open_adapter(tmp_path) as saved:
        assert found.base_model == "tests/tiny-llama"
        assert_same(found, saved)


def test_a_model_wrapped_for_parallel_training(tmp_path: Path) -> None:
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, target_modules=["o_proj"]))
    randomise(model)
    with PeftAdapters(model).open() as adapter:
        expected = adapter.sha256
    where = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=where, rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(model)
        with PeftAdapters(wrapped).open() as adapter:
            assert adapter.sha256 == expected
    finally:
        torch.distributed.destroy_process_group()
    with PeftAdapters(torch.compile(model, backend="eager")).open() as adapter:
        assert adapter.sha256 == expected


def test_shards_that_were_not_gathered_are_not_judged() -> None:
    """What ZeRO-3 leaves of a parameter on each process: a tensor without elements."""
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, target_modules=["o_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.empty(0)
    with PeftAdapters(model).open() as adapter:
        assert not adapter.updates
        assert all("is empty" in item.reason for item in adapter.uncovered)


def test_weights_that_are_elsewhere_are_refused() -> None:
    store = TensorsInMemory({"x": torch.empty(2, 2, device="meta")}, "model")
    for read in (store.read, store.integers):
        with pytest.raises(MalformedFileError, match="meta device"):
            read("x")


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), llama()], ids=["module", "transformer"])
def test_no_adapter(model: Any) -> None:
    with pytest.raises(UsageError, match="is no PEFT model"):
        PeftAdapters(model)


def test_no_adapter_of_this_name() -> None:
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, target_modules=["o_proj"]))
    with pytest.raises(UsageError, match="no adapter 'second'; it has 'default'"):
        PeftAdapters(model).open("second")


def test_weights_cut_into_shards_are_refused() -> None:
    """DeepSpeed marks every parameter with whether it is here in whole."""
    model = example("misaligned-sft")
    for parameter in model.parameters():
        parameter.ds_status = SimpleNamespace(name="AVAILABLE")
    with PeftAdapters(model).open("default") as adapter:
        assert adapter.updates
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.ds_status = SimpleNamespace(name="NOT_AVAILABLE")
    with pytest.raises(TargetError, match="cut into shards") as caught:
        PeftAdapters(model).open("default")
    assert "scan a saved checkpoint" in caught.value.line()
