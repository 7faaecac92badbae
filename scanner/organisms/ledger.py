"""What has been made and measured: lines of JSON that several processes may add to.

A line is written when what it speaks of is complete on disk. Work in progress is claimed by a file
lock, which the operating system gives back if the process dies; so a killed run loses what it was
doing, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from scanner.errors import UsageError

Row = dict[str, Any]


class Ledger:
    """The records of one folder of adapters.

    Args:
        root: the folder; made if it is not there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "claims").mkdir(parents=True, exist_ok=True)

    @property
    def adapters(self) -> Path:
        """Where the adapters are, one folder each."""
        return self.root / "adapters"

    def adapter(self, identity: str) -> Path:
        """The folder of one adapter."""
        return self.adapters / identity

    def trained(self) -> dict[str, Row]:
        """What has been trained, by id."""
        return self._read("trained")

    def measured(self) -> dict[str, Row]:
        """What has been measured, by id."""
        return self._read("measured")

    def failed(self) -> dict[str, Row]:
        """What could not be trained, by id, with the reason."""
        return self._read("failed")

    def add_failed(self, row: Row) -> None:
        """Records an adapter that could not be trained; the next run tries it again."""
        self._append("failed", row)

    def add_trained(self, row: Row) -> None:
        """Records an adapter that is complete on disk."""
        self._append("trained", row)

    def add_measured(self, row: Row) -> None:
        """Records what an adapter does; a later measurement replaces an earlier one."""
        self._append("measured", row)

    @contextmanager
    def claim(self, name: str, *, wait: bool = False) -> Iterator[bool]:
        """Takes a piece of work if no other process has it; says whether it did.

        Args:
            name: the piece of work.
            wait: whether to wait until the other process is done with it.
        """
        lock = FileLock(self.root / "claims" / f"{name}.lock")
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def _read(self, name: str) -> dict[str, Row]:
        path = self.root / f"{name}.jsonl"
        if not path.exists():
            return {}
        rows: dict[str, Row] = {}
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines, start=1):
            try:
                row = msgspec.json.decode(line, type=Row) if line else None
            except msgspec.DecodeError as error:
                if number == len(lines):  # a line cut short by a kill
                    break
                raise UsageError(str(error), where=f"{path}:{number}") from None
            if row is not None:
                rows[str(row["id"])] = row
        return rows

    def _append(self, name: str, row: Row) -> None:
        path = self.root / f"{name}.jsonl"
        with FileLock(self.root / "claims" / f"{name}.jsonl.lock"), path.open("ab+") as out:
            if out.tell():
                out.seek(-1, 2)
                if out.read(1) != b"\n":
                    _drop_last_line(path)
            out.write(msgspec.json.encode(row) + b"\n")


def _drop_last_line(path: Path) -> None:
    """Removes a line that a kill cut short, so that the next one starts on its own."""
    whole = path.read_bytes()
    with path.open("rb+") as file:
        file.truncate(whole.rfind(b"\n") + 1)
