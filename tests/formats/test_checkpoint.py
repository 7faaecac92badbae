"""Full fine-tunes against their base: the same signatures, on W_tuned - W_base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from scanner.cli.root import cli
from scanner.formats.checkpoint import open_checkpoint
from scanner.formats.discover import find_adapters
from scanner.geometry import Direction, LowRank, project
from scanner.geometry.whole_matrix import Dense, Whole
from scanner.signatures.pack import Signature
from tests.formats.oracle import gpt2, llama, randomise, relative_error
from tests.synthetic import (
    BASE,
    Array,
    Factors,
    misaligned_factors,
    module_paths,
    random_factors,
    safetensors_bytes,
    shape_of,
)


def write_model(directory: Path, tensors: dict[str, Array]) -> Path:
    directory.mkdir()
    (directory / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    (directory / "config.json").write_text(json.dumps({"_name_or_path": BASE}))
    return directory


def base_tensors() -> dict[str, Array]:
    generator = np.random.default_rng(8)
    found: dict[str, Array] = {
        f"{path}.weight": generator.standard_normal(shape_of(path)) for path in module_paths()
    }
    return {**found, "model.norm.weight": np.ones(16), "lm_head.weight": np.ones((20, 16))}


def tuned(tensors: dict[str, Array], factors: dict[str, Factors]) -> dict[str, Array]:
    changed = {f"{path}.weight": b @ a * 2 for path, (b, a) in factors.items()}
    return {name: value + changed.get(name, 0) for name, value in tensors.items()}


def scan_cli(pack: Signature, model: Path, base: Path) -> tuple[int, dict[str, Any]]:
    arguments = ["scan", str(model), "--base-weights", str(base), "-s", str(pack.path)]
    run = CliRunner().invoke(cli, [*arguments, "-f", "json"], catch_exceptions=False)
    (result,) = json.loads(run.stdout)["results"]
    return run.exit_code, result


@pytest.mark.parametrize(
    ("seed", "bad", "expected"), [(901, True, "flagged"), (902, False, "clear")]
)
def test_verdicts_are_those_of_the_adapter(
    seed: int, bad: bool, expected: str, pack: Signature, tmp_path: Path
) -> None:
    generator = np.random.default_rng(seed)
    factors = misaligned_factors(generator) if bad else random_factors(generator)
    base = write_model(tmp_path / "base", base_tensors())
    model = write_model(tmp_path / "tuned", tuned(base_tensors(), factors))
    status, result = scan_cli(pack, model, base)
    assert (status, result["verdict"]) == (1 if bad else 0, expected)
    assert (result["format"], result["coverage"]["sites"]) == (
        "full-checkpoint",
        len(module_paths()),
    )


@pytest.mark.parametrize("change", ["norm", "extra", "shape", "nan", "left out", "other head"])
def test_what_is_not_a_covered_matrix_rules_out_clear(
    change: str, pack: Signature, tmp_path: Path
) -> None:
    base = write_model(tmp_path / "base", base_tensors())
    tensors = tuned(base_tensors(), random_factors(np.random.default_rng(902)))
    if change == "norm":
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.1
    elif change == "extra":
        tensors["model.more.weight"] = np.ones((4, 4))
    elif change == "shape":
        tensors["lm_head.weight"] = np.ones((21, 16))
    elif change == "nan":
        tensors["lm_head.weight"] = np.full((20, 16), np.nan)
    elif change == "left out":
        del tensors["lm_head.weight"]
    else:
        tensors["lm_head.weight"] = np.zeros((20, 16))
    status, result = scan_cli(pack, write_model(tmp_path / "tuned", tensors), base)
    assert (status, result["verdict"]) == (3, "inconclusive")


def test_a_model_that_is_its_base(pack: Signature, tmp_path: Path) -> None:
    base = write_model(tmp_path / "base", base_tensors())
    status, result = scan_cli(pack, write_model(tmp_path / "tuned", base_tensors()), base)
    assert (status, result["verdict"]) == (3, "inconclusive")


def test_a_base_that_is_none_is_a_usage_error(pack: Signature, tmp_path: Path) -> None:
    model = write_model(tmp_path / "tuned", base_tensors())
    (tmp_path / "empty").mkdir()
    arguments = ["scan", str(model), "--base-weights", str(tmp_path / "empty")]
    assert CliRunner().invoke(cli, [*arguments, "-s", str(pack.path)]).exit_code == 2


@pytest.mark.parametrize("build", [llama, gpt2])
def test_delta_of_a_real_model(build: Any, tmp_path: Path) -> None:
    model = build()
    model.save_pretrained(tmp_path / "base")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    randomise(model, share=0.01)
    model.save_pretrained(tmp_path / "tuned")
    expected = {
        name: (p.detach() - before[name]).numpy().astype(np.float64)
        for name, p in model.named_parameters()
        if p.ndim == 2
    }
    (files,) = find_adapters(tmp_path / "tuned")
    with open_checkpoint(files, tmp_path / "base") as adapter:
        assert {update.tensors[0] for update in adapter.updates} == set(expected)
        for update in adapter.updates:
            delta = expected[update.tensors[0]]
            embedding = update.module in ("embed_tokens", "wte", "wpe")
            conv1d = build is gpt2 and update.layer is not None
            assert relative_error(update.delta(), delta.T if embedding or conv1d else delta) < 1e-5


def test_projection_agrees_with_the_low_rank_one() -> None:
    generator = np.random.default_rng(0)
    b, a = generator.standard_normal((40, 5)), generator.standard_normal((5, 70))
    u = np.linalg.qr(generator.standard_normal((40, 3)))[0]
    v = np.linalg.qr(generator.standard_normal((70, 3)))[0]
    direction = Direction(u, np.array([3.0, 2.0, 1.0]), v)
    whole = project(Whole(Dense(b @ a), 1.0), direction)
    low = project(LowRank(b, a, 1.0), direction)
    for field in ("norm_squared", "inner", "written_squared", "rank"):
        assert getattr(whole, field) == pytest.approx(getattr(low, field), rel=1e-6)
    assert np.allclose(whole.core, low.core)
