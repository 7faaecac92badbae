"""Digests by which those who keep a file name its content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ContentDigest:
    """What a content must hash to."""

    kind: Literal["sha256", "git"]
    """``git`` is the id git gives a blob: sha1 over a line with its size, and the content."""
    value: str

    def of(self, blocks: Iterable[bytes | memoryview], size: int) -> str:
        """The digest of this kind of some content."""
        if self.kind == "sha256":
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        for block in blocks:
            digest.update(block)
        return digest.hexdigest()

    def __str__(self) -> str:
        """``sha256:...`` or ``git:...``."""
        return f"{self.kind}:{self.value}"
