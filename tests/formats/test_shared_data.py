"""Real files nobody here wrote: skipped where the folder beside the repository is absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file
from torch import nn

from scanner import open_adapter
from scanner.errors import MissingConfigError
from scanner.formats.discover import find_adapters
from scanner.formats.model import Adapter
from scanner.formats.module_names import site_of
from scanner.formats.opening import open_files
from scanner.formats.peft_config import read_config
from tests.formats.oracle import relative_error

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
REGRESSION = DATA / "wild" / "huggingface__peft" / "tests" / "regression"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no test data at {DATA}")

WILD = {
    "branbot6__sift-opf-zh/adapter": ("peft-lora", 32),
    "huggingface__diffusers/examples/text_to_image/sd-pokemon-model-lora": ("diffusers", 128),
    "huggingface__peft/examples/conditional_generation/bigscience/mt0-large_IA3_SEQ_2_SEQ_LM": (
        "unknown",
        0,
    ),
    "huggingface__peft/examples/monteclora_finetuning/monteclora-roberta-mrpc/checkpoint-230": (
        "peft-lora",
        24,
    ),
    "huggingface__peft/outputs/peft_mrpc_40_aligned": ("unknown", 0),
    "huggingface__peft/results_glue/adapter_ckpt": ("peft-unilora", 0),
    "huggingface__peft/tests/regression/adalora_mlp/0.6.1": ("peft-adalora", 1),
    "huggingface__peft/tests/regression/ia3_conv2d/0.6.1": ("unknown", 0),
    "huggingface__peft/tests/regression/ia3_mlp/0.6.1": ("unknown", 0),
    "huggingface__peft/tests/regression/ia3_no_ff_mlp/0.6.1": ("unknown", 0),
    "huggingface__peft/tests/regression/lora_conv2d/0.6.1": ("peft-lora", 1),
    "huggingface__peft/tests/regression/lora_emb_conv1d/0.6.1": ("peft-lora", 2),
    "huggingface__peft/tests/regression/lora_mlp/0.6.1": ("peft-lora", 1),
    "huggingface__peft/tests/regression/lora_mlp_modules_to_save/0.6.1": ("peft-lora", 1),
    "huggingface__peft/tests/regression/lora_opt-125m_bnb_4bit/0.5.0": ("peft-lora", 24),
    "huggingface__peft/tests/regression/lora_opt-350m/0.6.1": ("peft-lora", 48),
    "ml-explore__mlx-lm/test_dpo_adapters": ("mlx-lora", 4),
}
"""Directory -> (format, number of sites)."""


def test_every_wild_adapter_is_listed() -> None:
    found = {str(f.target.relative_to(DATA / "wild")) for f in find_adapters(DATA / "wild")}
    assert found == set(WILD)


@pytest.mark.parametrize("name", WILD)
def test_wild(name: str) -> None:
    (files,) = find_adapters(DATA / "wild" / name)
    with open_files(files) as adapter:
        assert (adapter.format, len(adapter.updates)) == WILD[name]
        assert adapter.updates or adapter.uncovered
        assert all(np.isfinite(update.delta()).all() for update in adapter.updates[:4])


def test_gguf_written_by_llama_cpp() -> None:
    expected = load_file(DATA / "gguf" / "stories260K-lora.delta.safetensors")
    by_site = {site_of(name.removesuffix(".weight")): value for name, value in expected.items()}
    with open_adapter(DATA / "gguf" / "stories260K-lora.gguf") as adapter:
        assert not adapter.uncovered
        assert {update.site for update in adapter.updates} == set(by_site)
        for update in adapter.updates:
            expected_delta = by_site[update.site].astype(np.float64)
            assert relative_error(update.delta(), expected_delta) < 1e-4


class Mlp(nn.Module):
    """`TestMlp` of PEFT's `tests/regression/test_regression.py`."""

    def __init__(self) -> None:
        super().__init__()
        self.lin0 = nn.Linear(10, 20)
        self.relu = nn.ReLU()
        self.lin1 = nn.Linear(20, 2)
        self.sm = nn.LogSoftmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.sm(self.lin1(self.relu(self.lin0(x.float()))))
        return result


class EmbeddingAndConv1D(nn.Module):
    """`TestLoraEmbConv1D` of the same file."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(100, 5)
        self.conv1d = transformers.pytorch_utils.Conv1D(1, 5)
        self.relu = nn.ReLU()
        self.flat = nn.Flatten()
        self.lin0 = nn.Linear(10, 2)
        self.sm = nn.LogSoftmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.flat(self.relu(self.conv1d(self.emb(x))))
        result: torch.Tensor = self.sm(self.lin0(hidden))
        return result


class Convolution(nn.Module):
    """`TestLoraConv2D` of the same file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(5, 10, 3)
        self.relu = nn.ReLU()
        self.flat = nn.Flatten()
        self.lin0 = nn.Linear(10, 2)
        self.sm = nn.LogSoftmax(dim=-1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.flat(self.relu(self.conv2d(x.float().reshape(2, 5, 3, 3))))
        result: torch.Tensor = self.sm(self.lin0(hidden))
        return result


def add_updates(model: nn.Module, adapter: Adapter) -> None:
    """Adds what the reader says to the base's weights, and full tensors as they are."""
    for update in adapter.updates:
        weight = model.get_parameter(f"{update.module}.weight")
        delta = torch.from_numpy(update.delta())
        module = model.get_submodule(update.module)
        transposed = isinstance(module, (transformers.pytorch_utils.Conv1D, nn.Embedding))
        weight.data += (delta.T if transposed else delta).reshape(weight.shape)


@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("lora_mlp", Mlp),
        ("adalora_mlp", Mlp),
        ("lora_mlp_modules_to_save", Mlp),
        ("lora_emb_conv1d", EmbeddingAndConv1D),
        ("lora_conv2d", Convolution),
    ],
)
def test_recorded_outputs_of_2023(name: str, build: Callable[[], nn.Module]) -> None:
    """Base plus the reader's updates gives the outputs PEFT recorded, to PEFT's own 1e-4."""
    directory = REGRESSION / name / "0.6.1"
    torch.manual_seed(0)
    model = build()
    with open_adapter(directory) as adapter:
        add_updates(model, adapter)
    state: dict[str, Any] = torch.load(
        directory / "adapter_model.bin", map_location="cpu", weights_only=True
    )
    for key, value in state.items():
        if ".lin1." in key:  # modules_to_save
            model.get_parameter(key.removeprefix("base_model.model.")).data = value
    with torch.inference_mode():
        output = model(torch.arange(90).reshape(9, 10))
    recorded = torch.load(directory / "output.pt", map_location="cpu", weights_only=True)
    assert torch.allclose(recorded, output, atol=1e-4, rtol=1e-4)


CONFIGS = sorted((DATA / "configs").glob("*.json")) if DATA.is_dir() else []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_parses_or_says_why_in_one_line(path: Path) -> None:
    if path.stem not in UNREADABLE_CONFIGS:
        config, _ = read_config(path)
        assert config.peft_type is None or config.peft_type.isupper()
        return
    with pytest.raises(MissingConfigError, match=UNREADABLE_CONFIGS[path.stem]) as caught:
        read_config(path)
    assert str(path) in caught.value.line()
    assert "\n" not in caught.value.line()


UNREADABLE_CONFIGS = {"015_none_7f3a7b18": "invalid JSON at line 3[34]"}
"""Configs that are refused -> why. A trailing comma: PEFT itself cannot load that file. Python
names the line of the comma from 3.13 on, before that the next one."""
