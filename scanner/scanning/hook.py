"""Changed files -> the adapters they belong to, as a commit hook needs it.

A hook is handed file names. An adapter is a directory: weights and configuration together
decide the update, so a commit that touches either has the whole directory scanned, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scanner.errors import TargetError
from scanner.formats.discover import adapter_in
from scanner.formats.rules import TRAINER_STATE, is_adapter_file
from scanner.scanning.targets import Found


def belongs_to_adapter(path: Path) -> bool:
    """Whether a changed file can change what an adapter does."""
    return is_adapter_file(path.name) and path.name not in TRAINER_STATE


def changed_adapters(files: Sequence[str]) -> list[Found]:
    """One entry per directory that holds a changed adapter, in order.

    A directory that cannot be searched is itself an entry with an error.
    """
    directories = {Path(name).parent for name in files if belongs_to_adapter(Path(name))}
    found = []
    for directory in sorted(directories):
        try:
            adapter = adapter_in(directory)
        except TargetError as error:
            found.append(Found(str(directory), None, error))
            continue
        if adapter is not None:
            found.append(Found(str(adapter.target), adapter))
    return found
