"""Files of holes: large by their size, and almost nothing on the disk."""

from __future__ import annotations

import os
from pathlib import Path

from scanner.errors import LimitExceededError
from scanner.formats.limits import MAX_EXPANSION

_LARGE_BYTES = 256 * 2**20
_BLOCK_BYTES = 512
"""What `st_blocks` counts."""


def refuse_hollow(path: Path, where: str) -> None:
    """Refuses a large file that is almost all hole: it takes no room and all the time to read.

    Raises:
        LimitExceededError: If the disk holds less than one in `MAX_EXPANSION` of its bytes.
    """
    status = os.stat(path)
    on_disk = getattr(status, "st_blocks", 0) * _BLOCK_BYTES  # 0: the file system does not say
    if status.st_size > _LARGE_BYTES and 0 < on_disk < status.st_size / MAX_EXPANSION:
        raise LimitExceededError(
            f"a file of {status.st_size:,} bytes of which the disk holds {on_disk:,}: the rest is "
            "holes, read as zeros",
            where=where,
        )
