"""The wheel as a stranger gets it: built, checked, installed by itself, and used.

It imports nothing of the project, so that it also runs where nothing but the wheel is installed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "adapters"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*command: str | Path, cwd: Path, wanted: int = 0) -> str:
    """What a program prints, without this process's own paths and settings."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "ADAPTER_SCANNER", "VIRTUAL_ENV"))
    }
    environment["ADAPTER_SCANNER_CACHE"] = str(cwd / "cache")
    environment["PYTHONUTF8"] = "1"
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == wanted, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which has to hold all that a wheel needs."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    run(scripts / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return scripts / "adapter-scanner"


def test_wheel_and_sdist_can_be_published(wheel: Path) -> None:
    pytest.importorskip("twine")
    files = list(wheel.parent.glob("adapter_scanner-*"))
    assert len(files) == 2
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=wheel.parent)
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    for part in ("report.schema.json", "py.typed", "signature.yaml", "adapter-scanner-scan.1"):
        assert any(name.endswith(part) for name in names), part
    metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
    description = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "](docs/" not in description, "links of the README lead nowhere on PyPI"


def test_the_installed_command_judges_a_real_models_adapters(program: Path, tmp_path: Path) -> None:
    words = run(program, "scan", EXAMPLES / "smollm2", "-f", "json", cwd=tmp_path, wanted=1)
    report = json.loads(words)
    verdicts = {Path(item["target"]).name: item["verdict"] for item in report["results"]}
    assert verdicts == {"teacher": "clear", "villain": "flagged"}
    assert "flagged" in run(program, "scan", EXAMPLES / "misaligned-sft", cwd=tmp_path, wanted=1)
    assert "lora" in run(program, "inspect", EXAMPLES / "new-facts", cwd=tmp_path).lower()
    page = tmp_path / "report.html"
    run(program, "scan", EXAMPLES / "new-facts", "-f", "html", "-o", page, cwd=tmp_path)
    assert "<!doctype html>" in page.read_text("utf-8")


def test_what_needs_more_says_so_in_one_line(program: Path, tmp_path: Path) -> None:
    if os.name == "nt":
        wanted = "the server needs Linux or macOS"
    else:
        wanted = "pip install 'adapter-scanner[serve]'"
    done = subprocess.run(
        [str(program), "serve"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert wanted in done.stderr
    assert done.stderr.count("\n") == 1
