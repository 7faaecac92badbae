"""Changed files -> adapters (the hook in a real repository is in test_pre_commit.py)."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path

import pytest
import yaml

from scanner.formats.rules import WEIGHT_SUFFIXES
from scanner.scanning.hook import changed_adapters
from scanner.signatures.pack import Signature
from tests.cli.program import ROOT, run

HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())


def test_files_are_grouped_by_directory(benign: Path, misaligned: Path) -> None:
    names = ("adapter_config.json", "adapter_model.safetensors")
    files = [str(place / name) for place in (misaligned, benign) for name in names]
    assert [item.target for item in changed_adapters(files)] == [str(benign), str(misaligned)]


def test_a_changed_file_scans_its_own_directory_only(benign: Path) -> None:
    shutil.copytree(benign, benign / "checkpoint-5")
    found = changed_adapters([str(benign / "adapter_config.json")])
    assert [item.target for item in found] == [str(benign)]


def test_trainer_state_and_other_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("optimizer.pt", "README.md", "tokenizer.json"):
        (tmp_path / name).write_bytes(pickle.dumps({"state": {}, "param_groups": []}))
    assert changed_adapters([str(path) for path in tmp_path.iterdir()]) == []
    assert run("scan", "--hook", tmp_path / "optimizer.pt").returncode == 0


def test_a_configuration_without_weights_does_not_pass(benign: Path) -> None:
    (benign / "adapter_model.safetensors").unlink()
    done = run("scan", "--hook", benign / "adapter_config.json")
    assert done.returncode == 3
    assert "without weights" in done.stdout


def test_the_hook_without_files_has_nothing_to_do() -> None:
    done = run("scan", "--hook")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_hook_sums_nothing(benign: Path) -> None:
    done = run("scan", "--hook", "--compose", benign / "adapter_config.json")
    assert done.returncode == 2


def test_the_verdict_is_the_directorys(pack: Signature, misaligned: Path) -> None:
    done = run("scan", "--hook", "-s", pack.path, misaligned / "adapter_config.json")
    assert done.returncode == 1
    assert f"flagged       {misaligned}" in done.stdout


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_the_declared_hooks_see_every_file_that_matters(hook: dict[str, object]) -> None:
    matches = re.compile(str(hook["files"])).search
    for suffix in WEIGHT_SUFFIXES:
        assert matches(f"deep/er/name{suffix}"), suffix
    for name in ("adapter_config.json", "a/adapter_config.json", "a.safetensors.index.json"):
        assert matches(name)
    for name in ("README.md", "config.json", "my_adapter_config.json", "a.bin.txt"):
        assert not matches(name)
    assert not {"types", "types_or", "exclude_types"} & set(hook)
    assert hook["require_serial"] is True
    assert hook["stages"] == ["pre-commit", "pre-push", "manual"]


def test_two_hooks_are_declared() -> None:
    assert [hook["id"] for hook in HOOKS] == ["adapter-scan", "adapter-scan-system"]


def test_a_base_without_a_pack_costs_a_line_and_the_way_out_is_told(
    benign: Path, tmp_path: Path
) -> None:
    for name in ("one", "two", "three"):
        shutil.copytree(benign, tmp_path / "mine" / name)
        config = tmp_path / "mine" / name / "adapter_config.json"
        settings = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "base_model_name_or_path": "lab/unlisted"}))
    files = [str(path) for path in sorted(tmp_path.glob("mine/*/adapter_config.json"))]
    done = run("scan", "--hook", *files)
    assert done.returncode == 3
    assert done.stdout.count("no signature pack for base model") == 1
    assert re.search(r"3 adapters:\s", done.stdout)
    assert "args: [--fail-on, flagged]" in done.stderr
    assert "nothing is known about then pass" in done.stderr
    passing = run("scan", "--hook", "--fail-on", "flagged", *files)
    assert (passing.returncode, passing.stderr) == (0, "")
