"""Digests of open files, block by block."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from scanner.system.positional import read_into

_BLOCK_BYTES = 2**18
"""Read at a time: what was read is hashed while it is in the processor's cache."""


def sha256_of_descriptor(descriptor: int) -> str:
    """Hex digest of an open file, from its start whatever its position."""
    digest = hashlib.sha256()
    for block in blocks_of_descriptor(descriptor):
        digest.update(block)
    return digest.hexdigest()


def blocks_of_descriptor(descriptor: int) -> Iterator[memoryview]:
    """The content of an open file in blocks, from its start whatever its position.

    All blocks share one piece of memory: each has to be used before the next is asked for.
    """
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    position = 0
    while count := read_into(descriptor, buffer, position):
        yield buffer[:count]
        position += count
