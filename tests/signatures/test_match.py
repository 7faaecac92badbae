"""Formats that do not store the base's dimensions find them in the pack made for the base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from scanner import Verdict, scan
from scanner.cli.root import cli
from scanner.signatures.pack import Signature, load_signature
from tests.synthetic import BASE, Array, module_paths, safetensors_bytes, synthetic_pack


def test_a_miss_adapter_is_judged_on_a_base_with_a_pack(pack: Signature, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    tensors: dict[str, Array] = {
        f"base_model.model.{path}.miss_block": generator.standard_normal((4, 4)) / 10
        for path in module_paths()
    }
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    config: dict[str, Any] = {"peft_type": "MISS", "r": 4, "mini_r": 4, "init_weights": "mini"}
    config["target_modules"] = ["q_proj", "o_proj", "down_proj"]
    for base, judged in ((BASE, True), ("someone/else", False)):
        fields = {**config, "base_model_name_or_path": base}
        (tmp_path / "adapter_config.json").write_text(json.dumps(fields))
        arguments = ["scan", str(tmp_path), "-s", str(pack.path), "-f", "json"]
        run = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        (result,) = json.loads(run.stdout)["results"]
        if not judged:
            assert result["verdict"] == "inconclusive"
            assert not result["sites"]
            continue
        assert result["verdict"] in ("clear", "flagged")
        assert len(result["sites"]) == len(module_paths())
        assert {site["module"] for site in result["sites"]} == {
            path.split(".", 3)[3] for path in module_paths()
        }


def test_a_pack_given_twice_counts_once_and_two_of_one_name_are_not_mixed(
    pack: Signature, tmp_path: Path, misaligned: Path
) -> None:
    copied = load_signature(shutil.copytree(pack.path, tmp_path / "copy"))
    once, twice = scan(misaligned, [pack]), scan(misaligned, [pack, copied])
    assert twice.verdict is Verdict.FLAGGED
    assert twice == once
    other = synthetic_pack(tmp_path / "other", rank=1)
    assert other.id == pack.id
    mixed = scan(misaligned, [pack, other])
    assert mixed.verdict is Verdict.INCONCLUSIVE
    assert f"two packs are called {pack.id}" in mixed.reasons[0]
