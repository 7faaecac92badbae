"""Writes what there is to read about every command: docs/command-line.md, and man pages in man/.

Both are made from the commands themselves, so none is forgotten: `python -m tools.command_line`
writes them, and with ``--check`` says which are not as they should be.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from scanner.cli.root import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "command-line.md"
MAN = ROOT / "man"
PROGRAM = "adapter-scanner"
_COLUMNS = 78
"""As click writes on a terminal of 80."""
SEE = {
    "hub scan": "[How a sweep goes](sweep.md).",
    "signatures make": "[A pack for your base model](make.md).",
    "signatures build": "[Recipes](signatures.md#a-recipe).",
    "signatures review": "[Second thoughts](signatures.md#second-thoughts-signatures-review).",
    "signatures pull": "[Packs from elsewhere](signatures.md#packs-from-elsewhere).",
    "serve": "[How to deploy it](serve.md).",
    "gate": "[What it gates, and the policy](gates.md).",
    "scan": "[What a configuration file may say](configuration.md).",
    "organisms": "[Organisms](organisms.md).",
}
"""Command -> where it is explained."""


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its words, in the order of ``--help``; the program itself has none."""
    yield from _below("", cli)


def _below(words: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield words, command
    if isinstance(command, click.Group):
        context = _context(words, command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, "a group lists what it has"
            yield from _below(f"{words} {name}".strip(), inner)


def help_of(words: str, command: click.Command) -> str:
    """What a command prints with ``--help`` on a terminal of 80 columns."""
    lines = command.get_help(_context(words, command)).strip("\n").split("\n")
    return "\n".join(line.rstrip() for line in lines)


def command_of(words: str) -> click.Command:
    """The command that some words name.

    Raises:
        SystemExit: If they name none.
    """
    found = dict(commands()).get(words)
    if found is None:
        raise SystemExit(f"no such command: {words}")
    return found


def _context(words: str, command: click.Command) -> click.Context:
    """A command's context as the program makes it."""
    return click.Context(
        command,
        info_name=f"{PROGRAM} {words}".strip(),
        terminal_width=_COLUMNS,
        help_option_names=["-h", "--help"],
    )


def page() -> str:
    """docs/command-line.md."""
    parts = [
        "# Command line\n",
        "Every command, as the program prints it with `--help`. Written by "
        "`python -m tools.command_line`, as are the man pages that are installed with it "
        "(`man adapter-scanner-scan`).\n",
    ]
    for words, command in commands():
        if words:
            parts.append(f"{'#' * (len(words.split()) + 1)} {words}\n")
        if words in SEE:
            parts.append(f"{SEE[words]}\n")
        flag = f"{words} --help".strip()
        parts.append(
            f"<!-- begin {flag} -->\n```text\n{help_of(words, command)}\n```\n<!-- end {flag} -->\n"
        )
    return "\n".join(parts)


def man_page(words: str, command: click.Command) -> str:
    """A command's man page, in the macros of man(7)."""
    name = "-".join([PROGRAM, *words.split()])
    context = _context(words, command)
    summary = _plain(command.get_short_help_str(200)).rstrip(".")
    lines = [
        f'.TH "{name.upper()}" "1" "" "adapter-scanner" "User Commands"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary)}",
        ".SH SYNOPSIS",
        f".B {_escaped(context.command_path)}",
        _escaped(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    flags_of = [item for item in command.get_params(context) if isinstance(item, click.Option)]
    if options := [found for item in flags_of if (found := item.get_help_record(context))]:
        lines.append(".SH OPTIONS")
        for flags, text in options:
            lines += [".TP", f"\\fB{_escaped(flags)}\\fR", _escaped(_plain(text))]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for inner, item in _below(words, command):
            if len(inner.split()) == len(words.split()) + 1:
                page_name = "-".join([PROGRAM, *inner.split()])
                lines += [".TP", f"\\fB{_escaped(page_name)}\\fR(1)"]
                lines.append(_escaped(_plain(item.get_short_help_str(200))))
    lines += _sections(command.epilog or "")
    if words:
        above = "-".join([PROGRAM, *words.split()[:-1]])
        lines += [".SH SEE ALSO", f"\\fB{_escaped(above)}\\fR(1)"]
    return "\n".join(lines) + "\n"


def _sections(epilog: str) -> Iterator[str]:
    """The sections of an epilog: a heading with a colon, and lines that stay as they are."""
    for block in re.split(r"\n\s*\n", epilog.replace("\b\n", "").strip()):
        heading, _, body = block.partition("\n")
        if heading.endswith(":"):
            yield f".SH {_escaped(heading.rstrip(':').upper())}"
            yield from (".nf", *map(_escaped, body.splitlines()), ".fi")
        elif block:
            yield from (".PP", _escaped(_plain(block)))


def _paragraphs(text: str) -> Iterator[str]:
    for index, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if index:
            yield ".PP"
        kept = paragraph.startswith("\b\n")
        lines = paragraph.removeprefix("\b\n").splitlines()
        yield from (".nf", *map(_escaped, lines), ".fi") if kept else [_escaped(_plain(paragraph))]


def _plain(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    """Text that no macro or escape of roff is read into."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("\u2026", "...")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def expected() -> dict[Path, str]:
    """Every file that is written, and what it holds."""
    pages = {
        MAN / f"{'-'.join([PROGRAM, *words.split()])}.1": man_page(words, command)
        for words, command in commands()
    }
    return {PAGE: page(), **pages}


def main() -> int:
    """Writes or checks all of them; a man page of a command that is gone is removed."""
    files = expected()
    stale = [path for path in MAN.glob("*.1") if path not in files]
    wrong = [p for p, text in files.items() if not p.is_file() or p.read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for path in (*wrong, *stale):
            sys.stderr.write(f"{path.relative_to(ROOT)}: run python -m tools.command_line\n")
        return 1 if wrong or stale else 0
    MAN.mkdir(exist_ok=True)
    for path in wrong:
        path.write_text(files[path], encoding="utf-8")
    for path in stale:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
