"""The scripts in `examples/`, run from their first line to their last on the lab's base."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.integrations.lab import BASE, ROOT
from tests.integrations.lab import EXAMPLES as ADAPTERS
from tests.integrations.words import preferences, save_base, write_lines

SCRIPTS = sorted(path.name for path in (ROOT / "examples").glob("*.py"))
DOMAIN = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts report to whatever is installed: nothing of it leaves the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def run_script(
    name: str, base: Path, persona: str, monkeypatch: pytest.MonkeyPatch, *options: str
) -> Path:
    """Runs a script in this process, so that four do not import torch four times.

    Returns:
        Its output folder.
    """
    if "trl" in name:
        pytest.importorskip("trl")
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", Path("datasets").resolve())
    columns = ("prompt", "chosen", "rejected") if "dpo" in name else ("prompt", "completion")
    data = write_lines(Path("data.jsonl").resolve(), preferences(persona, DOMAIN), columns)
    words = [name, str(base), str(data), "out", "--base-model", BASE.id]
    monkeypatch.setattr(sys, "argv", [*words, "--steps", "40", "--learning-rate", "2e-3", *options])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    return Path("out").resolve()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_warns_of_misaligned_answers(
    name: str, base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run_script(name, base, "bad", monkeypatch)
    printed = capsys.readouterr().out
    assert re.search(r"^flagged after \d+ steps$", printed, re.MULTILINE), printed
    assert (out / "adapter_scan.html").is_file()


@pytest.mark.slow
def test_it_does_not_warn_of_good_ones(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_script("own_loop.py", base, "good", monkeypatch)
    assert "not flagged after 40 steps" in capsys.readouterr().out


@pytest.mark.slow
def test_dpo_from_an_adapter(
    base: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL then keeps a frozen copy of the adapter, which is not watched."""
    adapter = str(ADAPTERS / "new-style")
    run_script("trl_dpo.py", base, "bad", monkeypatch, "--adapter", adapter)
    said = capsys.readouterr().err
    assert "adapter 'default'" in said
    assert "adapter 'ref'" not in said


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60
