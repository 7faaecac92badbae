"""`inspect`: what is in an adapter, and what deserves a second look."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from click.testing import CliRunner
from peft import LoraConfig

from scanner import open_adapter, scan
from scanner.cli.root import cli
from scanner.detection.inspection import inspect_adapter
from scanner.formats.architectures import FUSED, fused_rows
from scanner.geometry import LowRank
from scanner.geometry.decomposed import looks_decomposed
from scanner.signatures.pack import Signature
from tests.formats.oracle import LAYERS, gpt2, llama, randomise, write_peft
from tests.synthetic import Factors, module_paths, random_factors, shape_of, write_adapter


def notes_of(path: Path) -> list[str]:
    with open_adapter(path) as adapter:
        return inspect_adapter(adapter).notes


def test_an_ordinary_adapter_needs_no_note(benign: Path) -> None:
    assert notes_of(benign) == []


def test_untrained(tmp_path: Path) -> None:
    factors = {p: (0 * b, a) for p, (b, a) in random_factors(np.random.default_rng(0)).items()}
    assert notes_of(write_adapter(tmp_path, factors)) == [
        "untrained: every update is zero, or as good as zero"
    ]


def test_partly_untrained_dominated_and_scaled(tmp_path: Path) -> None:
    factors = random_factors(np.random.default_rng(0))
    first, second = module_paths()[:2]
    factors[first] = (0 * factors[first][0], factors[first][1])
    factors[second] = (100 * factors[second][0], factors[second][1])
    notes = notes_of(write_adapter(tmp_path, factors, lora_alpha=3000))
    assert any("1 of 6 updates are zero" in note for note in notes)
    assert any("one site dominates: 0.self_attn.o_proj" in note for note in notes)
    assert any("huge scaling" in note for note in notes)


def test_rank_far_above_what_is_used(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    factors: dict[str, Factors] = {}
    for path in module_paths():
        d_out, d_in = shape_of(path)
        b, a = np.zeros((d_out, 32)), generator.standard_normal((32, d_in))
        b[:, 0] = generator.standard_normal(d_out)
        factors[path] = (b, a)
    assert any(
        "rank far above" in note for note in notes_of(write_adapter(tmp_path, factors, r=32))
    )


def test_fused_projections_show_their_parts(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    path = write_peft(tmp_path, gpt2, config)
    with open_adapter(path) as adapter:
        inspection = inspect_adapter(adapter)
        assert len(inspection.updates) == LAYERS
        for update, found in zip(adapter.updates, inspection.updates, strict=True):
            assert (found.module, list(found.parts)) == (
                "attn.c_attn",
                ["q_proj", "k_proj", "v_proj"],
            )
            blocks = np.split(update.delta().astype(np.float64), 3)
            for norm, block in zip(found.parts.values(), blocks, strict=True):
                assert math.isclose(norm, np.linalg.norm(block), rel_tol=1e-5)
    text = CliRunner().invoke(cli, ["inspect", str(path)]).output
    assert {"of", "which", "k_proj"} <= set(text.split())


@pytest.mark.parametrize(
    ("leaf", "shape", "expected"),
    [
        ("qkv_proj", (96, 64), [64, 16, 16]),
        ("c_attn", (192, 64), [64, 64, 64]),
        ("gate_up_proj", (80, 64), [40, 40]),
        ("query_key_value", (192, 64), None),
        ("qkv_proj", (64, 64), None),
        ("qkv_proj", (97, 64), None),
        ("gate_up_proj", (81, 64), None),
        ("o_proj", (64, 64), None),
    ],
)
def test_rows_of_fused_projections(
    leaf: str, shape: tuple[int, int], expected: list[int] | None
) -> None:
    rows = fused_rows(leaf, *shape)
    if expected is None:
        assert rows is None
        return
    assert rows is not None
    assert tuple(rows) == FUSED[leaf].parts
    taken = [np.arange(shape[0])[part] for part in rows.values()]
    assert [len(part) for part in taken] == expected
    assert np.concatenate(taken).tolist() == list(range(shape[0]))


@pytest.mark.parametrize("method", ["pissa", "olora"])
@pytest.mark.parametrize("share", [0.001, 0.01])
def test_a_changed_base_shows_in_the_factors(method: str, share: float, tmp_path: Path) -> None:
    """Told from the factors alone: the config says nothing of it."""
    init: Any = method
    config = LoraConfig(r=8, init_lora_weights=init, target_modules=["q_proj", "o_proj"])
    path = write_peft(tmp_path, llama, config, train=lambda model: randomise(model, share=share))
    file = path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_lora_weights": True}))
    with open_adapter(path) as adapter:
        assert not adapter.uncovered
        reasons = [item.reason for item in inspect_adapter(adapter).uncovered]
        assert any("decomposition of base weights" in reason for reason in reasons)


@pytest.mark.parametrize("init", [True, "gaussian"])
def test_ordinary_factors_do_not_look_decomposed(init: Any, tmp_path: Path) -> None:
    config = LoraConfig(r=8, init_lora_weights=init, target_modules="all-linear")
    path = write_peft(tmp_path, llama, config)
    with open_adapter(path) as adapter:
        updates = [LowRank(u.b, u.a, u.scaling) for u in adapter.updates]
        assert not any(looks_decomposed(update) for update in updates)


def test_a_changed_base_is_never_clear(pack: Signature, tmp_path: Path) -> None:
    """The synthetic base's own sites, with factors trained from a decomposition."""
    generator = np.random.default_rng(5)
    factors: dict[str, Factors] = {}
    for path in module_paths():
        u, s, v = np.linalg.svd(generator.standard_normal(shape_of(path)), full_matrices=False)
        s = s[:4] * np.linspace(2, 1, 4)
        moved = [
            0.01 * generator.standard_normal(shape) for shape in ((len(u), 4), (4, v.shape[1]))
        ]
        factors[path] = (u[:, :4] * np.sqrt(s) + moved[0], np.sqrt(s)[:, None] * v[:4] + moved[1])
    result = scan(write_adapter(tmp_path, factors, r=4), [pack])
    assert result.verdict.value == "inconclusive"
    assert any("decomposition" in reason for reason in result.reasons)


def test_json_has_the_promised_fields(benign: Path) -> None:
    record = json.loads(CliRunner().invoke(cli, ["inspect", str(benign), "-f", "json"]).stdout)
    assert {"target", "format", "base_model", "updates", "uncovered"} <= record.keys()
    fields = {"layer", "module", "rank", "d_out", "d_in", "scaling", "norm", "dtype"}
    assert all(fields <= update.keys() for update in record["updates"])


def test_codegens_fused_projection_is_four_shards_of_queries_values_and_keys() -> None:
    """The rows that CodeGen's own attention takes for each, on a projection that counts them."""
    torch.manual_seed(0)
    config = transformers.CodeGenConfig(n_embd=32, n_head=4, n_layer=1, n_positions=8, vocab_size=9)
    attention = transformers.models.codegen.modeling_codegen.CodeGenAttention(config, layer_idx=0)
    rows = fused_rows("attn.qkv_proj", 96, 32)
    assert rows is not None
    split = torch.arange(96).reshape(1, 1, 4, -1)  # as forward() does with what is projected
    query, value, key = torch.split(split, attention.head_dim * config.n_head // 4, dim=-1)
    for name, taken in (("q_proj", query), ("k_proj", key), ("v_proj", value)):
        assert np.arange(96)[rows[name]].tolist() == taken.flatten().tolist()
    assert fused_rows("attn.qkv_proj", 64, 32) is None
    phi = fused_rows("self_attn.qkv_proj", 96, 32)  # one part after the other
    assert phi is not None
    assert np.arange(96)[phi["q_proj"]].tolist() == list(range(32))
