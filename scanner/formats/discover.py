"""A target -> the adapters in it.

A target is a file or a directory, searched to any depth. Links are followed only where
they stay inside the target (or, for a download cache, inside the `blobs` folder the cache
keeps its content in).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scanner.errors import NothingToScanError, TargetError, UnreadableFileError
from scanner.formats.peft_config import CONFIG_NAME
from scanner.formats.rules import (
    SKIPPED_FOLDERS,
    choose,
    is_adapter_file,
    is_shard,
    lone_shard,
)
from scanner.formats.trainer_state import is_trainer_state


@dataclass(frozen=True)
class AdapterFiles:
    """The files of one adapter."""

    target: Path
    """Name in reports: the directory, or the file if it was named or lies alone."""
    weights: Path | None
    """The weight file or the index of its shards; None if only a config was found."""
    config: Path | None
    others: tuple[Path, ...] = ()
    """Weight files in the same directory that are not part of this adapter, as far as names say."""
    checkpoints: tuple[Path, ...] = ()
    """Weight files beside it that are adapters of their own, if mlx-lm wrote them all."""
    is_checkpoint: bool = False
    """Whether this is an earlier state of the adapter in the same directory."""
    base_weights: Path | None = None
    """The base model, if the weights are a full fine-tune to be compared with it."""
    problem: TargetError | None = None
    """Why the files cannot be read; None if they can."""


LeaveOut = Callable[[Path, Path], bool]
"""Whether a file or folder (first) below a target (second) is left alone."""


def _nothing(path: Path, root: Path) -> bool:  # noqa: ARG001
    return False


def find_adapters(target: Path, leave_out: LeaveOut = _nothing) -> list[AdapterFiles]:
    """Finds every adapter in a target, sorted by path.

    Args:
        target: A file or a directory.
        leave_out: What is not searched; the target itself always is.

    Raises:
        UnreadableFileError: If the target does not exist.
        NothingToScanError: If it is a directory without any adapter.
    """
    if not target.exists():
        raise UnreadableFileError("no such file or directory", where=str(target))
    if target.is_file():
        return [_around_file(target)]
    found = [files for directory in _walk(target, leave_out) for files in directory]
    if not found:
        raise NothingToScanError(
            "no adapter in this directory",
            where=str(target),
            todo="name a directory with adapter weights, or a weight file",
        )
    return found


def adapters_in(directory: Path) -> list[AdapterFiles]:
    """The adapters that lie directly in one directory: none, one, or one per checkpoint.

    Raises:
        UnreadableFileError: If the directory cannot be listed.
    """
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be listed: {error.strerror or error}", where=str(directory)
        ) from None
    return _in_directory(directory, names, directory)


def _walk(target: Path, leave_out: LeaveOut) -> Iterator[list[AdapterFiles]]:
    """What lies in each directory, from the top, in order; however deep they are nested."""
    waiting = [target]
    while waiting:
        directory = waiting.pop()
        try:
            with os.scandir(directory) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            what = f"cannot be listed: {error.strerror or error}"
            problem = UnreadableFileError(what, where=str(directory))
            yield [AdapterFiles(directory, None, None, problem=problem)]
            continue
        folders = [
            entry
            for entry in listed
            if _is_folder(entry)
            and entry.name not in SKIPPED_FOLDERS
            and not leave_out(Path(entry.path), target)
        ]
        links = [Path(entry.path) for entry in folders if entry.is_symlink()]
        yield [
            AdapterFiles(path, None, None, problem=_outside(path))
            for path in links
            if not _stays_inside(path, target)
        ]
        names = [
            entry.name
            for entry in listed
            if not _is_folder(entry)
            and is_adapter_file(entry.name)
            and not leave_out(Path(entry.path), target)
        ]
        yield _in_directory(directory, names, target)
        waiting += [Path(entry.path) for entry in reversed(folders) if not entry.is_symlink()]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _around_file(path: Path) -> AdapterFiles:
    """The adapter a single named file belongs to."""
    config = path.parent / CONFIG_NAME
    if path.name == CONFIG_NAME:
        return adapters_in(path.parent)[0]
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


def _in_directory(directory: Path, names: list[str], root: Path) -> list[AdapterFiles]:
    """The adapters that lie directly in one directory."""
    names = sorted(filter(is_adapter_file, names))
    for name in names:
        if not _stays_inside(directory / name, root):
            return [AdapterFiles(directory, None, None, problem=_outside(directory / name))]
    choice = choose(name for name in names if not is_trainer_state(directory / name))
    if choice is None:
        return []
    config = directory / choice.config if choice.config else None
    if choice.lone_shard:
        problem = lone_shard(str(directory / choice.lone_shard))
        return [AdapterFiles(directory, None, config, problem=problem)]
    if choice.weights is None:
        return [AdapterFiles(directory, None, config)]
    others = tuple(directory / name for name in choice.others)
    every = [directory / name for name in (choice.weights, *choice.checkpoints)]
    return [
        AdapterFiles(
            target=path if index else directory,
            weights=path,
            config=config,
            others=others,
            checkpoints=tuple(item for item in every if item != path),
            is_checkpoint=index > 0,
        )
        for index, path in enumerate(every)
    ]
