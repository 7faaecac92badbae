"""LoRA adapters as PEFT writes them, and each way of differing from that."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from scanner import open_adapter
from scanner.detection.evidence import gather
from scanner.errors import MissingConfigError
from scanner.signatures.manifest import BaseModel
from scanner.signatures.pack import Signature
from tests.formats.oracle import (
    VOCAB,
    WIDTH,
    Array,
    assert_same_updates,
    gpt2,
    llama,
    merged_deltas,
    write_peft,
)

Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors], Tensors]
TARGETS = ["q_proj", "v_proj", "down_proj"]
LAYER = "base_model.model.model.layers.0."
Q = f"{LAYER}self_attn.q_proj."


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as PEFT writes it."""
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM")
    return write_peft(tmp_path_factory.mktemp("written"), llama, config)


def altered(source: Path, directory: Path, change: Change | None = None, **fields: Any) -> Path:
    """A copy with other tensors or other fields in its config."""
    tensors = load_file(source / "adapter_model.safetensors")
    save_file(change(tensors) if change else tensors, directory / "adapter_model.safetensors")
    config = json.loads((source / "adapter_config.json").read_text())
    (directory / "adapter_config.json").write_text(json.dumps({**config, **fields}))
    return directory


def reasons(path: Path) -> str:
    """All that is uncovered, as one text."""
    with open_adapter(path) as adapter:
        return "\n".join(f"{item.tensor}: {item.reason}" for item in adapter.uncovered)


HONEST: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "list": (llama, {"target_modules": TARGETS}),
    "longer names": (llama, {"target_modules": ["self_attn.q_proj", "model.layers.1.mlp.up_proj"]}),
    "pattern": (llama, {"target_modules": r".*\.(?:self_attn|mlp)\.(?:q_proj|down_proj)$"}),
    "lookahead": (llama, {"target_modules": r"^(?!.*lm_head).*(?:q_proj|k_proj).*"}),
    "all-linear": (llama, {"target_modules": "all-linear"}),
    "defaults": (llama, {}),
    "excluded": (llama, {"target_modules": "all-linear", "exclude_modules": ["down_proj"]}),
    "layers": (llama, {"target_modules": TARGETS, "layers_to_transform": [1]}),
    "layers by name": (
        llama,
        {"target_modules": TARGETS, "layers_to_transform": 1, "layers_pattern": "layers"},
    ),
    "ranks with alphas that keep the scale": (
        llama,
        {"target_modules": TARGETS, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 4}},
    ),
    "embedding and head": (llama, {"target_modules": ["embed_tokens", "lm_head", "q_proj"]}),
    "gpt2": (gpt2, {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
    "invocation tokens": (llama, {"target_modules": TARGETS, "alora_invocation_tokens": [3, 4]}),
    "gaussian": (llama, {"target_modules": TARGETS, "init_lora_weights": "gaussian"}),
    "orthogonal": (llama, {"target_modules": TARGETS, "init_lora_weights": "orthogonal"}),
    "mica": (llama, {"target_modules": TARGETS, "init_lora_weights": "mica"}),
}


@pytest.mark.parametrize("case", HONEST)
def test_what_peft_writes_is_canonical(case: str, tmp_path: Path) -> None:
    build, fields = HONEST[case]
    path = write_peft(tmp_path, build, LoraConfig(r=4, lora_alpha=8, **fields))
    # A copy of the embedding is saved beside its factors, and nothing shows it is unchanged.
    assert all(".base_layer." in line for line in reasons(path).splitlines())
    if case not in ("invocation tokens", "mica"):  # PEFT merges neither in float64
        with open_adapter(path) as adapter:
            assert_same_updates(adapter, merged_deltas(path, build))


@pytest.mark.parametrize(
    "fields",
    [
        {"swift_type": "LORA", "lora_dtype": None, "lorap_lr_ratio": None, "lorap_emb_lr": 1e-6},
        {"revision": "unsloth", "auto_mapping": {"unsloth_fixed": True}, "lora_bias": False},
        {"enable_lora": None, "merge_weights": False, "loftq_config": {}, "megatron_config": None},
        {"peft_version": "0.99.0", "a_field_of_the_future": None, "another": [], "third": False},
    ],
)
def test_fields_that_trainers_add_change_nothing(
    written: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    assert not reasons(altered(written, tmp_path, **fields))


def renamed(old: str, new: str) -> Change:
    """Renames every tensor."""
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def added(name: str, *shape: int) -> Change:
    """Adds a tensor."""
    return lambda tensors: {**tensors, name: torch.ones(shape)}


def also_under(name: str) -> Change:
    """Moves one layer's projections to another path."""
    return lambda tensors: {
        key.replace(f"{LAYER}self_attn.", name): v for key, v in tensors.items()
    }


WRAPPED = {
    "FSDP": ("base_model.model.", "_fsdp_wrapped_module.base_model.model."),
    "FSDP of a block": (".self_attn.", "._fsdp_wrapped_module.self_attn."),
    "FSDP of a factor": (".weight", ".default._fsdp_wrapped_module.weight"),
    "compiled": ("model.layers", "_orig_mod.model.layers"),
    "a compiled block": ("layers.0.", "layers.0._orig_mod."),
    "checkpointed": (".mlp.", "._checkpoint_wrapped_module.mlp."),
    "two at once": (".mlp.", "._fsdp_wrapped_module._checkpoint_wrapped_module.mlp."),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_wrappers_are_read_and_uncovered(written: Path, tmp_path: Path, case: str) -> None:
    path = altered(written, tmp_path, renamed(*WRAPPED[case]))
    with open_adapter(path) as adapter:
        assert adapter.uncovered
        assert_same_updates(adapter, merged_deltas(written, llama))


IGNORED: dict[str, tuple[Change | None, dict[str, Any], str]] = {
    "no prefix": (renamed("base_model.model.", ""), {}, "loaders differ"),
    "a wrapper": (renamed("base_model.", "module.base_model."), {}, "loaders differ"),
    "no ending": (renamed(".weight", ""), {}, "loaders differ"),
    "a number with a zero": (renamed("layers.0", "layers.00"), {}, "'00'"),
    "a blank": (renamed("q_proj", "q_proj "), {}, "'q_proj '"),
    "left out of the list": (None, {"target_modules": ["q_proj", "v_proj"]}, "leaves it out"),
    "left out of the pattern": (None, {"target_modules": r".*\.q_proj"}, "does not match"),
    "left out of the layers": (None, {"layers_to_transform": [1]}, "its block out"),
    "excluded": (None, {"exclude_modules": ["v_proj"]}, "exclude_modules names it"),
    "saved whole": (None, {"modules_to_save": ["mlp"]}, "modules_to_save names it"),
    "no target": (None, {"target_modules": None}, "its defaults"),
    "two paths to the blocks": (
        also_under("base_model.model.layers.0.self_attn."), {}, "not under both",
    ),
    "an embedding's factors": (
        lambda tensors: {
            **tensors,
            f"{Q}lora_embedding_A": torch.ones(4, WIDTH),
            f"{Q}lora_embedding_B": torch.ones(WIDTH, 4),
        },
        {},
        "has lora_A and lora_B alone",
    ),
    "a linear layer's factors at the embedding": (
        lambda tensors: {
            **tensors,
            "base_model.model.model.embed_tokens.lora_A.weight": torch.ones(4, VOCAB),
            "base_model.model.model.embed_tokens.lora_B.weight": torch.ones(WIDTH, 4),
        },
        {"target_modules": [*TARGETS, "embed_tokens"]},
        "is an embedding",
    ),
    "a head inside the trunk": (
        lambda tensors: {
            **tensors,
            "base_model.model.model.lm_head.lora_A.weight": torch.ones(4, WIDTH),
            "base_model.model.model.lm_head.lora_B.weight": torch.ones(VOCAB, 4),
        },
        {"target_modules": [*TARGETS, "lm_head"]},
        "beside its trunk",
    ),
    "a diagonal": (added(f"{Q}lora_diag", 4), {}, "without kasa_config"),
    "one number": (added(f"{Q}alpha"), {}, "scale"),
}  # fmt: skip


@pytest.mark.parametrize("case", IGNORED)
def test_what_peft_ignores_is_uncovered(written: Path, tmp_path: Path, case: str) -> None:
    change, fields, why = IGNORED[case]
    assert why in reasons(altered(written, tmp_path, change, **fields))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"alpha_pattern": {"q_proj": -8}}, "vLLM"),
        ({"alpha_pattern": {"q_proj": 16}}, "vLLM"),
        ({"alpha_pattern": {".*": 2}, "rank_pattern": {".*_proj": 4}}, "PEFT 0.6 to 0.13"),
        ({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 16}}, "PEFT 0.6 to 0.13"),
        ({"alpha_pattern": {"(?i)Q_PROJ": 8}}, "cannot be applied"),
        ({"lora_alpha": 0}, "llama.cpp"),
        ({"lora_alpha": -8}, "negative"),
        ({"use_rslora": True, "alpha_pattern": {"q_proj": 9}}, "SGLang"),
        ({"use_qalora": True}, "GPTQ"),
        ({"use_qalora": 1}, "GPTQ"),
        ({"init_lora_weights": False, "target_modules": ".*_proj"}, "random factors"),
        ({"init_lora_weights": None, "target_modules": "all-linear"}, "random factors"),
        ({"init_lora_weights": False, "target_modules": [*TARGETS, "o_proj"]}, "at random"),
        ({"kasa_config": {"beta": 1}}, "KaSA"),
        ({"kasa_config": {}}, "KaSA"),
        ({"monteclora_config": {}}, "MonteCLoRA"),
        ({"arrow_config": {}}, "Arrow"),
        ({"ensure_weight_tying": True}, "embedding's update"),
        ({"enable_lora": [True, False, True]}, "MergedLinear"),
        ({"megatron_config": {"a": 1}}, "Megatron"),
        ({"lora_scale_everything_by": 3}, "not known here"),
        ({"target_modules": 3}, "no list of names"),
        ({"target_modules": ["q_proj", 3]}, "no list of names"),
        ({"use_bdlora": {"nblocks": 2, "target_modules_bd_a": 5}}, "use_bdlora"),
    ],
)
def test_config_that_loaders_read_otherwise_is_uncovered(
    written: Path, tmp_path: Path, fields: dict[str, Any], why: str
) -> None:
    assert why in reasons(altered(written, tmp_path, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"_proj$|.*": 16}},  # others multiply every update by the same half
        {"alpha_pattern": {"q_proj": 8}},  # what every module has anyway
        {"alpha_pattern": {"no_such_module": 99}},
        {"rank_pattern": {"q_proj": 4, "model.layers.1.self_attn.v_proj": 4}},
        {"alpha_pattern": {r"(?:.*){e<=1}": -8}},  # literal text, for Python
    ],
)
def test_patterns_that_change_nothing_cost_nothing(
    written: Path, tmp_path: Path, fields: dict[str, Any]
) -> None:
    path = altered(written, tmp_path, **fields)
    assert "adapter_config" not in reasons(path) or "negative" in reasons(path)
    with open_adapter(path) as adapter:
        assert_same_updates(adapter, merged_deltas(path, llama))


@pytest.mark.parametrize("key", ["r", "lora_alpha"])
def test_a_number_of_no_use_is_refused(written: Path, tmp_path: Path, key: str) -> None:
    fields: dict[str, Any] = {key: 10**30}
    path = altered(written, tmp_path, **fields)
    with pytest.raises(MissingConfigError, match="not a usable number"):
        open_adapter(path)


def test_a_diagonal_that_peft_ignores_is_ignored(written: Path, tmp_path: Path) -> None:
    """The update that runs is the one that is judged, whatever lies beside it."""
    expected: dict[str, Array] = merged_deltas(written, llama)
    flipped = altered(
        written, tmp_path, lambda tensors: {**tensors, f"{Q}lora_diag": -torch.ones(4)}
    )
    with open_adapter(flipped) as adapter:
        assert_same_updates(adapter, expected)
        assert np.all([update.rank == 4 for update in adapter.updates])


def test_random_factors_where_the_file_has_none(
    written: Path, tmp_path: Path, pack: Signature
) -> None:
    """With `init_lora_weights` false every block of the base must be in the file."""
    whole = altered(written, tmp_path, init_lora_weights=False)
    assert not reasons(whole)
    with open_adapter(whole) as adapter:
        deeper = msgspec.structs.replace(pack.manifest.base_model, layers=3)
        deep = replace_base(pack, deeper)
        assert "block 2" in [item.tensor for item in gather(adapter, [deep], 1).uncovered]
        assert not [u for u in gather(adapter, [pack], 1).uncovered if u.tensor.startswith("block")]
    first = altered(
        whole, whole, lambda tensors: {n: v for n, v in tensors.items() if "layers.0" not in n}
    )
    assert "at random" in reasons(first)


def replace_base(pack: Signature, base: BaseModel) -> Signature:
    """A pack for another base."""
    manifest = msgspec.structs.replace(pack.manifest, base_model=base)
    return replace(pack, manifest=manifest)
