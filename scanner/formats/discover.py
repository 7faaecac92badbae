"""A target -> the adapters in it.

A target is a file or a directory, searched to any depth. Links are followed only where
they stay inside the target (or, for a download cache, inside the `blobs` folder the cache
keeps its content in).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import NothingToScanError, TargetError, UnreadableFileError
from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.rules import (
    ADAPTER_STEMS,
    SKIPPED_FOLDERS,
    TRAINER_STATE,
    WEIGHT_SUFFIXES,
    choose,
    is_adapter_file,
    is_shard,
    lone_shard,
)

__all__ = [
    "ADAPTER_STEMS",
    "TRAINER_STATE",
    "WEIGHT_SUFFIXES",
    "AdapterFiles",
    "adapter_in",
    "find_adapters",
]


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter."""

    target: Path
    """Name in reports: the directory, or the file if it was named or lies alone."""
    weights: Path | None
    """The weight file or the index of its shards; None if only a config was found."""
    config: Path | None
    others: tuple[Path, ...] = ()
    """Weight files in the same directory that are not part of this adapter."""
    base_weights: Path | None = None
    """The base model, if the weights are a full fine-tune to be compared with it."""
    problem: TargetError | None = None
    """Why the files cannot be read; None if they can."""


def find_adapters(target: Path) -> list[AdapterFiles]:
    """Finds every adapter in a target, sorted by path.

    Raises:
        UnreadableFileError: If the target does not exist.
        NothingToScanError: If it is a directory without any adapter.
    """
    if not target.exists():
        raise UnreadableFileError("no such file or directory", where=str(target))
    if target.is_file():
        return [_around_file(target)]
    found: list[AdapterFiles] = []

    def unreadable(error: OSError) -> None:
        place = Path(error.filename)
        problem = UnreadableFileError(f"cannot be listed: {error.strerror}", where=str(place))
        found.append(AdapterFiles(place, None, None, problem=problem))

    for directory, folders, names in os.walk(target, onerror=unreadable, followlinks=False):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        found += [
            AdapterFiles(path, None, None, problem=_outside(path))
            for path in (Path(directory, name) for name in folders)
            if not _stays_inside(path, target)
        ]
        if files := _in_directory(Path(directory), names, target):
            found.append(files)
    if not found:
        raise NothingToScanError(
            "no adapter in this directory",
            where=str(target),
            todo="name a directory with adapter weights, or a weight file",
        )
    return found


def adapter_in(directory: Path) -> AdapterFiles | None:
    """The adapter that lies directly in one directory, if any.

    Raises:
        UnreadableFileError: If the directory cannot be listed, or holds a link that leads out.
    """
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be listed: {error.strerror or error}", where=str(directory)
        ) from None
    return _in_directory(directory, names, directory)


def _around_file(path: Path) -> AdapterFiles:
    """The adapter a single named file belongs to."""
    config = path.parent / CONFIG_NAME
    if path.name == CONFIG_NAME:
        files = _in_directory(path.parent, os.listdir(path.parent), path.parent)
        assert files is not None, "a directory with a config always makes an adapter"
        return files
    problem = lone_shard(str(path)) if is_shard(path.name) else None
    return AdapterFiles(path, path, config if config.is_file() else None, problem=problem)


def _stays_inside(path: Path, root: Path) -> bool:
    """Whether a file, links resolved, lies where the scan was asked to look."""
    if not path.is_symlink():
        return True
    try:
        resolved, inside = path.resolve(), root.resolve()
    except (OSError, RuntimeError):  # a link that leads to itself
        return False
    if resolved.is_relative_to(inside):
        return True
    # A hub cache keeps snapshots/<commit>/<name> as links into ../../blobs.
    snapshot = next((p for p in (inside, *inside.parents) if p.parent.name == "snapshots"), None)
    return snapshot is not None and resolved.parent == snapshot.parent.parent / "blobs"


def _outside(path: Path) -> UnreadableFileError:
    return UnreadableFileError(
        "a link that leads out of the target", where=str(path), todo="scan the place it points to"
    )


def _in_directory(directory: Path, names: list[str], root: Path) -> AdapterFiles | None:
    """The adapter that lies directly in one directory, if any."""
    for name in sorted(filter(is_adapter_file, names)):
        if not _stays_inside(directory / name, root):
            return AdapterFiles(directory, None, None, problem=_outside(directory / name))
    choice = choose(names)
    if choice is None:
        return None
    config = directory / choice.config if choice.config else None
    if choice.lone_shard:
        problem = lone_shard(str(directory / choice.lone_shard))
        return AdapterFiles(directory, None, config, problem=problem)
    weights = directory / choice.weights if choice.weights else None
    others = tuple(directory / name for name in choice.others)
    return AdapterFiles(directory, weights, config, others)
