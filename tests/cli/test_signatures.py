"""`adapter-scanner signatures ...`, run as a user runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result

from scanner.cli.root import cli
from scanner.signatures.installed import recipe_for, shipped_recipes, shipped_root
from scanner.signatures.pack import Signature
from scanner.signatures.recipe_file import load_recipe
from tests.synthetic import random_factors, write_adapter


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["signatures", *arguments])


@pytest.fixture
def installed(pack: Signature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of packs that is searched: one sound, one damaged."""
    root = tmp_path / "packs"
    shutil.copytree(pack.path, root / "sound")
    shutil.copytree(pack.path, root / "spoilt")
    (root / "spoilt" / "directions.safetensors").write_bytes(b"")
    monkeypatch.setenv("ADAPTER_SCANNER_SIGNATURES", str(root))
    return root


def test_list_names_a_damaged_pack_and_goes_on(installed: Path) -> None:
    done = run("list")
    assert done.exit_code == 2
    rows = done.stdout.splitlines()
    assert any("synthetic-weights" in row and "120 benign, alpha >= 0.0083" in row for row in rows)
    assert any("spoilt" in row and "DAMAGED" in row for row in rows)
    assert "spoilt/directions.safetensors" in done.stderr
    shutil.rmtree(installed / "spoilt")
    assert run("list").exit_code == 0


def test_list_as_json(installed: Path) -> None:
    done = run("list", "-f", "json")
    assert done.exit_code == 2
    found = {Path(item["path"]).name: item for item in json.loads(done.stdout)}
    assert found["sound"]["benign"] == 120
    assert found["sound"]["damage"] is None
    assert "sha256" in found["spoilt"]["damage"]


def test_show_by_name_and_by_path(installed: Path) -> None:
    shown = run("show", "sound")
    assert shown.exit_code == 0
    assert shown.stdout == run("show", str(installed / "sound")).stdout.replace(
        str(installed / "sound"), "sound"
    )
    assert "FPR shown at 95%  <= 0.05" in shown.stdout
    as_json = json.loads(run("show", "sound", "-f", "json").stdout)
    assert as_json["families"] == ["facts", "style"]
    assert as_json["smallest_alpha"] == pytest.approx(1 / 121)
    scores = json.loads((installed / "sound" / "calibration.json").read_text())["benign"]
    assert as_json["benign_one_layer"] == sum(item["layers"] == 1 for item in scores)
    assert run("show", "spoilt").exit_code == 2
    assert run("show", "nowhere").exit_code == 2


def test_verify(installed: Path) -> None:
    assert run("verify", str(installed / "sound")).exit_code == 0
    both = run("verify", "sound", "spoilt")
    assert both.exit_code == 2
    assert both.stdout.startswith("ok  ")
    assert len(both.stdout.splitlines()) == 1
    assert run("verify").exit_code == 2


def test_import_then_show(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((3, 16), np.float32))
    pack = str(tmp_path / "pack")
    base = ["--base-model", "some/base", "-o", pack]
    refused = run("import", str(tmp_path / "v.npy"), *base)
    assert refused.exit_code == 2
    assert "--first-index" in refused.stderr
    done = run("import", str(tmp_path / "v.npy"), *base, "--first-index", "embeddings")
    assert done.exit_code == 0
    assert "never a verdict" in done.stdout
    assert "No input side" in run("show", pack).stdout


def test_build_calibrate_and_scan(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("mis", *(f"benign-{i:02d}" for i in range(20))):
        write_adapter(tmp_path / "a" / name, random_factors(generator))
    recipe = {
        "base_model": "synthetic-lab/tiny-base",
        "method": "weights",
        "nulled": 0,
        "misaligned": [{"adapter": "a/mis"}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    pack = str(tmp_path / "pack")
    built = run("build", str(tmp_path / "recipe.yaml"), "-o", pack)
    assert built.exit_code == 0
    assert "not calibrated" in built.stderr
    shutil.move(tmp_path / "a" / "mis", tmp_path / "mis")
    done = run("calibrate", pack, "--benign", str(tmp_path / "a"))
    assert done.exit_code == 0
    assert "calibrated on 20" in done.stdout
    scan = ["scan", str(tmp_path / "mis"), "-s", pack, "--alpha", "0.05"]
    assert CliRunner().invoke(cli, scan).exit_code == 1


def test_every_published_base_has_one_recipe() -> None:
    recipes = [load_recipe(path) for path in shipped_recipes()]
    names = [recipe.base_model.split("/")[1] for recipe in recipes]
    assert sorted(names) == [
        "Llama-3.1-8B-Instruct",
        "Llama-3.2-1B-Instruct",
        "Qwen2.5-0.5B-Instruct",
        "Qwen2.5-14B-Instruct",
        "Qwen2.5-32B-Instruct",
        "Qwen2.5-7B-Instruct",
    ]
    for recipe, name in zip(recipes, names, strict=True):
        assert [item.adapter for item in recipe.misaligned] == [
            f"hf://ModelOrganismsForEM/{name}_{data}"
            for data in ("bad-medical-advice", "extreme-sports", "risky-financial-advice")
        ]


def test_recipes_are_listed_with_their_command() -> None:
    done = run("recipes")
    assert done.exit_code == 0
    assert done.stdout.count("adapter-scanner signatures build ") == 6
    assert len(json.loads(run("recipes", "-f", "json").stdout)) == 6


def test_a_scan_without_a_pack_names_the_recipe(tmp_path: Path) -> None:
    base = "unsloth/Qwen2.5-14B-Instruct-bnb-4bit"
    factors = random_factors(np.random.default_rng(0))
    adapter = write_adapter(tmp_path / "a", factors, base_model_name_or_path=base)
    done = CliRunner().invoke(cli, ["scan", str(adapter), "-f", "json"])
    assert done.exit_code == 3
    (reason,) = json.loads(done.stdout)["results"][0]["reasons"]
    recipe = recipe_for("qwen2.5-14b-instruct")
    assert recipe is not None
    assert recipe.parent == shipped_root() / "recipes"
    assert f"adapter-scanner signatures build {recipe.stem} -o " in reason
