"""One digest for everything in an artifact: every file's name and every file's content.

The digest of the weights alone would let somebody change the configuration beside them, which
changes the update, or add a second adapter, without the verdict noticing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from scanner.errors import LimitExceededError, MalformedFileError, UnreadableFileError
from scanner.formats.stores.opened import sha256_of_file

MAX_FILES = 100_000
"""Files an artifact may have; a model has dozens."""
_DOMAIN = b"adapter-scanner artifact v1\n"


def artifact_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a directory as (name with forward slashes, path), sorted by name.

    Raises:
        UnreadableFileError: If a directory cannot be listed.
        MalformedFileError: If there is a link, a device or anything that is no plain file: what
            it leads to can change while the digest stays.
        LimitExceededError: If there are more than `MAX_FILES`.
    """
    found: list[tuple[str, Path]] = []

    def unreadable(error: OSError) -> None:
        raise UnreadableFileError(f"cannot be listed: {error.strerror}", where=str(error.filename))

    for directory, folders, names in os.walk(root, onerror=unreadable, followlinks=False):
        for name in folders:
            if Path(directory, name).is_symlink():
                raise MalformedFileError("a link in an artifact", where=str(Path(directory, name)))
        for name in names:
            path = Path(directory, name)
            if path.is_symlink() or not path.is_file():
                raise MalformedFileError("not a plain file", where=str(path))
            found.append((path.relative_to(root).as_posix(), path))
        if len(found) > MAX_FILES:
            raise LimitExceededError(f"more than {MAX_FILES} files", where=str(root))
    return iter(sorted(found, key=lambda item: os.fsencode(item[0])))


def artifact_sha256(root: Path) -> str:
    """The digest of a directory, or of a single file as a directory that holds only it.

    sha256 over a domain line and, per file in the byte order of the names, the length of the
    name (8 bytes, big-endian), the name, and the 32 bytes of the content's sha256.

    Raises:
        TargetError: If something in it cannot be read, or is not a plain file.
    """
    files = [(root.name, root)] if root.is_file() else artifact_files(root)
    digest = hashlib.sha256(_DOMAIN)
    for name, path in files:
        raw = os.fsencode(name)
        digest.update(len(raw).to_bytes(8, "big") + raw)
        try:
            digest.update(bytes.fromhex(sha256_of_file(path)))
        except OSError as error:
            raise UnreadableFileError(
                f"cannot be read: {error.strerror or error}", where=str(path)
            ) from None
    return digest.hexdigest()
