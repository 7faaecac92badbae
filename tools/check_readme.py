"""Keeps README and docs in step with the program.

Two things are checked in README.md and in every page below docs/:

- Between ``<!-- begin ARGUMENTS -->`` and ``<!-- end ARGUMENTS -->`` stands what
  ``adapter-scanner ARGUMENTS`` prints; ``--write`` puts it there.
- Every ``adapter-scanner`` command line in a code block names a command and flags that exist.

Run it from anywhere, with the environment the program is installed in.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from scanner.cli.root import cli
from tools.command_line import command_of, help_of

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- begin (?P<args>[^>]+?) -->\n.*?<!-- end (?P=args) -->", re.DOTALL)
COMMAND_LINE = re.compile(r"(?:^|[\s/\"`])adapter-scanner (.*)")


def pages() -> list[Path]:
    """Every page that is checked."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def printed(arguments: str) -> str:
    """What the program prints, 80 columns wide, with no configuration or packs of the user's."""
    if arguments.endswith("--help"):  # the same text without a process for each command
        words = arguments.removesuffix("--help").strip()
        return f"```text\n{help_of(words, command_of(words))}\n```\n"
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(  # noqa: S603 - arguments come from this repository's own pages
            [sys.executable, "-m", "scanner", *shlex.split(arguments)],
            cwd=ROOT,
            env={
                **os.environ,
                "COLUMNS": "80",
                "PYTHONPATH": str(ROOT),
                "PYTHONIOENCODING": "utf-8",
                "XDG_DATA_HOME": empty,
                "ADAPTER_SCANNER_CACHE": empty,
            },
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
    if done.stderr:
        raise SystemExit(f"adapter-scanner {arguments}: {done.stderr}")
    lines = [line.rstrip() for line in done.stdout.strip("\n").split("\n")]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def updated(text: str) -> str:
    """A page with every block as the program prints it now."""

    def block(match: re.Match[str]) -> str:
        arguments = match["args"]
        return f"<!-- begin {arguments} -->\n{printed(arguments)}<!-- end {arguments} -->"

    return BLOCK.sub(block, text)


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines of code blocks (fenced or indented), shown outputs left out."""
    fence = None
    hidden = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<!-- begin "):
            hidden = True
        elif line.startswith("<!-- end "):
            hidden = False
        elif line.startswith("```"):
            fence = None if fence else line
        elif not hidden and (fence or line.startswith("    ")):
            yield number, line


def unknown_words(line: str) -> list[str]:
    """Commands and flags of one command line that the program does not have."""
    match = COMMAND_LINE.search(line.split(" #")[0])
    if match is None:
        return []
    words = re.split(r"\s", re.split(r"[|>&;\"`]", match.group(1))[0].strip())
    command: click.Command = cli
    unknown = []
    for position, word in enumerate(words):
        if isinstance(command, click.Group) and not word.startswith("-"):
            context = click.Context(command)
            found = command.get_command(context, word)
            if found is None and word and word.isalpha() and word.islower():
                unknown.append(word)
            if found is None:
                break
            command = found
        elif word.startswith("-") and word not in ("-", "--") and not _has(command, word):
            unknown.append(" ".join(words[: position + 1]))
    return unknown


def _has(command: click.Command, flag: str) -> bool:
    context = click.Context(command, help_option_names=["-h", "--help"])
    names = {
        name for item in command.get_params(context) for name in (*item.opts, *item.secondary_opts)
    }
    return flag.split("=")[0] in names


def main() -> int:
    """Checks every page, or writes it."""
    problems = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        for number, line in code_lines(text):
            problems += [f"{name}:{number}: no such {word!r}" for word in unknown_words(line)]
        new = updated(text)
        if new != text:
            if "--write" in sys.argv[1:]:
                page.write_text(new, encoding="utf-8")
            else:
                problems.append(f"{name}: differs from the program; run `make update-readme`")
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
