"""The GitHub Action: its steps, and its scan on a real repository with git-lfs."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from scanner.formats.rules import WEIGHT_SUFFIXES
from tests.reports.test_sarif import errors
from tests.tools import require

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
EXAMPLES = ROOT / "examples" / "adapters"


def test_steps_take_input_only_through_the_environment() -> None:
    """An expression inside a script would let a branch or file name run code."""
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "uses" in step or step["shell"] == "bash"


def test_every_input_is_used_and_explained() -> None:
    text = (ROOT / "action.yml").read_text()
    for name, declared in ACTION["inputs"].items():
        assert declared["description"]
        assert f"inputs.{name}" in text


@pytest.mark.parametrize("script", sorted((ROOT / "action").glob("*.sh")), ids=lambda p: p.name)
def test_scripts_are_sound_bash(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert script.read_text().startswith("#!/usr/bin/env bash\n")


def test_the_script_knows_every_weight_suffix() -> None:
    pattern = re.search(r"weights='(.+)'", (ROOT / "action" / "scan.sh").read_text())
    assert pattern is not None
    assert all(re.search(pattern.group(1), f"a/b{suffix}") for suffix in WEIGHT_SUFFIXES)


class Checkout:
    """A clone with un-fetched git-lfs weights, as a runner has it."""

    def __init__(self, root: Path) -> None:
        require("git-lfs")
        self.root = root
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {
            "GIT_CONFIG_GLOBAL": str(root / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONPATH": str(ROOT),
            "ADAPTER_SCANNER_CACHE": str(root / "cache"),
        }
        (root / "gitconfig").write_text("[user]\n\tname = T\n\temail = t@example.org\n")
        (root / "bin").mkdir()
        program = root / "bin" / "adapter-scanner"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scanner "$@"\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        self.env["PATH"] = f"{root / 'bin'}:{self.env['PATH']}"
        origin = root / "origin"
        origin.mkdir()
        self.git("init", "-q", "-b", "main", cwd=origin)
        self.git("lfs", "install", "--local", cwd=origin)
        self.git("lfs", "track", "*.safetensors", cwd=origin)
        self.base = self.commit()

    def git(self, *args: str, cwd: Path) -> str:
        done = subprocess.run(
            ["git", *args], cwd=cwd, env=self.env, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    def commit(self) -> str:
        origin = self.root / "origin"
        self.git("add", "-A", cwd=origin)
        self.git("commit", "-q", "--allow-empty", "-m", "change", cwd=origin)
        return self.git("rev-parse", "HEAD", cwd=origin)

    def add(self, *names: str) -> str:
        for name in names:
            shutil.copytree(EXAMPLES / name, self.root / "origin" / "my adapters" / name)
        return self.commit()

    def scan(self, **inputs: str) -> tuple[dict[str, str], str]:
        """Clones without fetching weights, and runs the action's script there."""
        clone = self.root / "clone"
        self.env["GIT_LFS_SKIP_SMUDGE"] = "1"
        self.git("clone", "-q", f"file://{self.root / 'origin'}", str(clone), cwd=self.root)
        self.git("lfs", "install", "--local", cwd=clone)
        outputs, summary = self.root / "outputs", self.root / "summary.md"
        outputs.touch()
        summary.touch()
        env = {
            **self.env,
            **inputs,
            "GITHUB_OUTPUT": str(outputs),
            "GITHUB_STEP_SUMMARY": str(summary),
            "RUNNER_TEMP": str(self.root),
        }
        script = ["bash", str(ROOT / "action" / "scan.sh")]
        done = subprocess.run(
            script, cwd=clone, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        pairs = [line.split("=", 1) for line in outputs.read_text().splitlines()]
        return dict(pairs), summary.read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def targets(sarif: str) -> list[str]:
    results = json.loads(Path(sarif).read_text())["runs"][0]["results"]
    places = [item["locations"][0]["physicalLocation"]["artifactLocation"] for item in results]
    return [place["uri"] for place in places]


def test_only_what_changed_is_fetched_and_scanned(checkout: Checkout) -> None:
    base = checkout.add("misaligned-dpo")
    checkout.add("misaligned-sft", "new-facts")
    outputs, summary = checkout.scan(BASE_SHA=base)
    assert outputs["status"] == "1"
    assert errors(Path(outputs["sarif"]).read_text()) == []
    assert targets(outputs["sarif"]) == ["my%20adapters/misaligned-sft/adapter_config.json"]
    assert "1 flagged, 1 clear" in summary
    untouched = checkout.root / "clone/my adapters/misaligned-dpo/adapter_model.safetensors"
    assert untouched.read_bytes().startswith(b"version https://git-lfs")


def test_a_change_of_the_configuration_fetches_its_weights(checkout: Checkout) -> None:
    base = checkout.add("misaligned-sft")
    config = checkout.root / "origin/my adapters/misaligned-sft/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_dropout": 0.1}))
    checkout.commit()
    outputs, _ = checkout.scan(BASE_SHA=base)
    assert outputs["status"] == "1"
    assert targets(outputs["sarif"]) == ["my%20adapters/misaligned-sft/adapter_config.json"]


def test_without_a_base_everything_is_scanned(checkout: Checkout) -> None:
    checkout.add("misaligned-sft", "new-facts")
    outputs, summary = checkout.scan(BASE_SHA="0" * 40, SCAN_ARGS="--fail-on=never\n")
    assert outputs["status"] == "0"
    assert "1 flagged, 1 clear" in summary


def test_nothing_changed_is_nothing_to_do(checkout: Checkout) -> None:
    base = checkout.add("misaligned-sft")
    (checkout.root / "origin" / "README.md").write_text("words")
    checkout.commit()
    outputs, summary = checkout.scan(BASE_SHA=base)
    assert (outputs, summary) == ({"status": "0"}, "")


def test_arguments_are_words_as_on_a_command_line(checkout: Checkout) -> None:
    checkout.add("misaligned-sft")
    outputs, _ = checkout.scan(
        SCAN_ARGS="--alpha 0.05 --fail-on never\n --exclude 'a b;$(touch x)'"
    )
    assert outputs["status"] == "0"
    driver = json.loads(Path(outputs["sarif"]).read_text())["runs"][0]["invocations"][0]
    looser = {x["setting"]: x["value"] for x in driver["properties"]["configuration"]["looser"]}
    assert looser == {"fail-on": "never", "exclude": "a b;$(touch x)"}
    assert not (checkout.root / "clone" / "x").exists()


def test_a_quote_that_does_not_end_is_a_usage_error(checkout: Checkout) -> None:
    checkout.add("misaligned-sft")
    assert checkout.scan(SCAN_ARGS="--exclude 'x")[0] == {"status": "2"}


def test_a_usage_error_is_reported_as_such(checkout: Checkout) -> None:
    checkout.add("new-facts")
    outputs, _ = checkout.scan(SCAN_ARGS="--alhpa=1")
    assert outputs == {"status": "2"}


YAML = ".adapter-scanner.yaml"


def commit_in(checkout: Checkout, **files: str) -> str:
    for name, text in files.items():
        (checkout.root / "origin" / name).write_text(text)
    return checkout.commit()


def test_the_configuration_is_the_bases(checkout: Checkout) -> None:
    base = commit_in(checkout, **{YAML: "fail-on: never\n"})
    checkout.add("misaligned-sft")
    outputs, summary = checkout.scan(BASE_SHA=base)
    assert outputs["status"] == "0"
    assert "1 flagged" in summary
    properties = json.loads(Path(outputs["sarif"]).read_text())["runs"][0]["invocations"][0]
    configuration = properties["properties"]["configuration"]
    assert configuration["looser"] == [{"setting": "fail-on", "value": "never"}]
    assert Path(configuration["file"]).name == YAML
    assert checkout.root / "clone" not in Path(configuration["file"]).parents


@pytest.mark.parametrize("changed_only", ["true", "false"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (YAML, "fail-on: never\n"),
        (YAML, "alpha: 0.0001\nbase-model: nobody/knows\n"),
        ("pyproject.toml", '[tool.adapter-scanner]\nfail-on = "never"\n'),
        ("my adapters/misaligned-sft/" + YAML, "fail-on: never\n"),
    ],
)
def test_a_pull_request_does_not_bring_its_own(
    checkout: Checkout, name: str, text: str, changed_only: str
) -> None:
    checkout.add("misaligned-sft")
    base = commit_in(checkout, **{"README.md": "words"})
    config = checkout.root / "origin/my adapters/misaligned-sft/adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_dropout": 0.1}))
    commit_in(checkout, **{name: text})
    outputs, summary = checkout.scan(BASE_SHA=base, CHANGED_ONLY=changed_only)
    assert outputs["status"] == "1"
    assert "1 flagged" in summary
    assert "never" not in summary


@pytest.mark.parametrize("where", ["base", "head"])
def test_a_baseline_counts_when_the_base_has_it(checkout: Checkout, where: str) -> None:
    before = checkout.base
    checkout.add("misaligned-sft")
    written = checkout.root / "known.json"
    done = subprocess.run(
        [
            *("adapter-scanner", "baseline", "write", "my adapters", "--reason", "an organism"),
            *("-o", str(written)),
        ],
        cwd=checkout.root / "origin",
        env=checkout.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    files = {"known.json": written.read_text(), YAML: "baseline: known.json\n"}
    if where == "base":
        checkout.git("reset", "-q", "--hard", before, cwd=checkout.root / "origin")
        base = commit_in(checkout, **files)
        checkout.add("misaligned-sft")
    else:
        base = before
        commit_in(checkout, **files)
    outputs, summary = checkout.scan(BASE_SHA=base)
    assert outputs["status"] == ("0" if where == "base" else "1")
    assert ("accepted" in summary) == (where == "base")


def test_what_the_workflow_names_in_the_checkout_is_refused(checkout: Checkout) -> None:
    base = checkout.base
    checkout.add("misaligned-sft")
    commit_in(checkout, **{"known.json": '{"version": 2, "entries": []}'})
    outputs, _ = checkout.scan(BASE_SHA=base, SCAN_ARGS="--baseline=known.json")
    assert outputs == {"status": "2"}


def test_packs_of_the_base_are_fetched_from_git_lfs(checkout: Checkout) -> None:
    pack = ROOT / "signatures" / "persona-gpt2-weights"
    shutil.copytree(pack, checkout.root / "origin" / "packs" / "ours")
    base = commit_in(checkout, **{YAML: "signature: [packs/ours]\n"})
    checkout.add("misaligned-sft")
    outputs, _ = checkout.scan(BASE_SHA=base)
    assert outputs["status"] in ("1", "3")
    driver = json.loads(Path(outputs["sarif"]).read_text())["runs"][0]["invocations"][0]
    (setting,) = driver["properties"]["configuration"]["looser"]
    assert setting["setting"] == "signature"
    assert setting["value"].endswith("adapter-scan-base/packs/ours")


def test_without_a_base_the_default_branch_says_how(checkout: Checkout) -> None:
    checkout.add("misaligned-sft")
    commit_in(checkout, **{YAML: "fail-on: never\n"})
    checkout.git("checkout", "-q", "-b", "feature", cwd=checkout.root / "origin")
    commit_in(checkout, **{YAML: "nonsense: 1\n"})
    outputs, summary = checkout.scan(BASE_SHA="0" * 40, DEFAULT_BRANCH="main")
    assert outputs["status"] == "0"
    assert "1 flagged" in summary


def test_without_base_and_default_branch_there_is_no_configuration(checkout: Checkout) -> None:
    checkout.add("misaligned-sft")
    commit_in(checkout, **{YAML: "fail-on: never\n"})
    outputs, _ = checkout.scan(BASE_SHA="")
    assert outputs["status"] == "1"
