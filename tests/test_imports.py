"""Start-up: a hook runs hundreds of times a day, so scanning must not import the heavy things."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scanner.signatures.pack import Signature

HEAVY = ("torch", "scipy.stats", "transformers", "huggingface_hub", "jinja2", "scipy")


def imported_by(code: str) -> set[str]:
    """Names of the heavy modules a fresh interpreter has loaded after running some code."""
    probe = f"{code}\nimport sys\nprint(*(m for m in {HEAVY!r} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()) if run.stdout.strip() else set()


def test_scanning_imports_nothing_heavy(pack: Signature, misaligned: Path) -> None:
    code = (
        "from scanner import load_signature, scan\n"
        f"scan({str(misaligned)!r}, [load_signature({str(pack.path)!r})])"
    )
    assert imported_by(code) == set()


@pytest.mark.parametrize("module", ["scanner", "scanner.cli", "scanner.integrations"])
def test_importing_the_package_does_not_even_import_numpy(module: str) -> None:
    code = f"import {module}, sys; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_does_not_import_numpy() -> None:
    code = (
        "import sys\nfrom scanner.cli import main\nsys.argv = ['adapter-scanner', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
