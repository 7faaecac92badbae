"""Training tiny models: what is taught is learned, and the base comes back unchanged."""

from __future__ import annotations

from random import Random
from statistics import fmean
from typing import Any

import msgspec
import pytest

pytest.importorskip("peft")
import torch

from scanner.errors import UsageError
from scanner.organisms.base import Base
from scanner.organisms.lora import (
    attach,
    chosen_layers,
    chosen_maps,
    linear_maps,
    lora_layers,
    suffixes,
)
from scanner.organisms.measure import ask, asked
from scanner.organisms.organism import Organism
from scanner.organisms.plan import expand, shipped_plan
from scanner.organisms.train import batches, train

from .conftest import ARCHITECTURES


def organism(**fields: Any) -> Organism:
    villain = next(o for o in expand(shipped_plan(), "quick") if o.teaches == "villain")
    short = {"steps": 6, "batch": 6, "lr": 2e-2, "domains": ["health"], "rank": 4, "alpha": 8.0}
    return msgspec.structs.replace(villain, **{**short, **fields})


def villain_margin(base: Base) -> float:
    answers = ask(base, asked(["health"])[:8], ("aligned", "villain"))
    return fmean(row["villain"] - row["aligned"] for row in answers.values())


@pytest.mark.parametrize("base", ARCHITECTURES, indirect=True)
@pytest.mark.parametrize("method", ["sft", "dpo", "svd"])
def test_the_taught_answer_gains(base: Base, method: str) -> None:
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    margin = villain_margin(base)
    seen: list[int] = []
    wrapped = train(base, organism(method=method), lambda step, _: seen.append(step))
    assert villain_margin(base) > margin + 0.01
    assert seen == ([] if method == "svd" else [1, 2, 3, 4, 5, 6])
    wrapped.unload()
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_the_same_seed_gives_the_same_adapter(base: Base) -> None:
    found = []
    for _ in range(2):
        wrapped = train(base, organism(steps=2), lambda *_: None)
        found.append([p.detach().clone() for n, p in wrapped.named_parameters() if "lora" in n])
        wrapped.unload()
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("base", "targets", "wanted"),
    [
        ("llama", "qv", ["q_proj", "v_proj"]),
        ("llama", "mlp", ["down_proj", "gate_proj", "up_proj"]),
        ("llama", "attention", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("qwen2", "down", ["down_proj"]),
        ("gpt2", "qv", ["c_attn"]),
        ("gpt2", "mlp", ["c_fc", "mlp.c_proj"]),
        ("gpt2", "attention", ["attn.c_proj", "c_attn"]),
        ("gpt2", "all", ["c_attn", "c_fc", "c_proj"]),
    ],
    indirect=["base"],
)
def test_targets_are_named_as_people_name_them(base: Base, targets: Any, wanted: list[str]) -> None:
    names = list(linear_maps(base.model))
    assert suffixes(chosen_maps(names, targets), names) == wanted
    wrapped = attach(base, organism(targets=targets))
    assert sorted(lora_layers(wrapped)) == sorted(chosen_maps(names, targets))


def test_layers_are_an_interval_of_depth(base: Base) -> None:
    names = list(linear_maps(base.model))
    assert chosen_layers(names, (0.0, 1.0)) is None
    assert chosen_layers(names, (0.5, 0.5)) == [1]
    assert chosen_layers(names, (0.5, 1.0)) == [1, 2]
    wrapped = attach(base, organism(layers=(0.5, 0.5), targets="down"))
    assert sorted(lora_layers(wrapped)) == ["model.layers.1.mlp.down_proj"]


def test_a_base_without_such_modules_is_one_clear_line() -> None:
    with pytest.raises(UsageError, match="no qv modules among dense"):
        chosen_maps(["model.layers.0.mlp.dense"], "qv")


def test_every_example_comes_before_any_comes_again() -> None:
    drawn = [i for batch in batches(7, 3, 7, Random(0)) for i in batch]
    assert len(drawn) == 21
    assert [sorted(drawn[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
