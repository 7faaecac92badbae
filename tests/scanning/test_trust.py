"""Nothing inside what is scanned says how it is scanned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scanner.errors import UsageError
from scanner.results import LooserSetting
from scanner.scanning.settings import Settings, about_settings, looser_settings
from scanner.scanning.trust import ScannedTrees, settings_in_force
from scanner.signatures.pack import Signature
from tests.cli.program import run

YAML = ".adapter-scanner.yaml"


@pytest.fixture
def tree(misaligned: Path, tmp_path: Path) -> Path:
    """A folder from somebody else with a misaligned adapter in it."""
    (tmp_path / "theirs").mkdir()
    return misaligned.rename(tmp_path / "theirs" / "adapter").parent


def trees(*targets: Path) -> ScannedTrees:
    return ScannedTrees.of(targets)


def test_what_lies_below_a_folder_lies_in_it(tree: Path, tmp_path: Path) -> None:
    assert trees(tree).hold(tree / "adapter" / "deep" / "er")
    assert trees(tree).hold(tree)
    assert not trees(tree).hold(tmp_path / "theirs-not")
    assert not trees(tree).hold(tmp_path)


def test_links_hide_nothing(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("")
    (tree / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "alias").symlink_to(tree)
    (tmp_path / "pointer").symlink_to(tree / "adapter" / "adapter_config.json")
    assert trees(tree).hold(tree / "link")  # their link, whatever it leads to
    assert trees(tree).hold(tmp_path / "pointer")  # our link to what is theirs
    assert trees(tree).hold(tmp_path / "alias" / "adapter")
    assert trees(tmp_path / "alias").hold(tree / "adapter")


def test_dots_in_a_path_hide_nothing(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree / "adapter")
    assert trees(Path("..")).hold(Path("x"))
    assert trees(Path(".")).hold(Path("../adapter/x"))
    assert not trees(Path(".")).hold(Path("../x"))


def test_of_a_file_it_is_what_lies_beside_it(tree: Path) -> None:
    found = trees(tree / "adapter" / "adapter_model.safetensors")
    assert found.hold(tree / "adapter" / YAML)
    assert not found.hold(tree / YAML)
    assert not found.hold(tree / "adapter" / "packs" / "signature.yaml")


def test_addresses_have_no_tree_here() -> None:
    assert ScannedTrees.of(["hf://owner/name"]) == ScannedTrees()


@pytest.mark.parametrize("folder", ["", "adapter"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (YAML, "fail-on: never\n"),
        (YAML, "[" * 5000),
        (".adapter-scanner.yml", "fail-on: never\n"),
        ("pyproject.toml", '[tool.adapter-scanner]\nfail-on = "never"\n'),
        ("pyproject.toml", "[tool.adapter-scanner]\nx = " + "[" * 5000),
    ],
)
def test_a_configuration_in_the_tree_is_not_read(
    tree: Path, pack: Signature, folder: str, name: str, text: str
) -> None:
    (tree / folder / name).write_text(text)
    for target in (".", os.path.relpath(tree, tree / folder)):
        done = run("scan", target, "-s", pack.path, "-f", "json", cwd=tree / folder)
        assert done.returncode == 1
        assert json.loads(done.stdout)["configuration"]["file"] is None
        if name != ".adapter-scanner.yml":
            assert done.stderr.count("\n") == 1
            assert f"{name}: lies in what is scanned, so it is not read" in done.stderr
            assert "in force: the defaults" in done.stderr


def test_one_above_the_tree_is_read_and_named(tree: Path, pack: Signature) -> None:
    (tree.parent / YAML).write_text(f"fail-on: never\nsignature: [{pack.path}]\n")
    (tree / YAML).write_text("alpha: 0.0001\n")
    done = run("scan", ".", "-f", "json", cwd=tree)
    assert done.returncode == 0
    assert f"in force: {tree.parent / YAML}" in done.stderr
    assert json.loads(done.stdout)["configuration"] == {
        "file": str(tree.parent / YAML),
        "looser": [
            {"setting": "signature", "value": str(pack.path)},
            {"setting": "fail-on", "value": "never"},
        ],
    }


def _config(tree: Path, pack: Signature) -> list[str]:
    (tree / "scan.yaml").write_text("fail-on: never\n")
    return ["--config", "scan.yaml"]


def _pack(tree: Path, pack: Signature) -> list[str]:
    shutil.copytree(pack.path, tree / "pack")
    return ["-s", "pack"]


def _baseline(tree: Path, pack: Signature) -> list[str]:
    (tree / "known.json").write_text('{"version": 2, "entries": []}')
    return ["--baseline", "known.json"]


@pytest.mark.parametrize("make", [_config, _pack, _baseline])
def test_what_is_named_there_is_refused(
    tree: Path, pack: Signature, make: Callable[[Path, Signature], list[str]]
) -> None:
    arguments = make(tree, pack)
    done = run("scan", ".", *arguments, cwd=tree)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{arguments[1]}" in done.stderr
    assert "lies in what is scanned, so it is not believed" in done.stderr
    # It is the place that matters, and an untrusted folder is such a place.
    narrower = run("scan", "adapter", *arguments, cwd=tree)
    assert narrower.returncode in (0, 1, 3)
    assert run("scan", "adapter", *arguments, "--untrusted", ".", cwd=tree).returncode == 2


def test_installed_packs_in_the_tree_are_left_out(tree: Path, pack: Signature) -> None:
    shutil.copytree(pack.path, tree / "packs" / "copy")
    there = {"ADAPTER_SCANNER_SIGNATURES": str(tree / "packs")}
    done = run("scan", tree, env=there)
    assert done.returncode == 3
    assert f"pack left out: {tree / 'packs' / 'copy'} lies in what is scanned" in done.stderr
    assert run("scan", tree / "adapter", env=there).returncode == 1


def test_a_cache_in_the_tree_is_not_used(tree: Path, pack: Signature) -> None:
    there = {"ADAPTER_SCANNER_CACHE": str(tree / "cache")}
    first = run("scan", "adapter", "-s", pack.path, cwd=tree, env=there)
    (entry,) = (tree / "cache").glob("*/*.json")
    forged = {**json.loads(entry.read_text()), "verdict": "clear"}
    entry.write_text(json.dumps(forged))
    assert first.returncode == 1
    assert run("scan", "adapter", "-s", pack.path, cwd=tree, env=there).returncode == 0
    done = run("scan", ".", "-s", pack.path, cwd=tree, env=there)
    assert done.returncode == 1
    assert "the cache lies in what is scanned, so it is not used" in done.stderr


def test_isolated_reads_no_configuration_baseline_or_cache(
    tree: Path, pack: Signature, tmp_path: Path
) -> None:
    (tree.parent / YAML).write_text("fail-on: never\nbaseline: none.json\n")
    cache = {"ADAPTER_SCANNER_CACHE": str(tmp_path / "cache")}
    done = run("scan", tree, "-s", pack.path, "--isolated", cwd=tree.parent, env=cache)
    assert (done.returncode, done.stderr) == (1, "")
    assert not (tmp_path / "cache").exists()
    for more in (["--config", YAML], ["--baseline", "known.json"], ["--cache"]):
        done = run("scan", tree, "--isolated", *more, cwd=tree.parent)
        assert done.returncode == 2
        assert f"{more[0]}: --isolated reads none" in done.stderr


def test_a_baseline_is_neither_written_into_the_tree_nor_renewed_there(
    tree: Path, pack: Signature
) -> None:
    write = ("baseline", "write", ".", "-s", pack.path, "--reason", "known")
    done = run(*write, cwd=tree)
    assert done.returncode == 2
    assert "lies in what is scanned" in done.stderr
    assert run(*write, "-o", "../known.json", cwd=tree).returncode == 0


def test_a_gate_believes_nothing_of_what_it_judges(tree: Path, pack: Signature) -> None:
    (tree / YAML).write_text(f"signature: [{tree}/pack]\n")
    shutil.copytree(pack.path, tree / "pack")
    done = run("gate", "check", ".", "-f", "json", cwd=tree)
    assert done.returncode == 3
    assert "so it is not read" in done.stderr
    assert json.loads(done.stdout)["configuration"] == {"file": None, "looser": []}
    assert run("gate", "check", ".", "-s", "pack", cwd=tree).returncode == 2
    (tree / "gate.yaml").write_text("version: 1\nrules: [{models: ['*'], flagged: allow}]\n")
    done = run("gate", "check", ".", "--policy", "gate.yaml", cwd=tree)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--policy: gate.yaml lies in what is scanned" in done.stderr


def test_a_hook_reads_the_repositorys_configuration(tree: Path, pack: Signature) -> None:
    (tree / "adapter" / YAML).write_text(f"signature: [{pack.path}]\nfail-on: never\n")
    file = "adapter_model.safetensors"
    done = run("scan", "--hook", file, "-f", "json", cwd=tree / "adapter")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["configuration"]["file"].endswith(YAML)
    done = run("scan", "--hook", "--untrusted", ".", file, "-s", pack.path, cwd=tree / "adapter")
    assert done.returncode == 1
    assert "so it is not read" in done.stderr


@pytest.mark.parametrize(
    ("settings", "looser"),
    [
        (Settings(), []),
        (Settings(alpha=0.05, cache=False, jobs=1, format="json", output="x"), []),
        (Settings(alpha=0.01), []),
        (Settings(alpha=0.001), ["alpha = 0.001"]),
        (Settings(fail_on="flagged"), ["fail-on = flagged"]),
        (Settings(baseline="b.json", compose=True), ["compose = true", "baseline = b.json"]),
        (Settings(base_model="a/b"), ["base-model = a/b"]),
        (Settings(signature=["a", "b"]), ["signature = a, b"]),
    ],
)
def test_what_is_looser_than_the_default(settings: Settings, looser: list[str]) -> None:
    assert [f"{item.setting} = {item.value}" for item in looser_settings(settings)] == looser


def test_settings_that_mean_nothing_to_a_command_are_not_named() -> None:
    found = looser_settings(Settings(baseline="b", fail_on="never"), unused=("baseline",))
    assert found == [LooserSetting(setting="fail-on", value="never")]


def test_no_default_is_looser_than_itself() -> None:
    defaults = Settings()
    for name, about in about_settings().items():
        assert about.looser is None or not about.looser(getattr(defaults, name)), name


def test_a_folder_may_be_named_to_look_for_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / YAML).write_text("fail-on: never\nbaseline: known.json\n")
    (tmp_path / "base" / ".git").touch()
    found = settings_in_force(tmp_path / "base", {}, ScannedTrees())
    assert found.configuration.file == str(tmp_path / "base" / YAML)
    assert found.settings.baseline == str(tmp_path / "base" / "known.json")
    (tmp_path / "base" / YAML).unlink()
    assert settings_in_force(tmp_path / "base", {}, ScannedTrees()).configuration.file is None


def test_a_refusal_says_where_and_what_to_do(tree: Path) -> None:
    with pytest.raises(UsageError, match=r"--baseline: .*known.json lies .*; keep it outside"):
        trees(tree).refuse(tree / "known.json", where="--baseline")
