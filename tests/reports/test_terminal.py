"""Text of others as a line that nothing obeys, and JSON in which nothing is invisible."""

from __future__ import annotations

import json

import pytest

from scanner.reports.terminal import Screen, printable, safe_json

COMMANDS = (
    "::error title=x::y",
    "a ::set-output name=a::b",
    "a\r::stop-commands::x",
    "a\n  ::add-mask::x",
    "\u2028::error::x",
    "##[error]x",
    "a##[group]x",
    "##vso[task.setvariable]x",
    "##teamcity[buildStop]",
    "a ::::error::x",
)


@pytest.mark.parametrize("text", COMMANDS)
@pytest.mark.parametrize("width", [12, 40, 10_000])
def test_no_line_is_a_workflow_command(text: str, width: int) -> None:
    for line in [*Screen(width).wrap(f"why: {printable(text)}", "    "), printable(text)]:
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line
        assert "##teamcity[" not in line


@pytest.mark.parametrize("text", ["std::vector", "a: b", "# heading", "## heading", "C#[0]", "é ✓"])
def test_what_is_no_command_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(
    "mark",
    ["\u2028", "\u2029", "\u0085", "\u202e", "\u200b", "\u2066", "\ufeff", "\x7f", "\U000e0041"],
)
def test_json_shows_what_is_invisible_and_means_the_same(mark: str) -> None:
    value = {f"key{mark}": [f"a{mark}b", "##[error]x", "é ✓ 模型", "tab\t"]}
    written = safe_json(json.dumps(value, ensure_ascii=False, indent=1))
    assert mark not in written
    assert "##[" not in written
    assert "é ✓ 模型" in written
    assert json.loads(written) == value
