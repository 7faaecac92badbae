"""What a text report needs of a terminal: styles, wrapping, bars, and safe characters.

Written by hand because a hook runs hundreds of times a day: importing a terminal library
takes longer than scanning a small adapter.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from dataclasses import dataclass

_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "magenta": "35"}
_WIDEST = 100
_NARROWEST = 40
UNLIMITED = 10_000
"""Columns of what is no terminal: nothing is wrapped."""
DEFAULT_WIDTH = 80

_COLON_COMMAND = re.compile(r"(?<!\S):(?=:)")
_HASH_COMMAND = re.compile(r"#(?=#\w*\[)")


@dataclass(frozen=True)
class Screen:
    """What the place a text is written to can show."""

    width: int = DEFAULT_WIDTH
    color: bool = False
    unicode: bool = True

    def style(self, text: str, *styles: str) -> str:
        """Text in a style; as it is where colours are not wanted."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(_SGR[style] for style in styles)}m{text}\x1b[0m"

    def wrap(self, text: str, indent: str, first: str | None = None) -> list[str]:
        """Lines of at most the screen's width; paths and numbers stay whole.

        Args:
            text: What to wrap.
            indent: What every line starts with.
            first: What the first line starts with, if something else.
        """
        return textwrap.wrap(
            text,
            self.width,
            initial_indent=indent if first is None else first,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def bar(self, share: float, width: int) -> str:
        """A bar of a share in [0, 1], at least one cell long and padded to `width`."""
        full = min(max(round(share * width), 1), width)
        return ("█" if self.unicode else "#") * full + " " * (width - full)


def standard_output() -> Screen:
    """The screen behind standard output.

    Colours as `wants_color` says; lines are wrapped only there, or where COLUMNS
    says how wide they may be, so that what goes through a pipe can be searched.
    """
    terminal = sys.stdout.isatty()
    columns = shutil.get_terminal_size((DEFAULT_WIDTH if terminal else UNLIMITED, 24)).columns
    return Screen(
        width=max(_NARROWEST, min(columns, _WIDEST) if terminal else columns),
        color=wants_color(terminal),
        unicode=_encodes("█│", sys.stdout.encoding),
    )


def standard_error() -> Screen:
    """The screen behind standard error, for single lines: none is wrapped."""
    return Screen(
        width=UNLIMITED,
        color=wants_color(sys.stderr.isatty()),
        unicode=_encodes("█│", sys.stderr.encoding),
    )


def wants_color(terminal: bool) -> bool:
    """Whether the user wants colours: NO_COLOR says no, FORCE_COLOR yes, else a terminal decides.

    Sources: no-color.org and force-color.org; a variable that is set to nothing says nothing.

    Args:
        terminal: Whether the text goes to one.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return terminal and os.environ.get("TERM") != "dumb"


def _encodes(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def printable(text: str) -> str:
    """Text from a file as one line that neither a terminal nor a CI runner obeys.

    Control and invisible characters are made visible, and so is what starts a workflow
    command: GitHub's ``::error::`` is one at the start of a line, after blanks, and text may be
    wrapped at any blank; ``##[error]``, Azure's ``##vso[`` and TeamCity's ``##teamcity[``
    are commands anywhere in a line.
    """
    visible = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return _HASH_COMMAND.sub(r"\\x23", _COLON_COMMAND.sub(r"\\x3a", visible))


def safe_json(document: str) -> str:
    """A JSON document in which no character of a string is invisible or a command.

    Line and paragraph separators, which JavaScript and many readers of lines take for line
    ends, marks that turn the direction of text, and characters of no width are written as
    escapes, and so is the first ``#`` of `printable`'s commands. The document means the same.
    """
    document = _HASH_COMMAND.sub(r"\\u0023", document)
    if document.isascii() and "\x7f" not in document:
        return document
    return "".join(c if c.isprintable() or c == "\n" else _json_escape(c) for c in document)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
