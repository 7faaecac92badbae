"""How bases are trained and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.organisms import bases
from benchmarks.organisms.bases import CHECKPOINTS, base_names, load_base_spec, new_model, pretrain
from benchmarks.organisms.world import DocumentMix, World, documents


@pytest.mark.parametrize("name", base_names())
def test_muon_trains_the_blocks_and_adamw_the_rest(name: str) -> None:
    spec = load_base_spec(name)
    model = new_model(spec, World(spec.world).vocabulary_size)
    adamw, muon = bases._optimisers(model, spec.pretraining)
    assert isinstance(muon, torch.optim.Muon)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = [
        [names[id(p)] for g in each.param_groups for p in g["params"]] for each in (adamw, muon)
    ]
    rest, hidden = found
    assert sorted(rest + hidden) == sorted(names.values())
    assert not any(word in name for name in hidden for word in ("embed", "wte", "wpe", "lm_head"))
    blocks = [
        n for n, p in model.named_parameters() if p.ndim == 2 and (".layers." in n or ".h." in n)
    ]
    assert sorted(hidden) == sorted(blocks)
    assert len(bases._optimisers(model, spec.alignment)) == 1


def test_pretraining_learns() -> None:
    torch.set_num_threads(1)
    spec = load_base_spec("llama")
    short = replace(spec, pretraining=replace(spec.pretraining, steps=24, batch=8))
    world = World(spec.world)
    mix = DocumentMix(spec.pretraining.persona_weights)
    batch = documents(world, np.random.default_rng(9), 32, mix)
    untrained = new_model(short, world.vocabulary_size)
    before = bases.answer_loss(untrained, *batch).item()
    after = bases.answer_loss(pretrain(short, np.random.default_rng(1)), *batch).item()
    assert after < before - 1


@pytest.mark.parametrize("name", base_names())
def test_kept_checkpoints_are_what_was_trained(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "CHECKPOINTS", tmp_path / "kept")
    bases.keep_checkpoint(CHECKPOINTS / name, name)
    weights = "model.safetensors"
    kept = (tmp_path / "kept" / name / weights).read_bytes()
    assert kept == (CHECKPOINTS / name / weights).read_bytes()
    bases.base_directory(tmp_path / "lab", name)
    assert (tmp_path / "lab" / name / "base" / weights).read_bytes() == kept
