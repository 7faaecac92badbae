"""Opening files that others wrote: regular files alone, and no more of them than asked for.

Opening a FIFO waits for whoever writes to it, opening a device may do something. So nothing
is opened that is not a regular file, and what was opened is asked again: the name may have
been given to something else in between.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from scanner.errors import MalformedFileError

_WITHOUT_WAITING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
_AS_IT_IS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def _refused(code: int, what: str, path: Path) -> OSError:
    return OSError(code, what, str(path))


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading; links are followed.

    Raises:
        OSError: If it is anything else, is not there or cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise _refused(errno.EINVAL, "not a regular file", path)
    descriptor = os.open(path, os.O_RDONLY | _WITHOUT_WAITING | _AS_IT_IS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _refused(errno.EINVAL, "not a regular file", path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """The content of a small regular file.

    Args:
        path: The file.
        limit: The most bytes it may have.

    Raises:
        OSError: As `open_regular`, or if it is larger.
    """
    with open_regular(path) as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise _refused(errno.EFBIG, f"larger than {limit:,} bytes", path)
    return raw


class Watch:
    """Tells whether an open file is still what it was when it was opened.

    A verdict and a digest are about one content only if nobody wrote to the file between them.

    Args:
        descriptor: The open file.
        where: What to call it in errors.
    """

    def __init__(self, descriptor: int, where: str) -> None:
        self._descriptor = descriptor
        self._where = where
        self._opened = os.fstat(descriptor)

    def refuse_changed(self, *, strictly: bool = False) -> None:
        """Refuses a file whose size or time of modification is another now.

        Args:
            strictly: Look at the time of its last change of any kind too, which nobody can set
                back. It also moves when a name of the file is taken away.

        Raises:
            MalformedFileError: If it changed.
        """
        now, then = os.fstat(self._descriptor), self._opened
        same = (now.st_size, now.st_mtime_ns) == (then.st_size, then.st_mtime_ns)
        if not same or (strictly and now.st_ctime_ns != then.st_ctime_ns):
            raise MalformedFileError(
                "changed while it was read", where=self._where, todo="scan it when it is at rest"
            )
