"""README and docs show what the program prints, and only commands and flags it has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import run
from tests.tools import require
from tools import check_readme, command_line


@pytest.mark.parametrize("module", ["tools.check_readme", "tools.command_line"])
def test_readme_and_docs_are_in_step(module: str) -> None:
    """If this fails: make update-readme.

    A process of its own, as people run it: click keeps what it once made of a command's options.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, "--check"],
        cwd=command_line.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("    adapter-scanner scan x --alpha 0.05 -f json | head", []),
        ("    .venv/bin/adapter-scanner scan x --no-cache  # text", []),
        ("    adapter-scanner scna x", ["scna"]),
        ("    adapter-scanner scan x --alhpa=1", ["scan x --alhpa=1"]),
        ("    adapter-scanner baseline write x --reason y", []),
        ("    adapter-scanner baseline write x --raeson y", ["write x --raeson"]),
        ("    pip install adapter-scanner", []),
    ],
)
def test_command_lines_are_checked(line: str, unknown: list[str]) -> None:
    found = check_readme.unknown_words(line)
    assert len(found) == len(unknown)
    assert all(a.endswith(b) for a, b in zip(found, unknown, strict=True))


def test_a_block_is_replaced_by_what_the_program_prints() -> None:
    page = "a\n<!-- begin completion --help -->\nold\n<!-- end completion --help -->\nb\n"
    new = check_readme.updated(page)
    assert new.startswith("a\n<!-- begin completion --help -->\n```text\nUsage: ")
    assert new.endswith("```\n<!-- end completion --help -->\nb\n")


def test_every_command_is_on_its_page_and_has_a_man_page() -> None:
    files = command_line.expected()
    assert set(command_line.MAN.iterdir()) == set(files) - {command_line.PAGE}
    names = [words for words, _ in command_line.commands()]
    assert {"scan", "hub report", "signatures make", "completion"} <= set(names)
    page = command_line.PAGE.read_text("utf-8")
    assert all(f"<!-- begin {f'{words} --help'.strip()} -->" in page for words in names)


@pytest.mark.parametrize("page", sorted(command_line.MAN.iterdir()), ids=lambda path: path.stem)
def test_man_pages_are_sound(page: Path) -> None:
    groff = require("groff")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("words", ["", "scan", "hub report", "signatures make"])
def test_what_pages_show_of_help_is_what_the_program_prints(words: str) -> None:
    done = run(*words.split(), "--help", env={"COLUMNS": "80"})
    shown = "\n".join(line.rstrip() for line in done.stdout.strip("\n").split("\n"))
    mark = re.escape(f"{words} --help".strip())
    page = command_line.PAGE.read_text("utf-8")
    block = re.search(
        f"<!-- begin {mark} -->\n```text\n(.*?)\n```\n<!-- end {mark} -->", page, re.S
    )
    assert block is not None
    assert shown == block[1]
