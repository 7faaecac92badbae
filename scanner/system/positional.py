"""Reading a file at an offset, whatever position its descriptor has.

POSIX has calls for it. Where they are missing (Windows) the position is moved, under a lock,
because several threads read one file.
"""

from __future__ import annotations

import os
from threading import Lock

_moving = Lock()

if hasattr(os, "preadv"):

    def read_at(descriptor: int, count: int, offset: int) -> bytes:
        """At most `count` bytes from an offset; fewer at the end of the file."""
        return os.pread(descriptor, count, offset)

    def read_into(descriptor: int, view: memoryview, offset: int) -> int:
        """Fills a view from an offset as far as one call does; how many bytes it got."""
        return os.preadv(descriptor, [view], offset)

else:

    def read_at(descriptor: int, count: int, offset: int) -> bytes:
        """At most `count` bytes from an offset; fewer at the end of the file."""
        with _moving:
            os.lseek(descriptor, offset, os.SEEK_SET)
            return os.read(descriptor, count)

    def read_into(descriptor: int, view: memoryview, offset: int) -> int:
        """Fills a view from an offset as far as one call does; how many bytes it got."""
        block = read_at(descriptor, min(len(view), 2**26), offset)
        view[: len(block)] = block
        return len(block)
