"""Where reports go: standard output, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from scanner.errors import UsageError


def write_report(text: str, output: Path | None, *, for_machines: bool = False) -> None:
    """Writes a report.

    Args:
        text: The report.
        output: The file; None for standard output.
        for_machines: UTF-8 whatever the terminal speaks; otherwise a character that the
            terminal cannot show is escaped.

    Raises:
        UsageError: If the file cannot be written.
    """
    if output is not None:
        write_atomically(output, text.encode())
        return
    encoding = None if for_machines else sys.stdout.encoding
    data = text.encode(encoding or "utf-8", "backslashreplace")
    sys.stdout.flush()
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # The reader (`head`, a pager) has seen enough; the verdict still stands.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces a file in one step: a reader sees the old content or the new, never half.

    A link is followed; a device or a pipe is written to as it is.

    Raises:
        UsageError: If the directory is missing or not writable.
    """
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(data)
            return
        path = Path(os.path.realpath(path))
        descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"cannot be written: {error.strerror or error}", where=str(path)) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o666 & ~_umask())
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
