"""How much disk a running process takes at its highest, files without a name included."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class DiskWatch:
    """Looks at what lies below some folders, and at what a process holds there without a name.

    Args:
        process: Its id.
        folders: Where it may write.
        seconds: Between two looks.
    """

    def __init__(self, process: int, folders: Sequence[Path], seconds: float = 0.02) -> None:
        self._process = process
        self._folders = folders
        self._seconds = seconds
        self._ended = Event()
        self._thread = Thread(target=self._look, daemon=True)
        self.peak = 0
        """Bytes."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(self._seconds):
            total = sum(bytes_below(folder) for folder in self._folders)
            self.peak = max(self.peak, total + self._nameless())

    def _nameless(self) -> int:
        """Bytes of removed files that the process still holds, by descriptor or by mapping."""
        found: dict[int, int] = {}
        with suppress(OSError):
            for entry in Path(f"/proc/{self._process}/fd").iterdir():
                with suppress(OSError):
                    if self._is_gone(os.readlink(entry)):
                        held = entry.stat()
                        found[held.st_ino] = held.st_size
        with suppress(OSError):
            for line in Path(f"/proc/{self._process}/maps").read_text().splitlines():
                parts = line.split(maxsplit=5)
                if len(parts) == 6 and self._is_gone(parts[5]):
                    begin, end = (int(part, 16) for part in parts[0].split("-"))
                    found.setdefault(int(parts[4]), end - begin)
        return sum(found.values())

    def _is_gone(self, name: str) -> bool:
        folders = tuple(f"{folder}/" for folder in self._folders)
        return name.endswith(" (deleted)") and name.startswith(folders)


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder; links count as what they are."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
