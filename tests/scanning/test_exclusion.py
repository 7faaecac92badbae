"""What a search leaves alone, and that it says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from scanner.formats.discover import find_adapters
from scanner.scanning.exclusion import Exclusion
from scanner.scanning.hook import changed_adapters
from tests.cli.program import run


@pytest.fixture
def tree(tmp_path: Path, benign: Path) -> Path:
    root = tmp_path / "tree"
    for place in ("one", "old/two", "node_modules/x", ".venv/lib/y", "env", "deep/__pycache__/z"):
        shutil.copytree(benign, root / place)
    (root / ".venv" / "pyvenv.cfg").touch()
    return root


def found(root: Path, *patterns: str) -> tuple[set[str], set[str]]:
    """What is found below a folder, and what is left out."""
    exclusion = Exclusion(patterns)
    names = {str(item.target.relative_to(root)) for item in find_adapters(root, exclusion)}
    return names, {str(Path(path).relative_to(root)) for path in exclusion.left_out}


def test_environments_packages_and_caches_are_left_alone_and_listed(tree: Path) -> None:
    names, left_out = found(tree)
    assert names == {"one", "old/two", "env"}, "a folder called env is no environment by its name"
    assert left_out == {"node_modules", ".venv", "deep/__pycache__"}


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [
        ("old", {"one", "env"}),
        ("old/", {"one", "env"}),
        ("old/two", {"one", "env"}),
        ("o*", {"env"}),
        ("*/two", {"one", "env"}),
        ("two", {"one", "env"}),
        ("OLD", {"one", "old/two", "env"}),
    ],
)
def test_names_and_paths(tree: Path, pattern: str, kept: set[str]) -> None:
    assert found(tree, pattern)[0] == kept


def test_a_target_that_is_named_is_scanned_whatever_it_is_called(tree: Path) -> None:
    assert found(tree / "node_modules")[0] == {"x"}
    assert found(tree / "old", "old")[0] == {"two"}


def test_a_run_says_what_it_left_out_and_reports_name_the_setting(tree: Path) -> None:
    done = run("scan", tree, "--exclude", "old", "-f", "json")
    assert f"left out: {tree}/.venv" in done.stderr
    assert f"{tree}/old" in done.stderr
    report = json.loads(done.stdout)
    assert {Path(item["target"]).name for item in report["results"]} == {"one", "env"}
    assert report["configuration"]["looser"] == [{"setting": "exclude", "value": "old"}]
    assert run("scan", tree, "-q", "-f", "json").stderr == ""


def test_where_everything_is_left_out_nothing_passes(tree: Path) -> None:
    done = run("scan", tree, "--exclude", "*")
    assert done.returncode == 3
    assert "no adapter in this directory" in done.stdout


def test_a_configuration_file_may_say_it(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("exclude: [old, env]\n")
    done = run("scan", tree, "--config", tmp_path / "c.yaml", "-f", "json")
    assert [item["target"] for item in json.loads(done.stdout)["results"]] == [f"{tree}/one"]


def test_the_hook_leaves_alone_what_the_user_says_and_nothing_else() -> None:
    files = ["a/old/adapter_config.json", "node_modules/x/adapter_config.json"]
    named = [item.target for item in changed_adapters(files, Exclusion(["old"]))]
    assert all("old" not in name for name in named)
    assert Exclusion(["old"]).holds(Path(files[0]))
    assert Exclusion(["a/old"]).holds(Path(files[0]))
    assert not Exclusion(["old"]).holds(Path(files[1]))
