from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.program import PROGRAM, ROOT, run


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program(shell: str) -> None:
    done = run("completion", shell)
    assert done.returncode == 0
    assert "_ADAPTER_SCANNER_COMPLETE" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("adapter-scanner sc", "scan"),
        ("adapter-scanner scan --fail-on i", "inconclusive"),
        ("adapter-scanner scan --bas", "--baseline"),
        ("adapter-scanner signatures v", "verify"),
    ],
)
def test_commands_flags_and_choices_are_completed(words: str, offered: str) -> None:
    done = subprocess.run(
        PROGRAM,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
            "_ADAPTER_SCANNER_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in done.stdout
