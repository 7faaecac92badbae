"""A file of lines that outlives a kill: what was written stands, what was being written is gone.

The first line says what the others are about. A journal about something else is begun anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

Entry = TypeVar("Entry")


class Journal(Generic[Entry]):
    """Records of one kind, added one at a time by one process.

    Args:
        path: The file; its folder has to be there. None keeps nothing.
        about: What the records belong to, such as a digest of what they were made from.
        kind: Type of the records.
    """

    def __init__(self, path: Path | None, about: str, kind: type[Entry]) -> None:
        self._path = path
        self._kind = kind
        self._kept = list(self._read(about)) if path is not None else []

    @property
    def kept(self) -> list[Entry]:
        """The records that earlier processes wrote, in order."""
        return self._kept

    def add(self, entry: Entry) -> None:
        """Writes a record; it survives the end of this process from now on."""
        if self._path is not None:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(entry) + b"\n")

    def _read(self, about: str) -> Iterator[Entry]:
        assert self._path is not None, "checked by the caller"
        raw = self._path.read_bytes() if self._path.exists() else b""
        whole = raw[: raw.rfind(b"\n") + 1]  # a line that a kill cut short is not there
        first, *lines = whole.splitlines() or [b""]
        if first != about.encode():
            self._path.write_bytes(about.encode() + b"\n")
            return
        if len(whole) < len(raw):
            with self._path.open("rb+") as file:
                file.truncate(len(whole))
        for line in lines:
            yield msgspec.json.decode(line, type=self._kind)
