"""A local file that is opened once, so that what is read and what is hashed is one content.

Whoever can write to a file while it is scanned could otherwise have one content judged and
another one's digest written down. So a store opens its file once, reads and hashes through that
descriptor, and refuses a file that was written to since.
"""

from __future__ import annotations

import os
from pathlib import Path

from scanner.errors import LimitExceededError, MalformedFileError, UnreadableFileError
from scanner.formats.limits import MAX_FILE_BYTES
from scanner.formats.regular import open_regular
from scanner.formats.stores.ahead import FileState, digest_begun
from scanner.formats.stores.blocks import sha256_of_descriptor


class OpenedFile:
    """An open regular file.

    Args:
        path: The file.
        where: What to call it in errors.
        limit: The most bytes it may have.
        todo: What to do about one that is larger.
        filled: Whether this program itself fills the file while it is read, as a local copy of
            a file elsewhere is: then writing to it is no change.
        replaced: Whether its name may go to another file meanwhile, as where a pack is updated
            that a long training still reads: only its size and time of modification count then.

    Raises:
        UnreadableFileError: If it cannot be opened.
        LimitExceededError: If it is larger than the limit.
    """

    def __init__(
        self,
        path: Path,
        where: str,
        *,
        limit: int = MAX_FILE_BYTES,
        todo: str = "",
        filled: bool = False,
        replaced: bool = False,
    ) -> None:
        self._where = where
        self._filled = filled
        self._replaced = replaced
        try:
            self.file = open_regular(path)
        except OSError as error:
            raise UnreadableFileError(
                f"cannot be opened: {error.strerror or error}", where=where
            ) from None
        self.descriptor = self.file.fileno()
        self._opened = os.fstat(self.descriptor)
        self.size = self._opened.st_size
        """Bytes, when it was opened."""
        if self.size > limit:
            self.close()
            raise LimitExceededError(
                f"{self.size:,} bytes (limit {limit:,})", where=where, todo=todo
            )

    def refuse_changed(self) -> None:
        """Refuses a file whose size or times are others than when it was opened.

        Asked after every read, whichever comes first, reading or hashing. The time of modification
        can be set back by whoever writes; that of the last change of any kind cannot. It also moves
        when a name of the file is taken away.

        Raises:
            MalformedFileError: If it changed.
        """
        if self._filled:
            return
        now, then = FileState.of(os.fstat(self.descriptor)), FileState.of(self._opened)
        if self._replaced:
            now = now._replace(changed=then.changed)
        if now != then:
            raise MalformedFileError(
                "changed while it was read", where=self._where, todo="scan it when it is at rest"
            )

    def sha256(self) -> str:
        """Hex digest of the whole file.

        Raises:
            MalformedFileError: If it changed since it was opened.
        """
        digest = digest_begun(self._opened) or sha256_of_descriptor(self.descriptor)
        self.refuse_changed()
        return digest

    def close(self) -> None:
        """Closes the file."""
        self.file.close()


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    with open_regular(path) as file:
        return sha256_of_descriptor(file.fileno())
