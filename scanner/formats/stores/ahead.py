"""Digests that are begun before anything is known of a file, while this program still starts.

Hashing takes a processor of its own and no interpreter lock: it costs no time beside the imports.
The digest is that of a descriptor opened here, and is used for another descriptor of the same file
only: the same inode, with the same size and times when either was opened and when either was done
with. Nobody can set back the time of a file's last change of any kind. Whoever reads the file asks
for it again after each read (`OpenedFile.refuse_changed`), so that it makes no difference whether
the bytes that are judged were read before or after they were hashed.

What is written through a shared memory map moves a file's times only when a page of it is first
written to. Whoever holds such a map since before the scan can change those pages between hashing
and reading, in whichever order: no file that others may write to meanwhile is safe from that.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import BinaryIO, NamedTuple

from scanner.formats.regular import open_regular
from scanner.formats.stores.blocks import sha256_of_descriptor

_WORTH_IT = 8 * 2**20
"""Bytes from which a thread is worth it."""


class FileState(NamedTuple):
    """What tells one content of one file from another."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """What a file was when it was asked."""
        return cls(
            status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
        )


class _Digest:
    """One digest in the making."""

    def __init__(self, file: BinaryIO, state: FileState) -> None:
        self._file = file
        self._state = state
        self._value: str | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        with self._file as file:
            value = sha256_of_descriptor(file.fileno())
            if FileState.of(os.fstat(file.fileno())) == self._state:
                self._value = value

    def result(self) -> str | None:
        """The digest; None if the file changed meanwhile."""
        self._thread.join()
        return self._value


_begun: dict[FileState, _Digest] = {}


def begin_digest(path: Path) -> None:
    """Begins the digest of the adapter at a path, if it is a plain file or a directory with one.

    Whatever is wrong with it is for those to say who read it.
    """
    try:
        file = open_regular(path / "adapter_model.safetensors" if path.is_dir() else path)
    except OSError:
        return
    state = FileState.of(os.fstat(file.fileno()))
    if state.size < _WORTH_IT:
        file.close()
    else:
        _begun[state] = _Digest(file, state)


def digest_begun(status: os.stat_result) -> str | None:
    """The digest of an open file, if it was begun and is that of its content when it was opened.

    Args:
        status: Of the file's descriptor, when it was opened.
    """
    digest = _begun.pop(FileState.of(status), None)
    return digest.result() if digest else None
