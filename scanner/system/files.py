"""Files that appear whole or not at all.

A file is written beside its place, brought to the disk, and renamed over it: whoever reads it
meanwhile sees the old content or the new one, never half of it, and a program that is killed
leaves the old one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, data: bytes | Iterable[bytes], *, durable: bool = True) -> None:
    """Replaces a file's content in one step.

    A link is followed; a device or a pipe is written to as it is.

    Args:
        path: The file.
        data: Its new content, at once or in pieces.
        durable: Wait until the disk has it; not for what can be made again.

    Raises:
        OSError: If the folder is missing or cannot be written.
    """
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        _write(path, data)
        return
    with written_whole(path, durable=durable) as scratch:
        _write(scratch, data)


def _write(path: Path, data: bytes | Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines((data,) if isinstance(data, bytes) else data)


@contextmanager
def written_whole(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A file to write, which takes the place of `path` when the block ends without an error.

    Raises:
        OSError: As `write_whole`.
    """
    path = Path(os.path.realpath(path))
    import tempfile  # with random numbers: not for those who only read

    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    scratch = Path(name)
    try:
        yield scratch
        if durable:
            with scratch.open("rb+") as file:  # Windows flushes only what it may write
                os.fsync(file.fileno())
        scratch.chmod(0o666 & ~_umask())
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask
