"""The quick start of docs/gates.md, run as it stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import ROOT
from tests.gates.mlflow_server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = ROOT / "docs" / "gates.md"


def block(name: str) -> str:
    """A code block of the page, by the comment above it."""
    pattern = rf"<!-- quick start: {name} -->\n```sh\n(.*?)```"
    match = re.search(pattern, PAGE.read_text("utf-8"), re.DOTALL)
    assert match, name
    return match[1]


def test_a_new_user_sees_a_misaligned_adapter_refused(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    port = str(free_port())
    script = block("serve").replace("5000", port)
    script = script.replace("mlflow server", f"mlflow server --port {port}")
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        shell = subprocess.Popen(
            ["bash", "-c", script + block("use")],
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            shell.wait(800)
        finally:
            os.killpg(shell.pid, signal.SIGTERM)
    printed = output.read_text("utf-8")
    assert "new-style PERMISSION_DENIED: adapter-scanner: alias champion" in printed
    assert "there is no valid verdict on it" in printed
    page = PAGE.read_text("utf-8")
    shown = [
        line.strip() for line in page.splitlines() if line.startswith("    misaligned-sft PERM")
    ]
    assert shown
    assert shown[0] in printed
    assert printed.rstrip().endswith("new-style is champion")
