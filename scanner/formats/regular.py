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
