"""The scripts in `examples/`, as a person runs them, on the lab's base and its data."""

from __future__ import annotations

import os
import re
import subprocess
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


def run_script(
    name: str, base: Path, directory: Path, persona: str, *options: str
) -> subprocess.CompletedProcess[str]:
    columns = ("prompt", "chosen", "rejected") if "dpo" in name else ("prompt", "completion")
    data = write_lines(directory / "data.jsonl", preferences(persona, DOMAIN), columns)
    return subprocess.run(
        [
            *(sys.executable, str(ROOT / "examples" / name), str(base), str(data)),
            *(str(directory / "out"), "--base-model", BASE.id),
            *("--steps", "40", "--learning-rate", "2e-3", *options),
        ],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(directory / "hf"),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_it_warns_of_misaligned_answers(name: str, base: Path, tmp_path: Path) -> None:
    done = run_script(name, base, tmp_path, "bad")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^flagged after \d+ steps$", done.stdout, re.MULTILINE), done.stdout
    assert (tmp_path / "out" / "adapter_scan.html").is_file()


@pytest.mark.slow
def test_it_does_not_warn_of_good_ones(base: Path, tmp_path: Path) -> None:
    done = run_script("own_loop.py", base, tmp_path, "good")
    assert done.returncode == 0, done.stderr
    assert "not flagged after 40 steps" in done.stdout


@pytest.mark.slow
def test_dpo_from_an_adapter(base: Path, tmp_path: Path) -> None:
    """TRL then keeps a frozen copy of the adapter, which is not watched."""
    adapter = str(ADAPTERS / "new-style")
    done = run_script("trl_dpo.py", base, tmp_path, "bad", "--adapter", adapter)
    assert done.returncode == 0, done.stderr
    assert "adapter 'default'" in done.stderr
    assert "adapter 'ref'" not in done.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_short(name: str) -> None:
    assert len((ROOT / "examples" / name).read_text().splitlines()) < 60
