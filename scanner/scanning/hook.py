"""Changed files -> the adapters they belong to, as a commit hook needs it.

A hook is handed file names. An adapter is a directory: weights and configuration together
decide the update, so a commit that touches either has the whole directory scanned, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scanner.errors import TargetError
from scanner.formats.discover import adapters_in
from scanner.formats.rules import is_adapter_file
from scanner.scanning.exclusion import Exclusion
from scanner.scanning.targets import Found


def belongs_to_adapter(path: Path) -> bool:
    """Whether a changed file can change what an adapter does."""
    return is_adapter_file(path.name)


def changed_adapters(files: Sequence[str], exclusion: Exclusion | None = None) -> list[Found]:
    """One entry per directory that holds a changed adapter, in order.

    A directory that cannot be searched is itself an entry with an error.

    Args:
        files: The changed files.
        exclusion: Which of them are left alone.
    """
    changed = [Path(name) for name in files if belongs_to_adapter(Path(name))]
    directories = {path.parent for path in changed if not (exclusion and exclusion.holds(path))}
    found: list[Found] = []
    for directory in sorted(directories):
        try:
            found += [Found(str(files.target), files) for files in adapters_in(directory)]
        except TargetError as error:
            found.append(Found(str(directory), None, error))
    return found
