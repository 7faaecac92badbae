"""Configuration files: flags over file over defaults, and nothing is ever ignored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest

from scanner.cli.options import resolve_settings
from scanner.cli.scan import command
from scanner.errors import UsageError
from scanner.scanning.configuration import find_config, load_config
from scanner.scanning.settings import Settings
from scanner.signatures.pack import Signature
from tests.cli.program import run

YAML = ".adapter-scanner.yaml"


def refused(tmp_path: Path, text: str, name: str = YAML) -> str:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_config(path)
    return caught.value.line().replace(f"{tmp_path}/", "")


def test_every_setting_can_be_set_in_both_files(tmp_path: Path) -> None:
    values = """
format: sarif
output: out.sarif
signature: [packs/one, packs/two]
base-model: lab/base
alpha: 0.05
fail-on: flagged
compose: true
baseline: accepted.json
jobs: 2
cache: false
progress: false
"""
    (tmp_path / YAML).write_text(values)
    toml = tmp_path / "pyproject.toml"
    lines = [line.replace(":", " =", 1) for line in values.strip().splitlines()]
    text = "\n".join(lines).replace("[packs/one, packs/two]", '["packs/one", "packs/two"]')
    for word in ("sarif", "out.sarif", "lab/base", "flagged", "accepted.json"):
        text = text.replace(f"= {word}\n", f'= "{word}"\n')
    toml.write_text(f"[tool.adapter-scanner]\n{text}\n")
    settings = load_config(tmp_path / YAML)
    assert settings == load_config(toml)
    assert settings == Settings(
        format="sarif",
        output=str(tmp_path / "out.sarif"),
        signature=[str(tmp_path / "packs/one"), str(tmp_path / "packs/two")],
        base_model="lab/base",
        alpha=0.05,
        fail_on="flagged",
        compose=True,
        baseline=str(tmp_path / "accepted.json"),
        jobs=2,
        cache=False,
        progress=False,
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "alpha: 0.05\nfail_on: never\n",
            f"{YAML}:2: unknown key 'fail_on'; did you mean 'fail-on'?",
        ),
        ("\n\nalhpa: 1\n", f"{YAML}:3: unknown key 'alhpa'; did you mean 'alpha'?"),
        ("nonsense: 1\n", f"{YAML}:1: unknown key 'nonsense'; known are format"),
        ("alpha: much\n", f"{YAML}:1: alpha: expected float"),
        ("jobs: 2\nalpha: 1.5\n", f"{YAML}:2: alpha: expected float < 1.0"),
        ("alpha: 0\n", f"{YAML}:1: alpha: expected float > 0"),
        ("format: jsn\n", f"{YAML}:1: format: 'jsn' is not one of cyclonedx, html,"),
        ("compose: yes please\n", f"{YAML}:1: compose: expected bool, got str"),
        ("signature: pack\n", f"{YAML}:1: signature: expected array, got str"),
        ("signature:\n  - 1\n", f"{YAML}:1: signature: expected str, got int"),
        ("jobs: 0\n", f"{YAML}:1: jobs: expected int >= 1"),
        ("jobs: 1\njobs: 2\n", f"{YAML}:2: the key 'jobs' occurs twice"),
        ("a: [\n", f"{YAML}:2: invalid YAML"),
        ("- alpha\n", f"{YAML}:1: a mapping of settings was expected"),
        ("alpha: !!python/object:os.system 1\n", f"{YAML}:1: invalid YAML"),
    ],
)
def test_yaml_errors_have_the_line(tmp_path: Path, text: str, says: str) -> None:
    line = refused(tmp_path, text)
    assert line.startswith(says)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[project]\nalpha = 2\n[tool.adapter-scanner]\nalpha = 2\n", "4: alpha: expected float <"),
        ('[tool.adapter-scanner]\n"fail_on" = "never"\n', "2: unknown key 'fail_on'"),
        ("# adapter\n[tool.adapter-scanner]\nalpha = \n", "3: invalid TOML"),
        ("[tool]\nadapter-scanner = 3\n", "2: tool.adapter-scanner is not a table"),
        ("[tool.adapter_scanner]\nalpha = 0.1\n", "1: unknown table [tool.adapter_scanner]"),
    ],
)
def test_toml_errors_have_the_line(tmp_path: Path, text: str, says: str) -> None:
    assert refused(tmp_path, text, "pyproject.toml").startswith(f"pyproject.toml:{says}")


def test_a_file_without_our_table_is_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'adapter'\n")
    assert find_config(tmp_path) is None
    (tmp_path / "pyproject.toml").write_text("broken [[[ but of somebody else")
    assert find_config(tmp_path) is None


def test_the_nearest_file_counts_up_to_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repo" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / YAML).write_text("jobs: 1\n")
    assert find_config(inner) == tmp_path / YAML
    (tmp_path / "repo" / ".git").mkdir()
    assert find_config(inner) is None
    (tmp_path / "repo" / YAML).write_text("jobs: 2\n")
    assert find_config(inner) == tmp_path / "repo" / YAML


def test_two_files_or_an_overlooked_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / YAML).write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.adapter-scanner]\n")
    with pytest.raises(UsageError, match="keep one of them"):
        find_config(tmp_path)
    (tmp_path / "pyproject.toml").unlink()
    assert load_config(tmp_path / YAML) == Settings()
    (tmp_path / ".adapter-scanner.yml").write_text("")
    with pytest.raises(UsageError, match="call it"):
        find_config(tmp_path)


def test_flags_win_over_the_file_and_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / YAML).write_text("alpha: 0.05\ncompose: true\nfail-on: never\nsignature: [a]\n")
    flags: dict[str, Any] = {"alpha": 0.02, "compose": False, "signature": (), "fail_on": None}
    settings = resolve_settings(None, flags).settings
    assert (settings.alpha, settings.compose) == (0.02, False)
    assert (settings.fail_on, settings.signature) == ("never", ["a"])


def test_every_setting_is_a_flag() -> None:
    names = {item.name for item in command.params if isinstance(item, click.Option)}
    assert set(Settings.__struct_fields__) <= names


def test_the_command_reads_the_file(pack: Signature, misaligned: Path, tmp_path: Path) -> None:
    (tmp_path / YAML).write_text(f"signature: [{pack.path}]\nfail-on: never\nformat: json\n")
    done = run("scan", misaligned, cwd=tmp_path)
    assert done.returncode == 0
    assert '"flagged": 1' in done.stdout
    assert run("scan", misaligned, "--fail-on", "flagged", cwd=tmp_path).returncode == 1
    (tmp_path / YAML).write_text("fail-on: nevr\n")
    done = run("scan", misaligned, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"{YAML}:1: fail-on: 'nevr' is not one of flagged," in done.stderr


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("fail-on: always", "'always' is not one of flagged, inconclusive, never"),
        (
            "format: xml",
            "'xml' is not one of cyclonedx, html, json, jsonl, junit, markdown, sarif, text",
        ),
    ],
)
def test_a_value_that_is_none_of_a_few_is_answered_with_the_few(
    tmp_path: Path, line: str, allowed: str
) -> None:
    path = tmp_path / ".adapter-scanner.yaml"
    path.write_text(f"{line}\n")
    with pytest.raises(UsageError, match=re.escape(f"{path}:1: {line.split(':')[0]}: {allowed}")):
        load_config(path)
