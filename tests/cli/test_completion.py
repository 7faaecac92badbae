from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import PROGRAM, ROOT, run
from tests.tools import require


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


def complete(words: str, incomplete: str = "") -> set[tuple[str, str]]:
    """(kind, value) of what is offered behind some words."""
    line = [*words.split(), incomplete]
    done = subprocess.run(
        PROGRAM,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "COMP_WORDS": " ".join(line),
            "COMP_CWORD": str(len(line) - 1),
            "_ADAPTER_SCANNER_COMPLETE": "bash_complete",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return {(kind, value) for kind, _, value in (x.partition(",") for x in done.stdout.split())}


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ("adapter-scanner scan", "exam", ("file", "exam")),
        ("adapter-scanner inspect", "x", ("file", "x")),
        ("adapter-scanner baseline write", "x", ("file", "x")),
        ("adapter-scanner scan --baseline", "x", ("file", "x")),
        ("adapter-scanner scan -s", "persona-ll", ("plain", "persona-llama-weights")),
        ("adapter-scanner scan -s", "./p", ("file", "./p")),
        ("adapter-scanner signatures show", "persona-g", ("plain", "persona-gpt2-weights")),
        ("adapter-scanner signatures build", "qwen2.5-7b", ("plain", "qwen2.5-7b-instruct")),
        (
            "adapter-scanner hub scan --base-model",
            "Hugging",
            ("plain", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ),
    ],
)
def test_paths_packs_and_bases_are_completed(
    words: str, incomplete: str, offered: tuple[str, str]
) -> None:
    assert offered in complete(words, incomplete)


def test_in_a_shell_a_path_is_completed_as_without_the_script(tmp_path: Path) -> None:
    """With an installed script that knows nothing of paths, Tab does nothing at all."""
    bash = require("bash")
    (tmp_path / "my adapters").mkdir()
    (tmp_path / "my adapters" / "adapter_config.json").touch()
    program = tmp_path / "adapter-scanner"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scanner "$@"\n')
    program.chmod(0o755)
    script = tmp_path / "rc"
    script.write_text(f"PS1='ready> '\n{run('completion', 'bash').stdout}")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(tmp_path)
        os.environ.update(PYTHONPATH=str(ROOT), PATH=f"{tmp_path}:{os.environ['PATH']}")
        os.environ.update(TERM="dumb", HOME=str(tmp_path))
        os.execv(bash, [bash, "--noprofile", "--rcfile", str(script), "-i"])
    read_until(terminal, b"ready> ")
    os.write(terminal, b"adapter-scanner scan my\t")
    read_until(terminal, b"my\\ adapters/")
    os.write(terminal, b"ad\t")
    read_until(terminal, b"adapter_config.json")
    os.close(terminal)
    os.waitpid(process, 0)


def read_until(terminal: int, expected: bytes) -> None:
    """Reads what a terminal shows up to some text; the test's own limit ends it otherwise."""
    shown = b""
    while expected not in shown:
        shown += os.read(terminal, 4096)
