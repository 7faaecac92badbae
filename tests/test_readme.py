"""README and docs show what the program prints, and only commands and flags it has."""

from __future__ import annotations

import pytest

from tools import check_readme


def test_readme_and_docs_are_in_step() -> None:
    """If this fails: make update-readme."""
    assert check_readme.main() == 0


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
