"""A pack inside an archive: its files are read by name, nothing is ever unpacked to a path.

An archive with an entry that could be written outside a directory, or that is no plain file,
is refused as a whole: it was not made to carry a pack.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, NamedTuple

from scanner.errors import SignatureError, first_line
from scanner.signatures.manifest import MANIFEST_NAME

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")
MAX_ENTRIES = 10_000
MAX_UNPACKED_BYTES = 8 * 2**30
_BLOCK_BYTES = 2**20
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted entry
    NotImplementedError,  # an unknown compression
    ValueError,
)


class _Entry(NamedTuple):
    """One entry of an archive."""

    name: str
    size: int
    is_folder: bool
    is_file: bool
    open: Callable[[], AbstractContextManager[IO[bytes]]]


class Archive:
    """The files of a pack in an archive (a source for `scanner.signatures.distribution.pulled`).

    Args:
        path: The archive on this machine.
        where: What to call it in errors.

    Raises:
        SignatureError: If it is damaged, unsafe, or holds no pack or several.
    """

    def __init__(self, path: Path, where: str) -> None:
        self._where = where
        try:
            self._archive: tarfile.TarFile | zipfile.ZipFile
            if zipfile.is_zipfile(path):
                self._archive = zipfile.ZipFile(path)
                entries = _zip_entries(self._archive)
            else:
                self._archive = tarfile.open(path)  # noqa: SIM115 - closed by close
                entries = _tar_entries(self._archive)
        except _DAMAGED as error:
            raise self._damaged(error) from None
        try:
            self._files = self._pack_files(entries)
        except _DAMAGED as error:
            self.close()
            raise self._damaged(error) from None
        except BaseException:
            self.close()
            raise

    def _pack_files(self, entries: Iterator[_Entry]) -> Mapping[str, _Entry]:
        """File name -> entry, of the folder that holds the manifest."""
        found: dict[str, _Entry] = {}
        total = 0
        for count, entry in enumerate(entries):
            parts = entry.name.split("/")
            unsafe = entry.name.startswith("/") or ".." in parts or "\\" in entry.name
            if unsafe or ":" in parts[0] or not (entry.is_file or entry.is_folder):
                raise SignatureError(
                    f"holds an unsafe entry, {entry.name[:100]!r}",
                    where=self._where,
                    todo="do not unpack it",
                )
            total += entry.size
            if count >= MAX_ENTRIES or total > MAX_UNPACKED_BYTES:
                raise SignatureError("is too large for a pack", where=self._where)
            if entry.is_file:
                name = "/".join(part for part in parts if part not in ("", "."))
                found[name] = entry
        manifests = [name for name in found if name.split("/")[-1] == MANIFEST_NAME]
        if len(manifests) != 1:
            many = f"{len(manifests)} packs" if manifests else "no pack"
            raise SignatureError(f"holds {many} ({MANIFEST_NAME})", where=self._where)
        folder = manifests[0].removesuffix(MANIFEST_NAME)
        return {name.removeprefix(folder): entry for name, entry in found.items() if
                name.startswith(folder)}  # fmt: skip

    def blocks(self, name: str) -> Iterator[bytes] | None:
        """The content of one file of the pack; None if it is not there."""
        entry = self._files.get(name)
        return None if entry is None else self._blocks(entry)

    def _blocks(self, entry: _Entry) -> Iterator[bytes]:
        try:
            with entry.open() as file:
                while block := file.read(_BLOCK_BYTES):
                    yield block
        except _DAMAGED as error:
            raise self._damaged(error) from None

    def close(self) -> None:
        """Closes the archive."""
        self._archive.close()

    def _damaged(self, error: Exception) -> SignatureError:
        return SignatureError(f"is no readable archive: {first_line(error)}", where=self._where)


def _tar_entries(archive: tarfile.TarFile) -> Iterator[_Entry]:
    for item in archive:
        yield _Entry(item.name, item.size, item.isdir(), item.isreg(), _tar_opener(archive, item))


def _tar_opener(
    archive: tarfile.TarFile, item: tarfile.TarInfo
) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    def opened() -> IO[bytes]:
        file = archive.extractfile(item)
        if file is None:
            raise tarfile.TarError(f"{item.name[:100]!r} is no file")
        return file

    return opened


def _zip_entries(archive: zipfile.ZipFile) -> Iterator[_Entry]:
    for item in archive.infolist():
        kind = stat.S_IFMT(item.external_attr >> 16)
        is_file = not item.is_dir() and kind in (0, stat.S_IFREG)
        yield _Entry(
            item.filename, item.file_size, item.is_dir(), is_file, _zip_opener(archive, item)
        )


def _zip_opener(
    archive: zipfile.ZipFile, item: zipfile.ZipInfo
) -> Callable[[], AbstractContextManager[IO[bytes]]]:
    return lambda: archive.open(item)
