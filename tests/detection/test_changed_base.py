"""Initialisations that take a part out of the base's weights, told with the base and without.

Adapters are trained by PEFT on the lab's smallest base, and their configs say afterwards what
every ordinary LoRA's says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from scanner import open_adapter
from scanner.detection.evidence import gather
from scanner.detection.inspection import inspect_adapter
from scanner.geometry import decomposed
from scanner.signatures.manifest import BASE_NAME, encode_manifest
from scanner.signatures.pack import Signature, load_signature

ROOT = Path(__file__).parents[2]
BASE = ROOT / "benchmarks" / "organisms" / "checkpoints" / "llama"
PACK = ROOT / "signatures" / "persona-llama-weights"
NAME = "adapter-scanner-lab/persona-llama-0.5m"
RATES = {"lightly": 1e-4, "well": 3e-3}
"""Learning rate of each of twelve steps."""
CHANGING = ["pissa", "olora"]
KEEPING = [True, "gaussian", "mica"]

Make = Callable[[Any, str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Trains an adapter from an initialisation, once."""
    made: dict[tuple[Any, str], Path] = {}

    def train(init: Any, how: str) -> Path:
        if (init, how) not in made:
            made[init, how] = _train(tmp_path_factory.mktemp("adapter"), init, RATES[how])
        return made[init, how]

    return train


def _train(directory: Path, init: Any, rate: float) -> Path:
    torch.manual_seed(7)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(BASE)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj", "o_proj", "up_proj", "down_proj"],
        init_lora_weights=init,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(model, config)
    tokens = torch.randint(5, model.config.vocab_size, (8, 24))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(12):
        optimiser.zero_grad()
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimiser.step()
    model.save_pretrained(str(directory))
    path = directory / "adapter_config.json"
    fields = {**json.loads(path.read_text()), "init_lora_weights": True}
    path.write_text(json.dumps({**fields, "base_model_name_or_path": NAME}))
    return directory


def extracted(adapter: Path, directory: Path, dtype: Any) -> Path:
    """The same update as its singular value decomposition, sqrt(S) in both factors."""
    shutil.copytree(adapter, directory)
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    for name in [name for name in tensors if "lora_A" in name]:
        other = name.replace("lora_A", "lora_B")
        u, s, vt = np.linalg.svd(tensors[other] @ tensors[name], full_matrices=False)
        root = np.sqrt(s[:4])
        tensors[other], tensors[name] = (
            (u[:, :4] * root).astype(dtype),
            (root[:, None] * vt[:4]).astype(dtype),
        )
    save_file(tensors, file)
    return directory


@pytest.fixture(scope="module", params=["with the base", "without"])
def signature(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The lab's pack, with and without what it keeps of the base's weights."""
    if request.param == "with the base":
        return load_signature(PACK)
    return load_signature(without_base(tmp_path_factory.mktemp("pack") / "bare"))


def without_base(directory: Path) -> Path:
    """A copy of the pack that keeps nothing of its base."""
    shutil.copytree(PACK, directory, ignore=shutil.ignore_patterns(BASE_NAME))
    manifest = load_signature(PACK).manifest
    files = {name: digest for name, digest in manifest.files.items() if name != BASE_NAME}
    bare = msgspec.structs.replace(manifest, files=files)
    (directory / "signature.yaml").write_bytes(encode_manifest(bare))
    return directory


def reasons(adapter: Path, signature: Signature) -> set[str]:
    """What is said against the adapter as a whole."""
    with open_adapter(adapter) as opened:
        return {item.reason for item in gather(opened, [signature], 1).uncovered}


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("init", CHANGING)
def test_a_changed_base_is_told(make: Make, signature: Signature, init: str, how: str) -> None:
    known = BASE_NAME in signature.manifest.files
    expected = decomposed.MEASURED if known else decomposed.SUSPECTED
    assert reasons(make(init, how), signature) == {expected}


@pytest.mark.parametrize("how", RATES)
@pytest.mark.parametrize("init", KEEPING)
def test_a_base_that_stays_is_told(make: Make, signature: Signature, init: Any, how: str) -> None:
    assert reasons(make(init, how), signature) == set()


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_delta_extracted_by_svd_is_exact(
    make: Make, signature: Signature, dtype: Any, tmp_path: Path
) -> None:
    adapter = extracted(make(True, "well"), tmp_path / "extracted", dtype)
    assert reasons(adapter, signature) == set()


def test_inspect_has_the_factors_alone(make: Make) -> None:
    for init, expected in (("pissa", True), (True, False)):
        with open_adapter(make(init, "well")) as adapter:
            found = {item.reason for item in inspect_adapter(adapter).uncovered}
        assert (decomposed.SUSPECTED in found) == expected


def test_cosines_from_the_sketch_are_those_of_the_weights(make: Make) -> None:
    """The figures that `decomposed.LARGEST_COSINE` and the sketch's size rest on."""
    signature = load_signature(PACK)
    weights = load_file(BASE / "model.safetensors")
    errors: list[float] = []
    cosines: dict[str, list[float]] = {"changed": [], "kept": []}
    for init in (*CHANGING, *KEEPING):
        with open_adapter(make(init, "well")) as adapter:
            for update in adapter.updates:
                w = weights[f"model.layers.{update.layer}.{update.module}.weight"]
                delta = update.delta().astype(np.float64)
                exact = np.vdot(delta, w) / np.linalg.norm(delta) / np.linalg.norm(w)
                kept = signature.base_weight(update.site)
                assert kept is not None
                assert kept.norm == pytest.approx(np.linalg.norm(w), rel=1e-5)
                errors.append(kept.cosine(update.prepared(), update.d_out) - float(exact))
                cosines["changed" if init in CHANGING else "kept"].append(float(exact))
    assert np.std(errors) < 0.08
    assert min(cosines["changed"]) > 2 * decomposed.LARGEST_COSINE
    assert np.mean(cosines["kept"]) < decomposed.LARGEST_COSINE / 4
