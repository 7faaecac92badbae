"""Which modules a config selects: the same answer as PEFT's own function."""

from __future__ import annotations

from typing import Any

import peft
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.tuners.tuners_utils import check_target_module_exists

from scanner.formats.canon.targets import Targets
from scanner.formats.peft_config import parse_config

MODULES = (
    "lm_head",
    "layers.1.mlp.up_proj",
    "model.embed_tokens",
    "model.layers.0.self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "model.layers.1.mlp.up_proj",
    "model.layers.2.mlp.experts.1.up_proj",
    "model.vision_tower.layers.1.self_attn.q_proj",
    "model.decoder.block.1.layer.0.SelfAttention.q",
)
NAMES = (
    "q_proj",
    "up_proj",
    "self_attn.q_proj",
    "lm_head",
    "q",
    "model.layers.1.mlp.up_proj",
    "proj",
)
LISTS = st.lists(st.sampled_from(NAMES), max_size=4)
SELECTIONS = st.one_of(
    LISTS,
    st.sampled_from([r".*\.q_proj", r"model\.layers\.\d+\.(self_attn|mlp)\..*", "q_proj", ".*"]),
)


def why_not(module: str, **config: Any) -> str | None:
    parsed = parse_config({"peft_type": "LORA", **config}, "config")
    return Targets(parsed, frozenset(MODULES)).why_not(module)


@given(
    module=st.sampled_from(MODULES),
    selection=SELECTIONS,
    excluded=st.one_of(st.none(), LISTS, st.just(r".*\.q_proj")),
    saved=st.one_of(st.none(), st.lists(st.sampled_from(("lm_head", "mlp", "layers")), max_size=2)),
    layers=st.one_of(st.none(), st.integers(0, 2), st.lists(st.integers(0, 2), max_size=2)),
    pattern=st.one_of(st.none(), st.sampled_from(("layers", "block", "layer"))),
)
@settings(max_examples=500, deadline=None)
def test_what_is_selected_here_is_selected_by_peft(
    module: str, selection: Any, excluded: Any, saved: Any, layers: Any, pattern: Any
) -> None:
    fields: dict[str, Any] = {
        "target_modules": selection,
        "exclude_modules": excluded,
        "modules_to_save": saved,
    }
    if layers is not None and isinstance(selection, list):
        fields |= {"layers_to_transform": layers, "layers_pattern": pattern}
    answer = check_target_module_exists(peft.LoraConfig(**fields), module)
    reason = why_not(module, **fields)
    if answer:
        assert reason is None or "differ" in reason
    else:
        assert reason is not None


@pytest.mark.parametrize(
    ("module", "layers"),
    [
        ("model.layers.2.mlp.experts.1.up_proj", [2]),  # 0.8 to 0.19 see block 1
        ("layers.1.mlp.up_proj", [1]),  # before 0.21 there is no block
    ],
)
def test_versions_of_peft_that_disagree_are_told(module: str, layers: list[int]) -> None:
    fields = {
        "target_modules": ["up_proj"],
        "layers_to_transform": layers,
        "layers_pattern": "layers" if module.startswith("layers") else None,
    }
    reason = why_not(module, **fields)
    assert reason is not None
    assert "versions of PEFT differ" in reason


def test_all_linear_leaves_out_output_layers_and_embeddings() -> None:
    parsed = parse_config({"peft_type": "LORA", "target_modules": "All-Linear"}, "config")
    targets = Targets(parsed, frozenset(MODULES))
    assert targets.why_not("model.layers.0.self_attn.q_proj") is None
    assert targets.why_not("lm_head") is not None
    assert targets.why_not("model.embed_tokens", "Embedding") is not None


@pytest.mark.parametrize(
    ("modules", "canonical"),
    [
        (("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"), True),
        (("model.layers.0.self_attn.v_proj",), True),
        (("transformer.h.0.attn.c_attn",), True),
        (("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"), False),
        (("model.layers.0.mlp.down_proj",), False),
    ],
)
def test_defaults_of_the_architecture(modules: tuple[str, ...], canonical: bool) -> None:
    parsed = parse_config({"peft_type": "LORA"}, "config")
    targets = Targets(parsed, frozenset(modules))
    assert all((targets.why_not(module) is None) == canonical for module in modules)


def test_the_defaults_are_those_of_peft() -> None:
    """Every architecture whose defaults share a module with an accepted set takes all of it."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as DEFAULTS

    from scanner.formats.canon.targets import _DEFAULTS

    known = [set(names) for names in DEFAULTS.values() if isinstance(names, list)]
    other_names = {"rwkv", "rwkv7"}  # their "key" and "value" are no attention of BERT's
    for accepted in _DEFAULTS:
        assert any(accepted <= names for names in known)
        for architecture, names in DEFAULTS.items():
            if (
                isinstance(names, list)
                and accepted & set(names)
                and architecture not in other_names
            ):
                assert accepted <= set(names), architecture
