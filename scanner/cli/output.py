"""Where reports go: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from scanner.errors import UsageError
from scanner.system.files import write_whole


def write_report(text: str, output: Path | None, *, for_machines: bool = False) -> None:
    """Writes a report to a file or to standard output.

    Args:
        text: The report.
        output: The file; None for standard output.
        for_machines: UTF-8 whatever the terminal speaks; otherwise a character that the
            terminal cannot show is escaped.

    Raises:
        UsageError: If the file cannot be written.
    """
    write_pieces([text], output, for_machines=for_machines)


def write_pieces(pieces: Iterable[str], output: Path | None, *, for_machines: bool = False) -> None:
    """As `write_report`, of a report that is made piece by piece.

    Raises:
        UsageError: If the file cannot be written.
    """
    if output is not None:
        write_atomically(output, (piece.encode() for piece in pieces))
        return
    encoding = (None if for_machines else sys.stdout.encoding) or "utf-8"
    sys.stdout.flush()
    try:
        for piece in pieces:
            sys.stdout.buffer.write(piece.encode(encoding, "backslashreplace"))
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; the verdict still stands.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replaces a file in one step (`scanner.system.files.write_whole`).

    Raises:
        UsageError: If it cannot be written.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
