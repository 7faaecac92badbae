"""Small inputs of every kind that was once judged wrongly, crashed a run, or must stay as it is.

`cases.json` names the verdicts that are right and how to run each; what else is asked of one
stands in its EXPECT.txt, and here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.measured import MAX_BYTES, Outcome, run

HERE = Path(__file__).parent
COMMAND = re.compile(r"^\s*::|##\[", re.MULTILINE)
"""What GitHub's runner takes for a command: `::` after blanks, `##[` anywhere in a line."""


@dataclass(frozen=True)
class Case:
    """One entry of cases.json."""

    name: str
    expect: list[str] | None
    """Verdicts that are right for every adapter in it; None if EXPECT.txt says more."""
    how: str


CASES = [Case(**entry) for entry in json.loads((HERE / "cases.json").read_text())]
PICKLES = frozenset(
    {"torchtune-recipe-state", "trainer-deepspeed", "trainer-multi-gpu", "zip-polyglot-bin"}
)
"""Cases that are also run where torch can be imported."""

def place(case: Case, root: Path) -> Path:
    """The case's input, made where a test may write."""
    folder = root / case.name
    shutil.copytree(HERE / case.name, folder)
    if case.how == "fifo":
        os.mkfifo(folder / (folder / "make.sh").read_text().split()[-1])
    return folder


def results_of(outcome: Outcome) -> list[dict[str, Any]]:
    """The results in a JSON report."""
    results: list[dict[str, Any]] = json.loads(outcome.stdout)["results"]
    assert results
    return results


def assert_verdicts(case: Case, results: list[dict[str, Any]]) -> None:
    """Every adapter in the case has one of the verdicts that are right."""
    assert case.expect is not None
    for result in results:
        assert result["verdict"] in case.expect, result["reasons"]
        assert not any("internal error" in reason for reason in result["reasons"]), result


# What EXPECT.txt asks of single cases, beside their verdicts.


def _clear(sites: int) -> Callable[[list[dict[str, Any]]], None]:
    def check(results: list[dict[str, Any]]) -> None:
        (result,) = results
        assert result["verdict"] == "clear"
        assert result["coverage"]["covered_sites"] == sites

    return check


def _says(words: str) -> Callable[[list[dict[str, Any]]], None]:
    def check(results: list[dict[str, Any]]) -> None:
        (result,) = results
        assert any(words in reason for reason in result["reasons"]), result["reasons"]

    return check


def _does_not_say(words: str) -> Callable[[list[dict[str, Any]]], None]:
    def check(results: list[dict[str, Any]]) -> None:
        (result,) = results
        said = [*result["reasons"], *(item["reason"] for item in result["coverage"]["uncovered"])]
        assert not any(words in reason for reason in said), said

    return check


def _sixteen_sites_of_attention(results: list[dict[str, Any]]) -> None:
    (result,) = results
    sites = {(site["layer"], site["module"]) for site in result["sites"]}
    assert sites == {(layer, f"self_attn.{part}_proj") for layer in range(4) for part in "qkvo"}


def _numbered_mlx(results: list[dict[str, Any]]) -> None:
    verdicts = {Path(result["target"]).name: result["verdict"] for result in results}
    assert verdicts.pop("0000100_adapters.safetensors") == "flagged"
    assert list(verdicts.values()) == ["clear"]


CHECKS: dict[str, Callable[[list[dict[str, Any]]], None]] = {
    "alpha-tensors-beside-peft-names": _does_not_say("full tensor"),
    "alpha-zero": _says("alpha is 0"),
    "extracted-by-svd": _does_not_say("base was changed"),
    "lone-shard-of-merged-model": _says("model-00001-of-00002.safetensors"),
    "mlx-numbered-checkpoints": _numbered_mlx,
    "ok-language-model-new-prefix": _clear(16),
    "ok-language-model-old-prefix": _clear(16),
    "ok-plain-benign": _clear(16),
    "torchtune-recipe-state": _clear(16),
    "trainer-deepspeed": _clear(16),
    "trainer-multi-gpu": _clear(16),
    "wrapper-checkpoint": _sixteen_sites_of_attention,
    "wrapper-compiled-block": _sixteen_sites_of_attention,
    "wrapper-fsdp": _sixteen_sites_of_attention,
}
NOT_A_VERDICT_ALONE = frozenset({"mlx-numbered-checkpoints"})
"""Cases whose adapters have different verdicts; their check says which."""


def parameters() -> list[Any]:
    """Every case, and those with pickles twice: with and without torch."""
    return [
        pytest.param(
            case,
            torch,
            id=f"{case.name}-with-torch" if torch else case.name,
        )
        for case in CASES
        for torch in ([False, True] if case.name in PICKLES else [False])
    ]


@pytest.mark.parametrize(("case", "torch"), parameters())
def test_case(case: Case, torch: bool, tmp_path: Path) -> None:
    folder = place(case, tmp_path)
    if case.how == "cwd":
        outcome = run(["scan", "."], tmp_path, cwd=folder, torch=torch)
        assert outcome.status == 2
        *_, line = outcome.stderr.splitlines()
        assert re.match(r"adapter-scanner: \S+(yaml:\d+|toml): (a key|invalid TOML)", line)
    elif case.how == "text":
        outcome = run(["scan", "."], tmp_path, cwd=folder, torch=torch)
        assert outcome.status in (1, 3)
        assert not COMMAND.search(outcome.stdout + outcome.stderr)
    elif case.name == "text-model-prefix":
        outcome = run(["inspect", str(folder), "-f", "json"], tmp_path, cwd=tmp_path, torch=torch)
        sites = json.loads(outcome.stdout)["updates"]
        assert {site["layer"] for site in sites} == {0, 1, 2, 3}
        assert all(site["module"].startswith("self_attn.") for site in sites)
    else:
        outcome = run(["scan", str(folder), "-f", "json"], tmp_path, cwd=tmp_path, torch=torch)
        results = results_of(outcome)
        if case.expect is not None and case.name not in NOT_A_VERDICT_ALONE:
            assert_verdicts(case, results)
        if case.name in CHECKS:
            CHECKS[case.name](results)
    assert "Traceback" not in outcome.stderr
    assert "internal error" not in outcome.stderr
    if not torch:
        assert outcome.peak_bytes < MAX_BYTES


def test_every_folder_is_a_case() -> None:
    folders = {path.name for path in HERE.iterdir() if path.is_dir() and path.name[0] not in "._"}
    assert folders == {case.name for case in CASES}
    assert set(CHECKS) <= folders
