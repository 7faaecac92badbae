"""Zip archives that every reader understands alike.

A zip file is found by the record at its end. torch (miniz) then goes where that record
says the directory lies; Python's zipfile goes to the bytes in front of the record. A file
with two directories is two archives, and the one that is scanned need not be the one that
runs. So the directory must lie where both look, nothing may follow the record, and no name may
occur twice.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, BinaryIO

from scanner.errors import MalformedFileError

if TYPE_CHECKING:
    import zipfile

ZIP_MAGIC = b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
"""End of central directory: signature, disks, entries here and in all, size, offset, comment."""
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_UNKNOWN_32 = 0xFFFFFFFF


def open_archive(file: BinaryIO, where: str) -> zipfile.ZipFile:
    """Opens an archive that has one directory, where every reader looks for it.

    Raises:
        MalformedFileError: If it is damaged, or would be read differently elsewhere.
    """
    import zipfile  # few adapters are archives

    try:
        _check_directory(file, where)
        file.seek(0)
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
        raise MalformedFileError(f"not a sound archive: {error}", where=where) from None
    names = archive.namelist()
    if len(set(names)) != len(names):
        raise MalformedFileError(
            "an archive with two members of one name; readers differ in which they take",
            where=where,
            todo="do not load it",
        )
    return archive


def _check_directory(file: BinaryIO, where: str) -> None:
    size = file.seek(0, os.SEEK_END)
    at = size - _END.size
    if at < 0:
        raise ValueError("File is not a zip file")
    mark, *_, length, offset, comment = _END.unpack(_read(file, at, _END.size))
    sound = mark == b"PK\5\6" and comment == 0
    end = at
    locator_at = at - _LOCATOR.size
    if locator_at >= 0:
        mark, _, end64_at, _ = _LOCATOR.unpack(_read(file, locator_at, _LOCATOR.size))
        if mark == b"PK\6\7":
            end = locator_at - _END64.size
            record = _END64.unpack(_read(file, max(end, 0), _END64.size))
            sound = sound and end64_at == end and record[0] == b"PK\6\6"
            for small, large in ((length, record[-2]), (offset, record[-1])):
                sound = sound and small in (_UNKNOWN_32, large)
            length, offset = record[-2], record[-1]
    if not sound or offset + length != end:
        raise MalformedFileError(
            "an archive whose directory does not lie where its end record says, or that goes on "
            "behind it: loaders would read different things in it",
            where=where,
            todo="do not load it",
        )


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
